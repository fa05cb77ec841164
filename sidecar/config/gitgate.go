package config

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/bottle-run/bottle/sidecar/gitgate/ref"
	"github.com/bottle-run/bottle/sidecar/policy"
)

// GitGate is the configuration of the git gate sidecar.
type GitGate struct {
	// Agent is the name of the agent, for the audit log.
	Agent string `json:"agent"`
	// Listen is the address of the gate. Default: ":9418".
	Listen       string          `json:"listen,omitempty"`
	Repositories []GitRepository `json:"repositories"`
	Guard        Guard           `json:"guard"`
	// Upstream is how the hosts of https URLs are reached. The others are dialled.
	Upstream Upstream `json:"upstream"`
	// Scan says which rules are applied to what is pushed. Known values are refused
	// wherever they would go.
	Scan Scan `json:"scan"`
	// Secrets are the names of the secrets without which the sidecar is not ready, beside
	// those of credentials.
	Secrets []string `json:"secrets,omitempty"`
	// Quarantine is a directory for packs that are looked at: one file a push, without a
	// name and gone with the push. It needs room for PackBytes times Pushes. Default:
	// where the configuration is.
	Quarantine string    `json:"quarantine,omitempty"`
	Limits     GitLimits `json:"limits"`
}

// GitRepository is an upstream.
type GitRepository struct {
	// Name is what the agent dials it as: git://GATE/NAME.git.
	Name string `json:"name"`
	// URL is the upstream's, over https, ssh (also user@host:path), git or file.
	URL        string         `json:"url"`
	Credential *GitCredential `json:"credential,omitempty"`
	// KnownHosts are lines as known_hosts files have them. An ssh URL needs one that
	// names its host.
	KnownHosts []string `json:"known_hosts,omitempty"`
	// Push says what may be pushed. Nil: nothing.
	Push *GitPush `json:"push,omitempty"`
	// AnyObject lets the agent want objects that no reference of the upstream names, if the
	// upstream gives them: what partial clones need to fetch what they left out, and
	// submodules that are at a commit which is no tip.
	AnyObject bool `json:"any_object,omitempty"`
}

// GitCredential is what the gate presents to an upstream.
type GitCredential struct {
	// Secret is the name of the secret. For an ssh key its value is the key's file in
	// standard base64, without line breaks.
	Secret string `json:"secret"`
	// Kind is "basic" or "bearer" for https, "ssh-key" for ssh.
	Kind string `json:"kind"`
	// Username goes with a password of kind basic. Default: "git".
	Username string `json:"username,omitempty"`
}

// The kinds of credentials.
const (
	GitBasic  = "basic"
	GitBearer = "bearer"
	GitSSHKey = "ssh-key"
)

// GitPush says what may be pushed.
type GitPush struct {
	// Branches and Tags are patterns: * stands for characters but a slash, ** for any.
	Branches []string `json:"branches,omitempty"`
	Tags     []string `json:"tags,omitempty"`
	// Notes are patterns below refs/notes/.
	Notes []string `json:"notes,omitempty"`
	// Force allows references to be set to what does not descend from what they were, and
	// existing tags to be moved.
	Force bool `json:"force,omitempty"`
	// Delete allows references to be deleted.
	Delete bool `json:"delete,omitempty"`
}

// GitLimits bound what the agent may use. Zero means the default.
type GitLimits struct {
	// Connections at a time. Default: 64.
	Connections int `json:"connections,omitempty"`
	// Pushes at a time; others wait. Default: 2.
	Pushes int `json:"pushes,omitempty"`
	// Refs of one push. Default: 100.
	Refs int `json:"refs,omitempty"`
	// PackBytes is the size of a pack that is pushed. Default: 512 MiB.
	PackBytes int64 `json:"pack_bytes,omitempty"`
	// Objects of one push. Default: 500,000.
	Objects int `json:"objects,omitempty"`
	// ObjectBytes is the size of one object. Default: 256 MiB.
	ObjectBytes int64 `json:"object_bytes,omitempty"`
	// InflatedBytes is the sum of all that one push inflates to. Default: 16 GiB.
	InflatedBytes int64 `json:"inflated_bytes,omitempty"`
	// RequestTimeout is how long the request of a connection may take. Default: 30s.
	RequestTimeout Duration `json:"request_timeout,omitempty"`
	// IdleTimeout is how long nothing may move, in neither direction. Default: 15m.
	IdleTimeout Duration `json:"idle_timeout,omitempty"`
}

// WithDefaults returns the limits with defaults filled in.
func (l GitLimits) WithDefaults() GitLimits {
	setDefault(&l.Connections, 64)
	setDefault(&l.Pushes, 2)
	setDefault(&l.Refs, 100)
	setDefault(&l.PackBytes, 512<<20)
	setDefault(&l.Objects, 500_000)
	setDefault(&l.ObjectBytes, 256<<20)
	setDefault(&l.InflatedBytes, 16<<30)
	setDefault(&l.RequestTimeout, Duration(30*time.Second))
	setDefault(&l.IdleTimeout, Duration(15*time.Minute))
	return l
}

func setDefault[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

// ReadGitGate reads and validates the file of a git gate.
func ReadGitGate(path string) (*GitGate, error) {
	c := &GitGate{}
	return c, readFile(path, c, c.Validate)
}

// Validate checks everything that can be checked without other files. Its errors are of
// type [*policy.FieldError].
func (c *GitGate) Validate() error {
	if c.Listen != "" {
		if _, _, err := net.SplitHostPort(c.Listen); err != nil {
			return &policy.FieldError{Path: "listen", Err: fmt.Errorf("%q is not HOST:PORT", c.Listen)}
		}
	}
	names := map[string]bool{}
	for i, r := range c.Repositories {
		if err := r.validate(); err != nil {
			return within(fmt.Sprintf("repositories[%d].", i), err)
		}
		if names[r.Name] {
			return &policy.FieldError{Path: fmt.Sprintf("repositories[%d].name", i), Err: fmt.Errorf("there is another repository %q", r.Name)}
		}
		names[r.Name] = true
	}
	if _, err := c.Guard.Servers(); err != nil {
		return err
	}
	if _, err := c.Upstream.ProxyURL(); err != nil {
		return err
	}
	if err := c.Scan.Check(); err != nil {
		return within("scan.", err)
	}
	l := c.Limits
	if l.Connections < 0 || l.Pushes < 0 || l.Refs < 0 || l.PackBytes < 0 || l.Objects < 0 || l.ObjectBytes < 0 || l.InflatedBytes < 0 {
		return &policy.FieldError{Path: "limits", Err: errors.New("a limit is negative")}
	}
	return nil
}

func (r *GitRepository) validate() error {
	fail := func(field, format string, args ...any) error {
		return &policy.FieldError{Path: field, Err: fmt.Errorf(format, args...)}
	}
	if err := CheckGitName(r.Name); err != nil {
		return &policy.FieldError{Path: "name", Err: err}
	}
	u, err := ParseGitURL(r.URL)
	if err != nil {
		return &policy.FieldError{Path: "url", Err: err}
	}
	if cr := r.Credential; cr != nil {
		switch {
		case cr.Secret == "":
			return missing("credential.secret", "the name of the secret")
		case cr.Kind != GitBasic && cr.Kind != GitBearer && cr.Kind != GitSSHKey:
			return fail("credential.kind", "%q is not one of basic, bearer and ssh-key", cr.Kind)
		case u.Scheme == "ssh" && cr.Kind != GitSSHKey, u.Scheme == "https" && cr.Kind == GitSSHKey:
			return fail("credential.kind", "%q does not go with a URL over %s", cr.Kind, u.Scheme)
		case u.Scheme != "ssh" && u.Scheme != "https":
			return fail("credential", "a URL over %s takes no credential", u.Scheme)
		case cr.Username != "" && cr.Kind != GitBasic:
			return fail("credential.username", "only kind basic has a user name; that of ssh is part of the URL")
		case strings.ContainsFunc(cr.Username, func(c rune) bool { return c < ' ' || c == ':' || c == 0x7f }):
			return fail("credential.username", "it holds a colon or a control character")
		}
	}
	if u.Scheme == "ssh" {
		if r.Credential == nil {
			return missing("credential", "the key for a URL over ssh")
		}
		if len(r.KnownHosts) == 0 {
			return missing("known_hosts", "the key of the ssh server")
		}
	} else if len(r.KnownHosts) > 0 {
		return fail("known_hosts", "only URLs over ssh need known hosts")
	}
	for i, line := range r.KnownHosts {
		if strings.ContainsAny(line, "\r\n") {
			return fail(fmt.Sprintf("known_hosts[%d]", i), "it is more than one line")
		}
	}
	if r.Push == nil {
		return nil
	}
	for _, list := range []struct {
		field    string
		patterns []string
	}{{"branches", r.Push.Branches}, {"tags", r.Push.Tags}, {"notes", r.Push.Notes}} {
		for i, p := range list.patterns {
			if _, err := ref.ParsePattern(p); err != nil {
				return &policy.FieldError{Path: fmt.Sprintf("push.%s[%d]", list.field, i), Err: err}
			}
		}
	}
	return nil
}

// CheckGitName says whether a repository may have a name.
func CheckGitName(name string) error {
	const also = "-_."
	switch {
	case name == "":
		return errors.New("the name of the repository is missing")
	case len(name) > 100:
		return errors.New("the name is longer than 100 bytes")
	case strings.HasPrefix(name, "-") || strings.HasPrefix(name, ".") || strings.HasSuffix(name, ".git"):
		return fmt.Errorf("%q: a name begins with a letter, a digit or an underscore, and does not end in .git", name)
	}
	for _, c := range name {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && !strings.ContainsRune(also, c) {
			return fmt.Errorf("%q holds %q: a name is made of letters, digits, dashes, underscores and dots", name, c)
		}
	}
	return nil
}

// GitURL is the address of an upstream.
type GitURL struct {
	// Scheme is "https", "ssh", "git" or "file".
	Scheme string
	// User is that of ssh. It is empty if the URL names none.
	User string
	// Host is in canonical form; empty for a file.
	Host string
	Port uint16
	// Path is as the server gets it: with a slash at its beginning, but for what an scp
	// form means relative to the home of the user.
	Path string
}

// ParseGitURL reads a URL, or the scp form USER@HOST:PATH.
func ParseGitURL(s string) (*GitURL, error) {
	if s == "" {
		return nil, errors.New("the URL is missing")
	}
	if strings.ContainsFunc(s, func(c rune) bool { return c <= ' ' || c == 0x7f }) {
		return nil, errors.New("the URL holds a space or a control character")
	}
	scheme, rest, ok := strings.Cut(s, "://")
	if !ok {
		before, path, ok := strings.Cut(s, ":")
		if !ok || strings.Contains(before, "/") || strings.HasPrefix(path, ":") {
			return nil, fmt.Errorf("%q is no URL over https, ssh, git or file", s)
		}
		return gitURL("ssh", before, path)
	}
	switch scheme {
	case "file":
		if !strings.HasPrefix(rest, "/") {
			return nil, fmt.Errorf("%q: a file URL has three slashes and an absolute path", s)
		}
		return &GitURL{Scheme: "file", Path: rest}, nil
	case "https", "ssh", "git":
	case "http":
		return nil, errors.New("http is not encrypted: use https")
	default:
		return nil, fmt.Errorf("%q is no URL over https, ssh, git or file", s)
	}
	authority, path, _ := strings.Cut(rest, "/")
	if strings.ContainsAny(path, "?#") {
		return nil, fmt.Errorf("%q: the URL of a repository has no query and no fragment", s)
	}
	if scheme == "https" {
		if u, err := url.Parse(s); err != nil || u.EscapedPath() != "/"+path {
			return nil, fmt.Errorf("%q: its path cannot be sent as it is", s)
		}
	} else if decoded, err := url.PathUnescape(path); err != nil || strings.ContainsFunc(decoded, func(c rune) bool { return c < ' ' || c == 0x7f }) {
		return nil, fmt.Errorf("%q: its path is malformed", s)
	} else {
		path = decoded
	}
	return gitURL(scheme, authority, "/"+path)
}

func gitURL(scheme, authority, path string) (*GitURL, error) {
	u := &GitURL{Scheme: scheme, Path: path}
	if user, host, ok := strings.Cut(authority, "@"); ok {
		switch {
		case strings.Contains(user, ":"):
			return nil, errors.New("the URL holds a password: name a secret in credential instead")
		case scheme != "ssh":
			return nil, errors.New("the URL holds a user: name it in credential.username instead")
		case user == "" || strings.HasPrefix(user, "-") || strings.Contains(user, "%"):
			return nil, fmt.Errorf("%q is no user", user)
		}
		u.User, authority = user, host
	}
	ports := map[string]uint16{"https": 443, "ssh": 22, "git": 9418}
	var err error
	if u.Host, u.Port, err = policy.ParseAuthority(authority, ports[scheme]); err != nil {
		return nil, err
	}
	trimmed := strings.Trim(u.Path, "/")
	if trimmed == "" || slices.Contains(strings.Split(trimmed, "/"), "..") {
		return nil, fmt.Errorf("%q is no path of a repository", u.Path)
	}
	if strings.HasPrefix(u.Path, "-") {
		return nil, fmt.Errorf("the path %q begins with a dash", u.Path)
	}
	return u, nil
}

// String returns the URL, with a port if it is not the usual one.
func (u *GitURL) String() string {
	if u.Scheme == "file" {
		return "file://" + u.Path
	}
	host := u.Host
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	if usual := map[string]uint16{"https": 443, "ssh": 22, "git": 9418}; usual[u.Scheme] != u.Port {
		host += ":" + strconv.Itoa(int(u.Port))
	}
	if u.User != "" {
		host = u.User + "@" + host
	}
	return u.Scheme + "://" + host + "/" + strings.TrimPrefix(u.Path, "/")
}

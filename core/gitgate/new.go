package gitgate

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/bottle-run/bottle/core/egress"
	"github.com/bottle-run/bottle/core/manifest"
	"github.com/bottle-run/bottle/sidecar/config"
	"github.com/bottle-run/bottle/sidecar/gitgate/ref"
	"github.com/bottle-run/bottle/sidecar/policy"
)

// Source is what a policy is made of.
type Source struct {
	Git  map[string]manifest.Repository
	Gate *manifest.GitGate
	// Egress is the policy of what leaves otherwise, nil if nothing does.
	Egress *egress.Policy
	// Way is how the world is reached.
	Way         egress.Way
	SecretHosts map[string]manifest.StringList
	// Variables are the agent's, whether they are secret or not: no credential may be among
	// their values.
	Variables map[string]string
	// LookupEnv finds a variable of the host's.
	LookupEnv func(name string) (string, bool)
	// Path makes a path of the manifest's absolute.
	Path func(string) string
	// Fail is told what is wrong with the value at some keys of the bottle's.
	Fail func(keys []string, format string, args ...any)
}

// New makes a policy, and finds the values of its secrets. Everything that is wrong is told
// to src.Fail; what is returned is then of no use.
func New(src Source) (*Policy, map[string]string) {
	b := &builder{Source: src, secrets: map[string]string{}}
	b.policy.Way = src.Way
	for _, name := range slices.Sorted(maps.Keys(src.Git)) {
		b.repository(name, src.Git[name])
	}
	b.urls()
	b.limits()
	for _, name := range slices.Sorted(maps.Keys(src.SecretHosts)) {
		if slices.Contains(src.SecretHosts[name], "*") {
			b.policy.Open = append(b.policy.Open, name)
		}
	}
	return &b.policy, b.secrets
}

type builder struct {
	Source
	policy  Policy
	secrets map[string]string
}

func (b *builder) fail(name, key, format string, args ...any) {
	b.Fail([]string{"git", name, key}, key+": "+format, args...)
}

func (b *builder) repository(name string, m manifest.Repository) {
	r := Repository{Name: name, URL: m.URL, AnyObject: m.AnyObject}
	r.Push = push(m.Push)
	// Also if something is wrong with it: what follows may be wrong, too.
	defer func() { b.policy.Repositories = append(b.policy.Repositories, r) }()
	if err := config.CheckGitName(name); err != nil {
		b.Fail([]string{"git", name}, "git: %v", err)
	}
	u, err := config.ParseGitURL(m.URL)
	switch {
	case err != nil:
		b.fail(name, "url", "%v", err)
		return
	case u.Scheme == "file":
		b.fail(name, "url", "%q is a directory of this host, which the gate's container does not have: serve it over https, ssh or git, or give it to the agent as its workspace", m.URL)
		return
	case u.Scheme != "ssh" && (m.SSHKey != "" || len(m.KnownHosts) > 0):
		key := "ssh_key"
		if m.SSHKey == "" {
			key = "known_hosts"
		}
		b.fail(name, key, "it goes with a URL over ssh, and this one is over %s", u.Scheme)
		return
	case u.Scheme != "https" && m.Credential != nil:
		what := "ssh takes a key: name its file in ssh_key"
		if u.Scheme == "git" {
			what = "git:// takes none"
		}
		b.fail(name, "credential", "it goes with a URL over https, and this one is over %s: %s", u.Scheme, what)
		return
	case u.Scheme == "ssh" && (m.SSHKey == "" || len(m.KnownHosts) == 0):
		key := "ssh_key"
		if m.SSHKey != "" {
			key = "known_hosts"
		}
		b.Fail([]string{"git", name}, "%s is missing: a URL over ssh needs the file of a private key (ssh_key) and one that holds the server's key (known_hosts)", key)
		return
	}
	if u.Scheme == "git" {
		b.note("repository %s: git:// is neither encrypted nor authenticated: whoever is in between can read and change what is fetched and pushed", name)
	}
	if c := m.Credential; c != nil {
		r.Credential = &config.GitCredential{Secret: c.Token, Kind: cmp.Or(c.Kind, manifest.GitBasic), Username: c.Username}
		b.token(name, c.Token)
	}
	if u.Scheme == "ssh" {
		b.ssh(&r, m, u)
	}
	checkPush(b.Fail, name, r.Push)
	if err := r.config(); err != nil {
		refused(b.Fail, name, err)
	}
	if b.Egress == nil || !b.egressGood() {
		return
	}
	switch note, err := Bypass(name, r.URL, b.Egress); {
	case err != nil:
		b.fail(name, "url", "%v", err)
	case note != "":
		b.note("%s", note)
	}
}

// egressGood reports whether the policy of what leaves is one; if not, that has been
// reported.
func (b *builder) egressGood() bool {
	_, err := policy.NewRoutes(b.Egress.Routes)
	_, also := policy.NewAllowlist(b.Egress.AllowAll, b.Egress.Allow)
	return err == nil && also == nil
}

func (b *builder) note(format string, args ...any) {
	b.policy.Notes = append(b.policy.Notes, fmt.Sprintf(format, args...))
}

func push(m *manifest.Push) *config.GitPush {
	if m == nil {
		return nil
	}
	return &config.GitPush{Branches: m.Branches, Tags: m.Tags, Notes: m.Notes, Force: m.Force, Delete: m.Delete}
}

// checkPush tells of each pattern that is none.
func checkPush(fail func(keys []string, format string, args ...any), name string, p *config.GitPush) {
	if p == nil {
		return
	}
	for _, kind := range []struct {
		key      string
		patterns []string
	}{{"branches", p.Branches}, {"tags", p.Tags}, {"notes", p.Notes}} {
		for i, text := range kind.patterns {
			if _, err := ref.ParsePattern(text); err != nil {
				fail([]string{"git", name, "push", kind.key, strconv.Itoa(i)}, "%s: %v", kind.key, err)
			}
		}
	}
}

// config checks a repository as the gate does, but for what [checkPush] checks.
func (r *Repository) config() error {
	c := r.render()
	c.Push = nil
	if r.SSHKey != "" && len(c.KnownHosts) == 0 {
		c.KnownHosts = []string{"reported"} // where it was read
	}
	return (&config.GitGate{Repositories: []config.GitRepository{c}}).Validate()
}

// refused reports an error of the gate's about a repository.
func refused(fail func(keys []string, format string, args ...any), name string, err error) {
	var fe *policy.FieldError
	if !errors.As(err, &fe) {
		fail([]string{"git", name}, "git: %v", err)
		return
	}
	keys := strings.FieldsFunc(strings.TrimPrefix(fe.Path, "repositories[0]"), func(r rune) bool { return strings.ContainsRune(".[]", r) })
	what := "git"
	for i, k := range keys {
		if k == "secret" {
			keys[i] = "token"
		}
		if k[0] > '9' {
			what = keys[i]
		}
	}
	if what == "name" {
		return // it has been reported
	}
	fail(append([]string{"git", name}, keys...), "%s: %v", what, fe.Err)
}

func (b *builder) token(name, variable string) {
	keys := []string{"git", name, "credential", "token"}
	value, err := egress.Token(b.LookupEnv, variable)
	if err != nil {
		b.Fail(keys, "token: %v", err)
		return
	}
	b.secrets[variable] = value
	b.keptFromAgent(keys, variable, value)
}

// keptFromAgent refuses a secret that the agent gets under whatever name.
func (b *builder) keptFromAgent(keys []string, secret, value string) {
	for _, name := range slices.Sorted(maps.Keys(b.Variables)) {
		if b.Variables[name] == value {
			b.Fail(keys, "%s: the agent gets the value of %s as its variable %s, and is not to see it: take that variable out", keys[len(keys)-1], secret, name)
			return
		}
	}
}

// urls refuses repositories that git, or the gate, could take for one another.
func (b *builder) urls() {
	var good []config.GitRepository
	for _, r := range b.policy.Repositories {
		if _, err := config.ParseGitURL(r.URL); err != nil || config.CheckGitName(r.Name) != nil || strings.HasPrefix(r.URL, "file:") {
			continue // it has been reported
		}
		for _, o := range good {
			// git replaces a prefix of a URL: …/REPO.gitX would become …/NAME.gitX.
			if strings.HasPrefix(r.Name, o.Name+".git") || strings.HasPrefix(o.Name, r.Name+".git") {
				b.Fail([]string{"git", r.Name}, "git: the names %s and %s could be taken for one another: git would read one as the other with .git at its end; rename one", o.Name, r.Name)
			}
		}
		all := append(slices.Clone(good), config.GitRepository{Name: r.Name, URL: r.URL})
		settings, err := Settings(all)
		if err != nil {
			b.fail(r.Name, "url", "%v", err)
			continue
		}
		good, b.policy.settings = all, settings
	}
}

// The limits of the gate unless the manifest says otherwise. Packs that are looked at lie in
// memory, so that fewer bytes of them may be there at a time than the gate takes by itself.
const (
	// DefaultPack is how much one push may send, in bytes.
	DefaultPack = 128 << 20
	// Pushes is how many are looked at at a time; others wait.
	Pushes = 2
)

func (b *builder) limits() {
	l := &b.policy.Limits
	l.Pushes, l.PackBytes = Pushes, DefaultPack
	if b.Gate == nil {
		return
	}
	b.policy.Image = b.Gate.Image
	m := b.Gate.Limits
	l.InflatedBytes, l.Objects, l.Refs = int64(m.Inflated), int(m.Objects), int(m.Refs)
	if m.Pack != 0 {
		l.PackBytes = int64(m.Pack)
	}
}

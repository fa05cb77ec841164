package egress

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/bottle-run/bottle/core/ca"
	"github.com/bottle-run/bottle/core/manifest"
	"github.com/bottle-run/bottle/sidecar/config"
	"github.com/bottle-run/bottle/sidecar/policy"
)

// anywhere is the host of a variable that is no secret.
const anywhere = "*"

// maxRootsFile bounds a file of corporate roots, in bytes.
const maxRootsFile = 1 << 20

// Source is what a policy is made of.
type Source struct {
	Egress      *manifest.Egress
	Firewall    *manifest.Firewall
	SecretHosts map[string]manifest.StringList
	// Elsewhere are names of the host's variables that other sidecars present to hosts of
	// their own.
	Elsewhere []string
	// Variables are the agent's, whether they are secret or not: no token may be among
	// their values.
	Variables map[string]string
	// LookupEnv finds a variable of the host's.
	LookupEnv func(name string) (string, bool)
	// Path makes a path of the manifest's absolute.
	Path func(string) string
	// Fail is told what is wrong with the value at some keys of the bottle's.
	Fail func(keys []string, format string, args ...any)
	// FailFile is told what is wrong with another file; the error names it.
	FailFile func(error)
}

// New makes a policy, and finds the values of its tokens by the names of the host's
// variables. Everything that is wrong is told to src.Fail; what is returned is then of no
// use.
func New(src Source) (*Policy, map[string]string) {
	b := &builder{Source: src, tokens: map[string]string{}}
	b.allow()
	b.routes()
	b.firewall()
	b.secretHosts()
	if b.policy.Firewall.Engine == manifest.FirewallPipelock {
		b.pipelock()
	}
	b.keptFromAgent()
	return &b.policy, b.tokens
}

// NewWay makes the way alone, for a bottle that has no policy of what leaves, and finds the
// password of its proxy.
func NewWay(src Source) (Way, map[string]string) {
	b := &builder{Source: src, tokens: map[string]string{}}
	b.way()
	b.keptFromAgent()
	return b.policy.Firewall.Way, b.tokens
}

type builder struct {
	Source
	policy Policy
	tokens map[string]string
	named  []namedToken
}

// namedToken is where the manifest names a token.
type namedToken struct {
	name string
	keys []string
}

// key makes the keys that lead to a value.
func key(parts ...any) []string {
	keys := make([]string, len(parts))
	for i, p := range parts {
		keys[i] = fmt.Sprint(p)
	}
	return keys
}

// fail reports an error of the sidecars' packages, whose path starts at some keys.
func (b *builder) fail(keys []string, err error) {
	var fe *policy.FieldError
	if errors.As(err, &fe) {
		keys, err = append(slices.Clone(keys), renamed(segments(fe.Path))...), fe.Err
	}
	b.Fail(keys, "%s: %v", lastWord(keys), err)
}

// lastWord is the last key that is no number.
func lastWord(keys []string) string {
	for _, k := range slices.Backward(keys) {
		if _, err := strconv.Atoi(k); err != nil {
			return k
		}
	}
	return "egress"
}

func (b *builder) allow() {
	b.policy.AllowAll = b.Egress.AllowAll
	ids := map[string]bool{}
	for i, a := range b.Egress.Allow {
		r := policy.Rule{ID: a.ID, Host: a.Host, Ports: ports(a.Ports)}
		if _, err := policy.NewAllowlist(false, []policy.Rule{r}); err != nil {
			b.fail(key("egress", "allow", i), trim(err))
		}
		b.unique(ids, a.ID, key("egress", "allow", i, "id"))
		b.policy.Allow = append(b.policy.Allow, r)
	}
}

func (b *builder) unique(ids map[string]bool, id string, keys []string) {
	if id != "" && ids[id] {
		b.Fail(keys, "id: %q is the id of another: the audit log could not tell them apart", id)
	}
	ids[id] = true
}

func (b *builder) routes() {
	ids, good := map[string]bool{}, true
	for i, m := range b.Egress.Routes {
		at := key("egress", "routes", i)
		r := policy.Route{ID: m.ID, Host: m.Host, Ports: ports(m.Ports), Methods: m.Methods, Paths: m.Paths, PassCredentials: m.PassCredentials}
		if c := m.Credential; c != nil {
			r.Credential = &policy.Credential{
				Secret: c.Token, Kind: policy.CredentialKind(c.Kind), Header: c.Header, Scheme: c.Scheme, Username: c.Username, Parameter: c.Parameter,
			}
			if c.Kind == "" {
				r.Credential.Kind = policy.CredentialHeader
			}
			b.token(c.Token, append(at, "credential", "token"))
		}
		if _, err := policy.NewRoutes([]policy.Route{r}); err != nil {
			b.fail(at, trim(err))
			good = false
		}
		b.unique(ids, m.ID, append(slices.Clone(at), "id"))
		b.policy.Routes = append(b.policy.Routes, r)
	}
	if !good {
		return
	}
	if _, err := policy.NewRoutes(b.policy.Routes); err != nil {
		b.overlaps(err)
	}
}

// overlaps reports each route that does not go with an earlier one. all is what compiling
// them together says.
func (b *builder) overlaps(all error) {
	found := false
	for i, r := range b.policy.Routes {
		for _, earlier := range b.policy.Routes[:i] {
			_, err := policy.NewRoutes([]policy.Route{earlier, r})
			var fe *policy.FieldError
			if errors.As(err, &fe) {
				b.Fail(key("egress", "routes", i), "%s", strings.ReplaceAll(fe.Err.Error(), " (number 1)", ""))
				found = true
				break
			}
		}
	}
	if !found {
		b.fail(key("egress", "routes"), all)
	}
}

// token takes the value of one of the host's variables.
func (b *builder) token(name string, keys []string) {
	value, err := Token(b.LookupEnv, name)
	if err != nil {
		b.Fail(keys, "%s: %v", lastWord(keys), err)
	}
	b.tokens[name] = value
	b.named = append(b.named, namedToken{name, keys})
}

// Token finds the value of a token by the name of the host's variable. It is one line, as a
// request can carry it; the newline that files and command substitutions leave is no part of
// it.
func Token(lookup func(string) (string, bool), name string) (string, error) {
	value, ok := lookup(name)
	value = strings.TrimRight(value, "\r\n")
	switch {
	case !ok:
		return "", fmt.Errorf("the variable %s is not set: export it", name)
	case value == "":
		return "", fmt.Errorf("the variable %s is empty", name)
	case strings.ContainsFunc(value, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }):
		return value, fmt.Errorf("the variable %s holds several lines or a control character, which no request can carry", name)
	}
	return value, nil
}

// keptFromAgent refuses a token that the agent gets under whatever name.
func (b *builder) keptFromAgent() {
	for _, t := range b.named {
		for _, name := range slices.Sorted(maps.Keys(b.Variables)) {
			if value := b.tokens[t.name]; value != "" && b.Variables[name] == value {
				b.Fail(t.keys, "%s: the agent gets the value of %s as its variable %s, and is not to see it: take that variable out", lastWord(t.keys), t.name, name)
				break
			}
		}
	}
}

func (b *builder) firewall() {
	f := &b.policy.Firewall
	f.Engine = manifest.FirewallBuiltin
	b.policy.Image = b.Egress.Image
	m := b.Firewall
	if m == nil {
		return
	}
	if m.Engine != "" {
		f.Engine = m.Engine
	}
	f.Image = m.Image
	b.way()
	l := m.Limits
	f.Limits = config.Limits{
		Connections: int(l.Connections), HeaderBytes: int(l.HeaderBytes),
		HeaderTimeout: config.Duration(l.HeaderTimeout), IdleTimeout: config.Duration(l.IdleTimeout),
	}
}

func (b *builder) way() {
	m, f := b.Firewall, &b.policy.Firewall.Way
	if m == nil {
		return
	}
	f.DNS = m.DNS
	for i, s := range m.DNS {
		if _, err := (config.Guard{DNS: []string{s}}).Servers(); err != nil {
			b.fail(key("firewall", "dns", i), bare(err))
		}
	}
	for i, s := range m.AllowCIDRs {
		f.AllowCIDRs = append(f.AllowCIDRs, b.prefix(s, key("firewall", "allow_cidrs", i)))
	}
	b.upstream(m.Proxy)
	for i, file := range m.CAFiles {
		b.roots(b.Path(file), key("firewall", "ca_files", i))
	}
	f.Scan = config.Scan{Off: m.Scan.Off, Disable: m.Scan.Disable}
	for i, e := range m.Scan.Exempt {
		f.Scan.Exempt = append(f.Scan.Exempt, config.Exemption{Host: e.Host, Rules: e.Rules})
		if err := (config.Scan{Exempt: f.Scan.Exempt[i:]}).Check(); err != nil {
			b.fail(key("firewall", "scan", "exempt", i, "host"), bare(err))
		}
	}
}

func (b *builder) prefix(s string, keys []string) netip.Prefix {
	p, err := netip.ParsePrefix(s)
	switch {
	case err != nil:
		b.Fail(keys, "allow_cidrs: %q is no prefix, such as 198.51.100.0/24", s)
	case p != p.Masked():
		b.Fail(keys, "allow_cidrs: %q names an address within a prefix: write %s for all of it", s, p.Masked())
	case p.Bits() == 0:
		b.Fail(keys, "allow_cidrs: %q is every address: name the networks that are meant", s)
	}
	return p
}

func (b *builder) upstream(m *manifest.UpstreamProxy) {
	if m == nil {
		return
	}
	b.policy.Firewall.Proxy = &Proxy{URL: m.URL, User: m.User, Password: m.Password}
	u := config.Upstream{Proxy: m.URL, ProxyUser: m.User, ProxySecret: m.Password}
	if _, err := u.ProxyURL(); err != nil {
		b.fail(nil, within("upstream.", err))
	}
	if m.Password != "" {
		b.token(m.Password, key("firewall", "proxy", "password"))
	}
}

func (b *builder) roots(path string, keys []string) {
	f, err := os.Open(path)
	var data []byte
	if err == nil {
		data, err = io.ReadAll(io.LimitReader(f, maxRootsFile+1))
		_ = f.Close() // it was only read
	}
	if err != nil {
		var pe *fs.PathError
		if errors.As(err, &pe) {
			err = pe.Err
		}
		b.Fail(keys, "ca_files: %s: %v", path, err)
		return
	}
	if len(data) > maxRootsFile {
		b.Fail(keys, "ca_files: %s is larger than 1 MiB", path)
		return
	}
	file := ca.File{Name: path, Data: data}
	if _, err := ca.Roots(file, time.Now()); err != nil {
		b.FailFile(err)
		return
	}
	b.policy.Firewall.CAFiles = append(b.policy.Firewall.CAFiles, path)
	b.policy.Firewall.corporate = append(b.policy.Firewall.corporate, file)
}

func (b *builder) secretHosts() {
	for _, name := range slices.Sorted(maps.Keys(b.SecretHosts)) {
		hosts := b.SecretHosts[name]
		_, variable := b.Variables[name]
		if slices.Contains(b.Elsewhere, name) && !variable {
			b.Fail(key("secret_hosts", name), "secret_hosts: %s is a credential of git: it may go to its repositories' hosts", name)
		} else if _, token := b.tokens[name]; token && !variable {
			b.Fail(key("secret_hosts", name), "secret_hosts: %s is a token: it may go to the hosts of its routes", name)
		}
		for i, h := range hosts {
			if h == anywhere {
				continue
			}
			if _, err := policy.ParseHostPattern(h); err != nil {
				b.Fail(key("secret_hosts", name, i), "secret_hosts: %v", err)
			}
		}
		if b.policy.SecretHosts == nil {
			b.policy.SecretHosts = map[string][]string{}
		}
		b.policy.SecretHosts[name] = slices.Clone([]string(hosts))
	}
}

func ports(list []manifest.Port) []uint16 {
	var out []uint16
	for _, p := range list {
		out = append(out, uint16(p))
	}
	return out
}

// Package gitgate is the way from a bottle to git repositories: the agent dials
// git://GATE/NAME.git, and the gate, which alone has the credentials, speaks to the
// upstream of that name.
//
// # Promises
//
//   - A fetch streams through and is never kept. Nothing is asked of the upstream but what
//     the gate knows: two commands, their known arguments, and objects that the upstream
//     has shown in its references (or any, where the operator says so).
//   - A push is taken in as a whole before the upstream hears of it. Every object that is
//     new in it is looked at, whatever refers to it: for known values, for what the rules of
//     gitleaks find, for names and submodules that are traps. Its references are held
//     against the policy. If anything is wrong nothing is passed on, and the client is told
//     what, where, and what to do.
//   - What is passed on is the pack that was looked at, byte for byte, and what the upstream
//     answers is what the client reads.
//   - Nothing in a repository changes what is looked for: no configuration of gitleaks, no
//     comment that asks to be left alone.
//   - No credential is in an answer, a log or an error.
//   - Memory is bounded by the limits: a pack lies in a file without a name.
//
// It does not find what is encrypted, compressed within a file, or encoded in a way of the
// agent's own; and a fetch tells the upstream which objects the agent has.
package gitgate

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bottle-run/bottle/sidecar/audit"
	"github.com/bottle-run/bottle/sidecar/config"
	"github.com/bottle-run/bottle/sidecar/gitgate/internal/pack"
	"github.com/bottle-run/bottle/sidecar/gitgate/ref"
	"github.com/bottle-run/bottle/sidecar/internal/front"
	"github.com/bottle-run/bottle/sidecar/netguard"
	"github.com/bottle-run/bottle/sidecar/scan"
	"github.com/bottle-run/bottle/sidecar/secrets"
)

// DefaultAddress is where the gate listens unless its configuration says otherwise.
const DefaultAddress = ":9418"

// Gate is the sidecar. It is made without a configuration and serves once [Gate.Reload] has
// succeeded.
type Gate struct {
	configPath, secretsPath string
	log                     *slog.Logger
	open                    func(agent string) *audit.Log

	reload     sync.Mutex
	state      atomic.Pointer[state]
	configured chan struct{} // closed when there is a state
	audit      *audit.Log    // set before configured is closed

	mu     sync.Mutex
	conns  map[net.Conn]context.CancelFunc
	ln     net.Listener
	ending bool
	work   sync.WaitGroup
}

// state is what a configuration and secrets make. It is replaced as a whole.
type state struct {
	config  *config.GitGate
	limits  config.GitLimits
	repos   map[string]*repository
	scanner *scan.Scanner
	mask    func(string) string
	absent  []string
	pushes  chan struct{} // a place for each push at a time
	files   string        // the directory for quarantine
	close   []func()
}

// repository is one upstream, and what may be done with it.
type repository struct {
	name      string
	url       *config.GitURL
	up        upstream
	anyObject bool
	push      *pushPolicy
}

// pushPolicy says which references may be pushed.
type pushPolicy struct {
	branches, tags, notes []ref.Pattern
	force, delete         bool
}

// New makes a gate that reads its configuration and secrets from files. Open opens the
// audit log of an agent.
func New(configPath, secretsPath string, log *slog.Logger, open func(agent string) *audit.Log) *Gate {
	return &Gate{configPath: configPath, secretsPath: secretsPath, log: log, open: open, configured: make(chan struct{}), conns: map[net.Conn]context.CancelFunc{}}
}

// Configured is closed when the first configuration is in force.
func (g *Gate) Configured() <-chan struct{} { return g.configured }

// Listen returns the address to listen on. It needs a configuration.
func (g *Gate) Listen() string {
	if l := g.state.Load().config.Listen; l != "" {
		return l
	}
	return DefaultAddress
}

// Reload reads configuration and secrets, for the first time or again. What is under way
// goes on with what it began with. On an error the old state stays. Either is logged.
func (g *Gate) Reload() error {
	g.reload.Lock()
	defer g.reload.Unlock()
	old := g.state.Load()
	st, err := g.load()
	if err == nil && old != nil && (st.config.Listen != old.config.Listen || st.config.Agent != old.config.Agent) {
		err = errors.New("agent and listen cannot change while the sidecar runs")
	}
	if err != nil {
		if old != nil {
			g.log.Error("reload refused, the old configuration stays", "error", err.Error())
		} else {
			g.log.Error("configuration refused", "error", err.Error())
		}
		return err
	}
	if old == nil {
		g.audit = g.open(st.config.Agent)
	} else if cap(old.pushes) == cap(st.pushes) {
		st.pushes = old.pushes // those under way count
	}
	g.state.Store(st)
	if old == nil {
		close(g.configured)
		g.log.Info("configured")
		return nil
	}
	for _, end := range old.close {
		end()
	}
	g.log.Info("reloaded")
	return nil
}

func (g *Gate) load() (*state, error) {
	c, err := config.ReadGitGate(g.configPath)
	if err != nil {
		return nil, err
	}
	needed := slices.Clone(c.Secrets)
	if c.Upstream.ProxySecret != "" {
		needed = append(needed, c.Upstream.ProxySecret)
	}
	for _, r := range c.Repositories {
		if r.Credential != nil {
			needed = append(needed, r.Credential.Secret)
		}
	}
	set, absent, err := front.Secrets(g.secretsPath, needed)
	if err != nil {
		return nil, err
	}
	st := &state{config: c, limits: c.Limits.WithDefaults(), repos: map[string]*repository{}, absent: absent, files: c.Quarantine}
	if st.files == "" {
		st.files = filepath.Dir(g.configPath)
	}
	st.pushes = make(chan struct{}, st.limits.Pushes)
	if f, err := st.quarantine(); err != nil {
		return nil, err
	} else {
		f.Close()
	}
	if err := st.learn(c, set); err != nil {
		return nil, err
	}
	return st, st.connect(c, set)
}

// learn makes the scanner. No secret may be in a push, whatever hosts it is for otherwise:
// a credential is for the gate to present and not for a repository to hold.
func (st *state) learn(c *config.GitGate, set secrets.Set) error {
	canaries := secrets.Set{}
	var values []secrets.Value
	for name, s := range set {
		canaries[name] = secrets.Secret{Name: name, Value: s.Value}
		values = append(values, s.Value)
	}
	for _, r := range c.Repositories {
		if r.Credential == nil || r.Credential.Kind != config.GitSSHKey {
			continue
		}
		name := r.Credential.Secret
		if s, ok := set[name]; ok {
			text, err := sshKeyText(s.Value)
			if err != nil {
				return fmt.Errorf("the secret %s: %w", name, err)
			}
			for i, v := range keyLines(string(text)) {
				canaries[fmt.Sprintf("%s (line %d)", name, i)] = secrets.Secret{Value: v}
				values = append(values, v)
			}
		}
	}
	var err error
	if st.scanner, err = scan.New(c.Scan, canaries); err != nil {
		return err
	}
	masker := secrets.NewMasker(values...)
	st.mask = func(s string) string { return st.scanner.Mask(masker, s) }
	return nil
}

// keyLines returns what lines of a key's file are its own: those at the beginning are much
// the same in all of them, and hold the public part.
func keyLines(text string) []secrets.Value {
	var all []secrets.Value
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "-----") && !strings.Contains(line, ":") {
			all = append(all, secrets.Value(line))
		}
	}
	if len(all) < 4 {
		return nil
	}
	kept := all[len(all)/2:]
	return slices.DeleteFunc(kept, func(v secrets.Value) bool { return len(v) < 32 })
}

// connect makes the ways to the upstreams.
func (st *state) connect(c *config.GitGate, set secrets.Set) error {
	servers, err := c.Guard.Servers()
	if err != nil {
		return err
	}
	guard := &netguard.Guard{Allow: c.Guard.AllowCIDRs, Dialer: net.Dialer{Timeout: 30 * time.Second, KeepAlive: time.Minute}}
	if len(servers) > 0 {
		guard.Resolver = netguard.DNS(servers)
	}
	roots, err := front.Roots(true, c.Upstream.CAFiles...)
	if err != nil {
		return err
	}
	proxy, err := c.Upstream.ProxyURL()
	if err != nil {
		return err
	}
	idle := time.Duration(st.limits.IdleTimeout)
	direct := dialer(guard.DialContext).idle(idle)
	web := direct
	if proxy != nil {
		if c.Upstream.ProxySecret != "" {
			proxy.User = url.UserPassword(c.Upstream.ProxyUser, string(set[c.Upstream.ProxySecret].Value))
		}
		web = dialer(guard.Dialer.DialContext).idle(idle) // the operator says where the proxy is
	}
	for i, r := range c.Repositories {
		u, err := config.ParseGitURL(r.URL)
		if err != nil {
			return err
		}
		repo := &repository{name: r.Name, url: u, anyObject: r.AnyObject}
		if repo.push, err = newPushPolicy(r.Push); err != nil {
			return err
		}
		switch u.Scheme {
		case "https":
			h := newHTTPSUpstream(u, web, roots, proxy, authorization(r.Credential, set))
			if proxy != nil {
				h.check = func(ctx context.Context) error {
					// A name that only the proxy can resolve is the proxy's to check.
					if _, err := guard.Resolve(ctx, u.Host); errors.Is(err, netguard.ErrForbidden) {
						return err
					}
					return nil
				}
			}
			st.close = append(st.close, h.client.CloseIdleConnections)
			repo.up = h
		case "ssh":
			if repo.up, err = newSSHUpstream(u, direct, r.KnownHosts, set[r.Credential.Secret].Value, st.files); err != nil {
				return &config.Error{Path: fmt.Sprintf("repositories[%d]", i), Err: err}
			}
		case "git":
			repo.up = &gitUpstream{url: u, dial: direct}
		case "file":
			if err := checkGit(); err != nil {
				return &config.Error{Path: fmt.Sprintf("repositories[%d].url", i), Err: err}
			}
			repo.up = &fileUpstream{url: u}
		}
		st.repos[r.Name] = repo
	}
	return nil
}

// authorization returns what puts a credential on a request.
func authorization(c *config.GitCredential, set secrets.Set) func(*http.Request) {
	if c == nil {
		return func(*http.Request) {}
	}
	value := string(set[c.Secret].Value)
	if c.Kind == config.GitBearer {
		return func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+value) }
	}
	user := c.Username
	if user == "" {
		user = "git"
	}
	return func(r *http.Request) { r.SetBasicAuth(user, value) }
}

func newPushPolicy(c *config.GitPush) (*pushPolicy, error) {
	if c == nil {
		return nil, nil
	}
	p := &pushPolicy{force: c.Force, delete: c.Delete}
	for _, list := range []struct {
		from []string
		to   *[]ref.Pattern
	}{{c.Branches, &p.branches}, {c.Tags, &p.tags}, {c.Notes, &p.notes}} {
		for _, s := range list.from {
			pattern, err := ref.ParsePattern(s)
			if err != nil {
				return nil, err
			}
			*list.to = append(*list.to, pattern)
		}
	}
	return p, nil
}

// allows says whether a reference may be pushed, and if not why.
func (p *pushPolicy) allows(name string) error {
	if err := ref.Check(name); err != nil {
		return err
	}
	for _, kind := range []struct {
		prefix, what string
		patterns     []ref.Pattern
	}{{ref.Branches, "branches", p.branches}, {ref.Tags, "tags", p.tags}, {ref.Notes, "notes", p.notes}} {
		short, ok := strings.CutPrefix(name, kind.prefix)
		if !ok {
			continue
		}
		if slices.ContainsFunc(kind.patterns, func(p ref.Pattern) bool { return p.Match(short) }) {
			return nil
		}
		if len(kind.patterns) == 0 {
			return fmt.Errorf("%s may not be pushed here", kind.what)
		}
		texts := make([]string, len(kind.patterns))
		for i, p := range kind.patterns {
			texts[i] = p.String()
		}
		return fmt.Errorf("only these %s may be pushed: %s", kind.what, strings.Join(texts, ", "))
	}
	return errors.New("only branches, tags and notes may be pushed")
}

// quarantine makes a file that nobody else can open and that is gone when it is closed.
func (st *state) quarantine() (*os.File, error) {
	f, err := os.CreateTemp(st.files, ".push-*") // 0600
	if err != nil {
		return nil, fmt.Errorf("making a file for the quarantine: %w", err)
	}
	if err := os.Remove(f.Name()); err != nil {
		f.Close()
		return nil, fmt.Errorf("making a file for the quarantine: %w", err)
	}
	return f, nil
}

// packLimits are the limits of packs that are pushed.
func (st *state) packLimits() pack.Limits {
	return pack.Limits{
		Bytes: st.limits.PackBytes, Objects: st.limits.Objects, Object: st.limits.ObjectBytes,
		Whole: min(wholeBytes, st.limits.ObjectBytes), Inflated: st.limits.InflatedBytes, Depth: maxDepth,
	}
}

const (
	// wholeBytes is the most that an object may hold which is kept in memory.
	wholeBytes = 24 << 20
	// maxDepth is how many deltas may stand on one another: what git makes.
	maxDepth = 4095
)

// errUnconfigured is the error of a gate that has no configuration yet.
var errUnconfigured = errors.New("waiting for its configuration")

// Health is nil if the gate has its configuration and its secrets.
func (g *Gate) Health() error {
	st := g.state.Load()
	if st == nil {
		return errUnconfigured
	}
	return front.Waiting(st.absent)
}

// Policy returns the configuration in force, nil if there is none.
func (g *Gate) Policy() any {
	if st := g.state.Load(); st != nil {
		return st.config
	}
	return nil
}

// Test says whether something may be done, without doing it. Method is "fetch" or "push";
// the URL is git://GATE/NAME.git or the upstream's, for a push with the full name of a
// reference as its fragment. Forced updates and contents are not known ahead.
func (g *Gate) Test(method, rawURL string) front.Verdict {
	st := g.state.Load()
	deny := func(rule, format string, args ...any) front.Verdict {
		return front.Verdict{Decision: audit.Deny, Rule: rule, Reason: fmt.Sprintf(format, args...)}
	}
	if st == nil {
		return deny("not-ready", "%v", errUnconfigured)
	}
	address, name, _ := strings.Cut(rawURL, "#")
	repo := st.find(address)
	if repo == nil {
		return deny("no-such-repository", "no repository of the gate has the URL %s: there are %s", address, st.names())
	}
	v := front.Verdict{Decision: audit.Allow, Rule: "repository:" + repo.name, Host: repo.url.Host, Port: repo.url.Port, Path: "/" + repo.name + ".git"}
	switch strings.ToLower(method) {
	case "fetch":
		return v
	case "push":
	default:
		return deny("malformed", "%q is neither fetch nor push", method)
	}
	v.Decision = audit.Deny
	switch {
	case repo.push == nil:
		v.Rule, v.Reason = "read-only", "nothing may be pushed there"
	case name == "":
		v.Rule, v.Reason = "malformed", "which reference? Give its full name after #"
	default:
		if err := repo.push.allows(name); err != nil {
			v.Rule, v.Reason = "ref", err.Error()
		} else {
			v.Decision = audit.Allow
		}
	}
	return v
}

// find returns the repository of a URL of the gate or of an upstream.
func (st *state) find(address string) *repository {
	if rest, ok := strings.CutPrefix(address, "git://"); ok {
		if _, path, ok := strings.Cut(rest, "/"); ok {
			if r, ok := st.repos[strings.TrimSuffix(path, ".git")]; ok {
				return r
			}
		}
	}
	u, err := config.ParseGitURL(address)
	if err != nil {
		return nil
	}
	for _, r := range st.repos {
		if r.url.Scheme == u.Scheme && r.url.Host == u.Host && r.url.Port == u.Port && strings.TrimSuffix(r.url.Path, ".git") == strings.TrimSuffix(u.Path, ".git") {
			return r
		}
	}
	return nil
}

func (st *state) names() string {
	if len(st.repos) == 0 {
		return "none"
	}
	var names []string
	for name := range st.repos {
		names = append(names, name)
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

// memory is where the collector begins to work harder, in bytes.
const memory = 96 << 20

// SetMemoryLimit tells the collector how much memory a process that is only a gate should
// have. It is a goal: what is in use is not refused.
func SetMemoryLimit() { debug.SetMemoryLimit(memory) }

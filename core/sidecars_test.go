package core_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/bottle-run/bottle/core"
	"github.com/bottle-run/bottle/core/sidecarimage"
	"github.com/bottle-run/bottle/runtime"
	"github.com/bottle-run/bottle/runtime/fake"
	"github.com/bottle-run/bottle/sidecar/delivery"
)

// sidecars stand in for the program of the image.
type sidecars struct {
	mu sync.Mutex
	// put are the documents, by role, in the order of ready.
	put   map[string]delivery.Document
	ready []string
	// refuse is what a role says in place of being ready; end makes its container end at once.
	refuse map[string]string
	end    map[string]bool
	// hold keeps those who have a document until it is closed, if it is not nil.
	hold chan struct{}
}

func (s *sidecars) program(ctx context.Context, p *fake.Process) int {
	role := p.Container[strings.LastIndex(p.Container, ".")+1:]
	switch p.Args[1] {
	case "healthcheck", "policy":
		s.mu.Lock()
		defer s.mu.Unlock()
		if why := s.refuse[role]; why != "" {
			_, _ = fmt.Fprintln(p.Stderr, why)
			return 1
		}
		if p.Args[1] == "policy" {
			_, _ = p.Stdout.Write(s.put[role].Config)
		}
		return 0
	case "put":
		return s.take(role, p, func(err error) { _, _ = fmt.Fprintln(p.Stderr, err) })
	}
	_, _ = fmt.Fprintf(p.Stderr, "{\"msg\":\"started\"}\x1b[31m\n")
	s.mu.Lock()
	end := s.end[role]
	s.mu.Unlock()
	if end {
		return 3
	}
	if s.hold != nil {
		<-s.hold
	}
	log := slog.New(slog.NewJSONHandler(p.Stderr, nil))
	if !slices.Contains(p.Args, delivery.StdinFlag) {
		delivery.Say(log, errors.New("nothing is delivered"))
		return 3
	}
	if s.take(role, p, func(err error) { delivery.Say(log, err) }) != 0 {
		return 3
	}
	s.mu.Lock()
	s.ready = append(s.ready, role)
	s.mu.Unlock()
	delivery.Say(log, nil)
	<-ctx.Done()
	return 0
}

// take takes a document up, or has told why it does not.
func (s *sidecars) take(role string, p *fake.Process, tell func(error)) int {
	doc, err := delivery.Decode(p.Stdin)
	s.mu.Lock()
	defer s.mu.Unlock()
	if why := s.refuse[role]; why != "" {
		err = errors.New(why)
	}
	if err != nil {
		tell(err)
		return 1
	}
	s.put[role] = doc
	return 0
}

const sealedText = `
bottles:
  dev:
    image: img
    workspace: false
    forward: [CANARY]
    egress:
      allow: [a.test]
      routes: [{host: api.test, credential: {token: TOKEN}}]
agents: {coder: {bottle: dev}}
`

func sealedBench(t *testing.T) (*bench, *sidecars) {
	t.Helper()
	b := newBench(t, nil)
	b.env["TOKEN"], b.env["CANARY"] = "token-value-kestrel", "canary-value-kestrel"
	s := &sidecars{put: map[string]delivery.Document{}, refuse: map[string]string{}, end: map[string]bool{}}
	b.Handle(sidecarimage.Program, s.program)
	return b, s
}

func (b *bench) launchSealed(ctx context.Context, text string) (*core.Bottle, error) {
	b.t.Helper()
	return b.launchSealedObserved(ctx, text, b.observe)
}

func (b *bench) launchSealedObserved(ctx context.Context, text string, observe core.Observer) (*core.Bottle, error) {
	b.t.Helper()
	p, secrets := b.plan(text, core.Wishes{})
	return core.Launch(ctx, b.rt, p, core.LaunchOptions{Secrets: secrets, Observer: observe, Images: b.images, SidecarImage: func(arch string) (*sidecarimage.Image, string, error) {
		image, err := sidecarimage.New([]byte("program"), nil, arch)
		return image, "", err
	}})
}

func TestNothingOfTheAgentsRunsBeforeTheSidecarsAreReady(t *testing.T) {
	b, s := sealedBench(t)
	s.hold = make(chan struct{})
	// The agent's container is there and filled while the sidecars come up.
	filled, once := make(chan struct{}), sync.Once{}
	observe := func(e core.Event) {
		if e.Step == "trust certificates" && e.State == core.StateEnd {
			once.Do(func() { close(filled) })
		}
	}
	var bottle *core.Bottle
	launched := make(chan error, 1)
	go func() {
		var err error
		bottle, err = b.launchSealedObserved(t.Context(), sealedText, observe)
		launched <- err
	}()
	<-filled
	select {
	case err := <-launched:
		t.Fatalf("the launch is done, and no sidecar is ready: %v", err)
	default:
	}
	if _, err := b.Snapshot("bottle-coder"); err != nil {
		t.Error(err)
	}
	close(s.hold)
	if err := <-launched; err != nil {
		t.Fatal(err)
	}
	slices.Sort(s.ready)
	if !slices.Equal(s.ready, []string{core.RoleEgressProxy, core.RoleFirewall}) {
		t.Errorf("ready: %q", s.ready)
	}
	if b.ran != 0 {
		t.Errorf("%d commands of the image have run", b.ran)
	}
	for role, networks := range map[string]int{core.RoleFirewall: 2, core.RoleEgressProxy: 1} {
		state, err := b.Snapshot("bottle-coder." + role)
		if err != nil {
			t.Fatal(err)
		}
		spec := state.Spec
		if !spec.ReadOnly || spec.User != "65532:65532" || len(spec.Networks) != networks || len(spec.Files) != 0 || len(spec.Env) != 0 || spec.AutoRemove || len(spec.Capabilities) != 0 ||
			spec.Limits.Memory == 0 || !slices.Equal(spec.Networks[0].Aliases, []string{role}) || spec.Tmpfs[0].Target != delivery.Dir {
			t.Errorf("%s: %+v", role, spec)
		}
		if text := fmt.Sprintf("%+v", spec); strings.Contains(text, "kestrel") || strings.Contains(text, "PRIVATE KEY") {
			t.Errorf("%s: its spec holds a secret: %s", role, text)
		}
	}
	firewall, proxy := s.put[core.RoleFirewall], s.put[core.RoleEgressProxy]
	if firewall.CAKey == proxy.CAKey || proxy.FirewallCA != firewall.CACert || !strings.Contains(firewall.CAKey, "EC PRIVATE KEY") {
		t.Error("the authorities are mixed up")
	}
	values := func(d delivery.Document) map[string]string {
		m := map[string]string{}
		for _, secret := range d.Secrets {
			m[secret.Name] = string(secret.Value)
		}
		return m
	}
	fw, ep := values(firewall), values(proxy)
	var config struct {
		ClientSecret   string `json:"client_secret"`
		FirewallSecret string `json:"firewall_secret"`
	}
	if err := errors.Join(json.Unmarshal(firewall.Config, &config), json.Unmarshal(proxy.Config, &config)); err != nil {
		t.Fatal(err)
	}
	hop := fw[config.ClientSecret]
	if len(hop) != 64 || ep[config.FirewallSecret] != hop || fw["TOKEN"] != "token-value-kestrel" || ep["TOKEN"] != "token-value-kestrel" || fw["CANARY"] != "canary-value-kestrel" || ep["CANARY"] != fw["CANARY"] {
		t.Errorf("firewall %d secrets, egress proxy %d", len(fw), len(ep))
	}
	state, err := b.Snapshot("bottle-coder")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"} {
		if state.Spec.Env[name] != "http://egress-proxy:8888" {
			t.Errorf("%s=%s", name, state.Spec.Env[name])
		}
	}
	if got := state.Spec.Env["no_proxy"]; got != "localhost,127.0.0.1,::1" || state.Spec.Env["NO_PROXY"] != got || state.Spec.Env["all_proxy"] != "" {
		t.Errorf("no_proxy=%s", got)
	}
	if text := fmt.Sprintf("%+v", state.Spec); strings.Contains(text, "token-value") {
		t.Error("the agent got the token")
	}
	if err := bottle.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.empty()
}

func TestASidecarThatIsNotReadyIsTheLaunchsError(t *testing.T) {
	for name, c := range map[string]struct {
		arrange func(*sidecars)
		says    []string
	}{
		"refused":     {func(s *sidecars) { s.refuse[core.RoleFirewall] = "allow[0].host: \x1b bad" }, []string{"the firewall is not ready", `allow[0].host: \x1b bad`, `started"}\x1b[31m`}},
		"the second":  {func(s *sidecars) { s.refuse[core.RoleEgressProxy] = "no" }, []string{"the egress proxy is not ready"}},
		"it has died": {func(s *sidecars) { s.end[core.RoleFirewall] = true }, []string{"the firewall is not ready", "with status 3"}},
	} {
		b, s := sealedBench(t)
		c.arrange(s)
		_, err := b.launchSealed(t.Context(), sealedText)
		if err == nil || core.KindOf(err) != core.KindLaunch {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for _, want := range c.says {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v; want %q", name, err, want)
			}
		}
		if strings.Contains(err.Error(), "\x1b") || strings.Contains(err.Error(), "kestrel") {
			t.Errorf("%s: it is not escaped, or tells a secret: %q", name, err)
		}
		b.empty()
	}
}

func TestTheDeathOfASidecarIsSeen(t *testing.T) {
	b, _ := sealedBench(t)
	bottle, err := b.launchSealed(t.Context(), sealedText)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	deaths, err := bottle.WatchSidecars(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.rt.Kill(ctx, "bottle-coder.firewall", "SIGKILL"); err != nil {
		t.Fatal(err)
	}
	d := <-deaths
	if d.Role != core.RoleFirewall || d.Status.Code != 137 || d.Gone || !strings.Contains(d.String(), "the firewall has died with status 137") || !strings.Contains(d.String(), `\x1b[31m`) {
		t.Errorf("%+v: %s", d, d)
	}
	if late, err := bottle.DeadSidecars(ctx, nil); err != nil || len(late) != 1 || late[0].Role != core.RoleFirewall {
		t.Errorf("%v, %v", late, err)
	}
	if late, err := bottle.DeadSidecars(ctx, []core.Death{d}); err != nil || len(late) != 0 {
		t.Errorf("%v, %v", late, err)
	}
	list, err := core.List(ctx, b.rt)
	if err != nil || len(list) != 1 || !slices.Equal(list[0].Dead, []string{core.RoleFirewall}) || list[0].State != string(runtime.StateRunning) {
		t.Errorf("%+v, %v", list, err)
	}
	var ask *core.AskError
	if err := bottle.AskSidecar(ctx, core.RoleEgressProxy, []string{"put"}, strings.NewReader("nonsense"), io.Discard); !errors.As(err, &ask) || ask.Status != 1 {
		t.Errorf("asking: %v", err)
	}
	if err := bottle.AskSidecar(ctx, "supervise", nil, nil, nil); core.KindOf(err) != core.KindNotFound {
		t.Errorf("asking what is not there: %v", err)
	}
	// The watch ends with its context, and says nothing of what is removed then.
	cancel()
	for d := range deaths {
		t.Errorf("%s", d)
	}
	if err := bottle.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.empty()
}

// lateLogs has the words of a container wait, from some moment on, until the test lets them be
// read.
type lateLogs struct {
	runtime.Runtime
	late        atomic.Bool
	asked, read chan struct{}
}

func (l *lateLogs) Logs(ctx context.Context, name string, opts runtime.LogOptions) error {
	if l.late.Load() {
		l.asked <- struct{}{}
		<-l.read
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return l.Runtime.Logs(ctx, name, opts)
}

func TestAnAgentThatEndsOfItsSidecarsDeathDoesNotHideItsLastWords(t *testing.T) {
	b, _ := sealedBench(t)
	late := &lateLogs{Runtime: b.rt, asked: make(chan struct{}), read: make(chan struct{})}
	b.rt = late
	bottle, err := b.launchSealed(t.Context(), sealedText)
	if err != nil {
		t.Fatal(err)
	}
	late.late.Store(true)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	deaths, err := bottle.WatchSidecars(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.rt.Kill(ctx, "bottle-coder.firewall", "SIGKILL"); err != nil {
		t.Fatal(err)
	}
	<-late.asked
	cancel()
	close(late.read)
	if d := <-deaths; len(d.Log) == 0 {
		t.Errorf("%s", d)
	}
	if err := bottle.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.empty()
}

func TestAnImageThatIsDroppedMeanwhileIsLoadedAgain(t *testing.T) {
	b, s := sealedBench(t)
	var once sync.Once
	b.SetFault(func(op, object string) error {
		var err error
		if op == "Run" && strings.HasSuffix(object, ".firewall") {
			once.Do(func() { err = runtime.WithKind(errdefs.ErrNotFound, errors.New("no such image")) })
		}
		return err
	})
	bottle, err := b.launchSealed(t.Context(), sealedText)
	if err != nil || len(s.ready) != 2 {
		t.Fatalf("%v, ready: %q", err, s.ready)
	}
	if err := bottle.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.empty()
}

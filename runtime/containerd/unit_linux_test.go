package containerd

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/bottle-run/bottle/runtime"
)

func TestAddressIsTheHostsOrTheEnvironmentsOrTheUsual(t *testing.T) {
	for _, tc := range []struct {
		host, env, want string
		named           bool
	}{
		{"", "", defaultAddress, false},
		{"", "/run/other.sock", "/run/other.sock", true},
		{"unix:///run/this.sock", "/run/other.sock", "/run/this.sock", true},
		{"/run/this.sock", "", "/run/this.sock", true},
	} {
		t.Setenv("CONTAINERD_ADDRESS", tc.env)
		if got, named := address(tc.host); got != tc.want || named != tc.named {
			t.Errorf("address(%q) with %q: %q, %v", tc.host, tc.env, got, named)
		}
	}
}

func TestOnlyALocalSocketIsAnEndpoint(t *testing.T) {
	for _, host := range []string{"tcp://127.0.0.1:1", "ssh://somewhere", "relative.sock"} {
		_, err := Driver{}.Open(t.Context(), runtime.Options{Host: host})
		if !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: got %v, want InvalidArgument", host, err)
		}
		if s := (Driver{}).Probe(t.Context(), runtime.Options{Host: host}); s.Healthy || s.Reason == "" || s.Fix == "" {
			t.Errorf("%s: probed as %+v", host, s)
		}
	}
	missing := filepath.Join(t.TempDir(), "none.sock")
	if _, err := (Driver{}).Open(t.Context(), runtime.Options{Host: "unix://" + missing}); !errdefs.IsUnavailable(err) {
		t.Errorf("a missing socket: got %v, want Unavailable", err)
	}
}

func TestVersionsBefore16AreRefused(t *testing.T) {
	for version, want := range map[string]bool{
		"1.5.9": false, "1.6.0": true, "1.6.20~ds1": true, "1.7.24": true, "2.1.0-rc.1": true, "0.9": false, "devel": true,
	} {
		if got := supported(version); got != want {
			t.Errorf("%s: %v", version, got)
		}
	}
}

func TestNamesThatBecomePathsAreChecked(t *testing.T) {
	for name, want := range map[string]bool{
		"a": true, "a.b-c_d": true, "0": true,
		"": false, "..": false, ".a": false, "-a": false, "a/b": false, "A": false, "a\x00": false, "*": false,
		strings.Repeat("a", 63): true, strings.Repeat("a", 64): false,
	} {
		if got := isName(name); got != want {
			t.Errorf("%q: %v", name, got)
		}
	}
}

func TestSignalsByNameAndNumber(t *testing.T) {
	for name, want := range map[string]uint32{
		"SIGTERM": 15, "TERM": 15, "sigkill": 9, "9": 9, "SIGRTMIN": 34, "SIGRTMIN+3": 37, "RTMIN+3": 37, "SIGRTMAX-1": 63, "SIGRTMAX": 64,
	} {
		if got, err := signalNumber(name); err != nil || got != want {
			t.Errorf("%s: %d, %v", name, got, err)
		}
	}
	for _, name := range []string{"", "SIGNOTHING", "0", "65", "SIGRTMIN+31", "SIGRTMAX+1", "SIGRTMIN+x"} {
		if got, err := signalNumber(name); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%q: %d, %v", name, got, err)
		}
	}
}

func TestArgumentsFollowDocker(t *testing.T) {
	image := runtime.ImageConfig{Entrypoint: []string{"e"}, Cmd: []string{"c"}}
	for _, tc := range []struct {
		name                string
		entrypoint, command []string
		image               runtime.ImageConfig
		want                string
	}{
		{"the image's", nil, nil, image, "e c"},
		{"another command", nil, []string{"x"}, image, "e x"},
		{"another entrypoint drops the command", []string{"y"}, nil, image, "y"},
		{"both", []string{"y"}, []string{"x"}, image, "y x"},
		{"no entrypoint", []string{}, []string{"x"}, image, "x"},
	} {
		got, err := arguments(runtime.ContainerSpec{Entrypoint: tc.entrypoint, Command: tc.command}, tc.image)
		if err != nil || strings.Join(got, " ") != tc.want {
			t.Errorf("%s: %q, %v", tc.name, got, err)
		}
	}
	if _, err := arguments(runtime.ContainerSpec{}, runtime.ImageConfig{}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("no command at all: %v", err)
	}
}

func TestEnvironmentReplacesSameNamesAndKeepsTheRest(t *testing.T) {
	got := environment(runtime.ContainerSpec{
		Hostname: "h", Env: map[string]string{"A": "spec", "EMPTY": "", "LINES": "a\nb=c"},
	}, []string{"PATH=/img", "A=image", "B=image"}, "/root")
	want := []string{"HOSTNAME=h", "PATH=/img", "B=image", "A=spec", "EMPTY=", "LINES=a\nb=c", "HOME=/root"}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestUnknownCapabilitiesAreInvalid(t *testing.T) {
	if got, err := capabilities([]string{"NET_ADMIN"}); err != nil || !slices.Equal(got, []string{"CAP_NET_ADMIN"}) {
		t.Errorf("NET_ADMIN: %v, %v", got, err)
	}
	if _, err := capabilities([]string{"NO_SUCH"}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("NO_SUCH: %v", err)
	}
}

func TestHostsFile(t *testing.T) {
	addr := netip.MustParseAddr
	own := []*endpoint{
		{Name: "agent", Device: "eth1", Address: addr("10.0.1.2")},
		{Name: "agent", Aliases: []string{"me"}, Device: "eth0", Address: addr("10.0.0.2")},
	}
	peers := []*endpoint{
		{Name: "b", Address: addr("10.0.0.4"), Aliases: []string{"bee", "b"}},
		{Name: "a", Address: addr("10.0.0.3")},
	}
	want := "127.0.0.1\tlocalhost\n10.0.0.2\tbox agent me\n10.0.1.2\tbox agent\n10.0.0.3\ta\n10.0.0.4\tb bee\n"
	if got := string(hosts("box", own, peers)); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
	if got := string(hosts("box", nil, nil)); got != "127.0.0.1\tlocalhost\n127.0.1.1\tbox\n" {
		t.Errorf("without a network:\n%s", got)
	}
}

func TestRewriteKeepsTheFileAndEndsWithTheContent(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hosts")
	if err := os.WriteFile(path, []byte("a long first content\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	before, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, content := range []string{"short\n", "one that is much longer than the first was\n", ""} {
		if err := rewrite(path, []byte(content)); err != nil {
			t.Fatal(err)
		}
		after, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if got, _ := os.ReadFile(path); string(got) != content || !os.SameFile(before, after) {
			t.Errorf("got %q, same file %v", got, os.SameFile(before, after))
		}
	}
}

func TestNameserversThatAContainerCannotReachAreLeftOut(t *testing.T) {
	conf, servers := reachable([]byte("# comment\nnameserver 127.0.0.53\nnameserver 192.0.2.1\nnameserver fe80::1%eth0\nnameserver\nsearch  a b\noptions edns0\n"))
	if string(conf) != "nameserver 192.0.2.1\nsearch a b\noptions edns0\n" || len(servers) != 1 {
		t.Errorf("got %q, %v", conf, servers)
	}
	if got := string(resolvConf([]*endpoint{{Internal: true}})); strings.Contains(got, "nameserver ") {
		t.Errorf("an internal network's: %q", got)
	}
}

func TestImageNames(t *testing.T) {
	for ref, want := range map[string]string{
		"alpine": "docker.io/library/alpine:latest", "localhost:5000/a/b:c": "localhost:5000/a/b:c", "me/x:1": "docker.io/me/x:1",
	} {
		got, err := storedName(ref)
		if err != nil || got != want {
			t.Errorf("%s: %q, %v", ref, got, err)
		}
	}
	if _, err := storedName("Not A Name"); !errdefs.IsInvalidArgument(err) {
		t.Errorf("not a name: %v", err)
	}
	if got := givenName("docker.io/library/alpine:latest"); got != "alpine:latest" {
		t.Errorf("given: %q", got)
	}
	// An OCI layout may name an image by its tag alone.
	if got := loadedName("latest"); got != "" {
		t.Errorf("a tag alone became %q", got)
	}
}

func TestLocksEndWithTheirHolderAndSurviveRemoval(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	a, err := tryLock(path)
	if err != nil || a == nil {
		t.Fatal(a, err)
	}
	if b, err := tryLock(path); err != nil || b != nil {
		t.Fatalf("taken twice: %v, %v", b, err)
	}
	got := make(chan *fileLock)
	go func() {
		l, err := lock(t.Context(), path)
		if err != nil {
			t.Error(err)
		}
		got <- l
	}()
	// Whoever waited for the removed file must not hold a lock that nobody sees.
	a.remove()
	c := <-got
	if d, err := tryLock(path); err != nil || d != nil {
		t.Errorf("the lock after a removal is not seen: %v, %v", d, err)
	}
	c.unlock()
}

func TestEveryNetworkDeviceNameFits(t *testing.T) {
	for _, prefix := range []string{internalBridge, egressBridge, internalPort, egressPort} {
		if name := prefix + shortHash("x"); len(name) != 15 || !strings.HasPrefix(name, devicePrefix) {
			t.Errorf("%q has %d characters", name, len(name))
		}
	}
}

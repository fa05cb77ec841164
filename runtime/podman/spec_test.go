package podman

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/bottle-run/bottle/runtime"
)

func rendered(t *testing.T, p plan) map[string]any {
	t.Helper()
	if p.argv == nil {
		p.argv = []string{"/run"}
	}
	r, err := p.request()
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal(b, &m); err != nil {
		t.Fatal(err)
	}
	return m
}

// What an engine of 5.x would take from its configuration if it were absent.
func TestTheZeroSpecIsHardenedWhateverTheEngineIsConfiguredTo(t *testing.T) {
	m := rendered(t, plan{spec: runtime.ContainerSpec{Name: "c", Image: "i"}, pids: true, local: true})
	for key, want := range map[string]any{
		"privileged": false, "no_new_privileges": true, "httpproxy": false, "env_host": false, "init": true, "stdin": false,
		"systemd": "false", "cap_drop": []any{"ALL"}, "entrypoint": []any{}, "read_write_tmpfs": false,
		"netns": map[string]any{"nsmode": "none"}, "ipcns": map[string]any{"nsmode": "private"},
		"resource_limits":   map[string]any{"pids": map[string]any{"limit": float64(runtime.DefaultPIDs)}},
		"log_configuration": map[string]any{"driver": "k8s-file"},
		"labels":            map[string]any{runtime.LabelManaged: "true", labelContainer: "true"},
	} {
		if got, ok := m[key]; !ok || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: expected %v, got %v", key, want, got)
		}
	}
	for _, key := range []string{"cap_add", "networks", "mounts", "oci_runtime", "dns_server"} {
		if v, ok := m[key]; ok {
			t.Errorf("%s: expected nothing, got %v", key, v)
		}
	}
}

func TestOnlyAHandshakeOpensTheInput(t *testing.T) {
	m := rendered(t, plan{spec: runtime.ContainerSpec{Name: "c", Image: "i", Handshake: &runtime.Handshake{}}})
	if m["stdin"] != true || m["terminal"] != false {
		t.Errorf("stdin %v, terminal %v", m["stdin"], m["terminal"])
	}
}

func TestWhatTheServiceAddsIsNoAnswer(t *testing.T) {
	var got bytes.Buffer
	for _, part := range []string{"Error: of the process\n", "Error: read unixpacket @->/proc/self/fd/12/attach: read: connection reset by peer\n"} {
		if _, err := (wordsOnly{&got}).Write([]byte(part)); err != nil {
			t.Fatal(err)
		}
	}
	if got.String() != "Error: of the process\n" {
		t.Errorf("got %q", got.String())
	}
}

func TestNetworksOfAContainer(t *testing.T) {
	inner, outer := apiNetwork{Name: "in", Internal: true}, apiNetwork{Name: "out"}
	attach := []runtime.NetworkAttachment{
		{Network: "in", Aliases: []string{"db"}, Address: netip.MustParseAddr("10.0.0.5")}, {Network: "out"},
	}
	m := rendered(t, plan{spec: runtime.ContainerSpec{Networks: attach}, networks: []apiNetwork{inner, outer}, ipv6: true})
	if got, want := m["networks"], (map[string]any{
		"in":  map[string]any{"aliases": []any{"db"}, "static_ips": []any{"10.0.0.5"}, "interface_name": "eth0"},
		"out": map[string]any{"interface_name": "eth1"},
	}); !reflect.DeepEqual(got, want) {
		t.Errorf("expected %v, got %v", want, got)
	}
	sysctl := m["sysctl"].(map[string]any)
	if sysctl["net.ipv4.ip_forward"] != "0" || sysctl["net.ipv6.conf.eth0.disable_ipv6"] != "1" || sysctl["net.ipv6.conf.eth1.disable_ipv6"] != "1" {
		t.Errorf("got %v", sysctl)
	}
	if _, ok := m["dns_server"]; ok {
		t.Error("expected the engine's resolver on a network with a way out")
	}
	m = rendered(t, plan{spec: runtime.ContainerSpec{Networks: attach[:1]}, networks: []apiNetwork{inner}})
	if !reflect.DeepEqual(m["dns_server"], []any{"127.0.0.1"}) {
		t.Errorf("expected no resolver but one that refuses, got %v", m["dns_server"])
	}
}

func TestNetworkRequests(t *testing.T) {
	p := netip.MustParsePrefix("10.1.2.0/27")
	inner := networkRequest(runtime.NetworkSpec{Name: "n", Internal: true, Labels: map[string]string{"a": "b"}}, p)
	if !inner.Internal || inner.DNSEnabled || inner.Options != nil || inner.Labels["a"] != "b" || inner.Labels[runtime.LabelManaged] != "true" {
		t.Errorf("an internal network has no resolver, and thereby no address on the host: %+v", inner)
	}
	outer := networkRequest(runtime.NetworkSpec{Name: "n"}, p)
	if outer.Internal || !outer.DNSEnabled || outer.Options["isolate"] != "true" {
		t.Errorf("another one is isolated and has a resolver: %+v", outer)
	}
	if a, b := inner.NetworkInterface, outer.NetworkInterface; a == b || len(a) > 15 || !strings.HasPrefix(a, "btl") {
		t.Errorf("expected unique names of interfaces, got %q and %q", a, b)
	}
}

func TestLimits(t *testing.T) {
	m := rendered(t, plan{spec: runtime.ContainerSpec{Limits: runtime.Limits{Memory: 1 << 20, PIDs: 7, CPUs: 1.5, NoFile: 99}}, pids: true})
	want := map[string]any{
		"memory": map[string]any{"limit": float64(1 << 20), "swap": float64(1 << 20)}, "pids": map[string]any{"limit": 7.0},
		"cpu": map[string]any{"quota": 150000.0, "period": 100000.0},
	}
	if !reflect.DeepEqual(m["resource_limits"], want) {
		t.Errorf("expected %v, got %v", want, m["resource_limits"])
	}
	if got := m["r_limits"]; !reflect.DeepEqual(got, []any{map[string]any{"type": "NOFILE", "hard": 99.0, "soft": 99.0}}) {
		t.Errorf("got %v", got)
	}
}

func TestCommandLine(t *testing.T) {
	image := apiImage{}
	image.Config.Entrypoint, image.Config.Cmd = []string{"/e"}, []string{"c"}
	for _, c := range []struct {
		name string
		spec runtime.ContainerSpec
		want string
	}{
		{"the image's", runtime.ContainerSpec{}, "/e c"},
		{"another command", runtime.ContainerSpec{Command: []string{"x", "y"}}, "/e x y"},
		{"no command", runtime.ContainerSpec{Command: []string{}}, "/e"},
		{"another entrypoint drops the image's command", runtime.ContainerSpec{Entrypoint: []string{"/f"}}, "/f"},
		{"no entrypoint", runtime.ContainerSpec{Entrypoint: []string{}, Command: []string{"x"}}, "x"},
	} {
		got, err := commandLine(c.spec, image)
		if err != nil || strings.Join(got, " ") != c.want {
			t.Errorf("%s: expected %q, got %q, %v", c.name, c.want, got, err)
		}
	}
	if _, err := commandLine(runtime.ContainerSpec{Entrypoint: []string{}}, image); !errdefs.IsInvalidArgument(err) {
		t.Errorf("nothing to run: got %v", err)
	}
}

func TestCandidates(t *testing.T) {
	path := []string{"/bin", "", "rel"}
	for argv0, want := range map[string][]string{
		"sh": {"/bin/sh", "/work/sh", "/rel/sh"}, "/a/b": {"/a/b"}, "./x": {"/work/x"}, "d/x": {"/work/d/x"},
	} {
		if got := candidates(argv0, "/work", path); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: expected %q, got %q", argv0, want, got)
		}
	}
}

func TestFilesThatTheContainerWouldNotSee(t *testing.T) {
	for _, s := range []runtime.ContainerSpec{
		{Files: []runtime.File{{Path: "/t/x"}}, Tmpfs: []runtime.Tmpfs{{Target: "/t"}}},
		{Files: []runtime.File{{Path: "/m"}}, Mounts: []runtime.Mount{{Target: "/m"}}},
		{Files: []runtime.File{{Path: "/etc/hosts"}}},
	} {
		if err := checkFiles(s); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%+v: expected InvalidArgument, got %v", s, err)
		}
	}
	if err := checkFiles(runtime.ContainerSpec{Files: []runtime.File{{Path: "/tx"}}, Tmpfs: []runtime.Tmpfs{{Target: "/t"}}}); err != nil {
		t.Error(err)
	}
}

func TestSignals(t *testing.T) {
	for name, want := range map[string]int{"SIGTERM": 15, "term": 15, "9": 9, "SIGUSR1": 10} {
		if got, err := signalNumber(name); err != nil || got != want {
			t.Errorf("%s: expected %d, got %d, %v", name, want, got, err)
		}
	}
	for _, name := range []string{"", "SIGNOTHING", "0", "65", "-1"} {
		if _, err := signalNumber(name); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%q: expected InvalidArgument, got %v", name, err)
		}
	}
}

func TestHostsFiles(t *testing.T) {
	c := func(id, name, address string, aliases ...string) apiContainer {
		var c apiContainer
		c.ID, c.Name, c.Config.Hostname = id, name, name
		c.NetworkSettings.Networks = map[string]apiEndpoint{"in": {IPAddress: address, Aliases: append(aliases, id[:12])}}
		return c
	}
	a := c("aaaaaaaaaaaa1111", "a", "10.0.0.1", "first")
	b := c("bbbbbbbbbbbb2222", "b", "10.0.0.2")
	a.NetworkSettings.Networks["other"] = apiEndpoint{IPAddress: "10.9.0.1"}
	b.NetworkSettings.Networks["elsewhere"] = apiEndpoint{IPAddress: "10.8.0.1", Aliases: []string{"hidden"}}
	got := string(hostsFile(a, []string{"in"}, map[string]apiContainer{a.ID: a, b.ID: b}))
	want := "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n10.0.0.1\ta first\n10.9.0.1\ta\n10.0.0.2\tb\n"
	if got != want {
		t.Errorf("expected\n%s\ngot\n%s", want, got)
	}
	var alone apiContainer
	alone.Name, alone.Config.Hostname = "alone", "host"
	if got := string(hostsFile(alone, nil, nil)); !strings.HasSuffix(got, "127.0.1.1\thost alone\n") {
		t.Errorf("got %q", got)
	}
}

func TestReadOnlyTargets(t *testing.T) {
	var c apiContainer
	b := `{"HostConfig":{"ReadonlyRootfs":true,"Tmpfs":{"/tmp":""}},"Mounts":[{"Destination":"/data","RW":true},{"Destination":"/data/ro","RW":false}]}`
	if err := json.Unmarshal([]byte(b), &c); err != nil {
		t.Fatal(err)
	}
	for dir, want := range map[string]bool{"/": true, "/etc": true, "/tmp": false, "/tmp/x": false, "/data": false, "/data/ro/x": true, "/database": true} {
		if got := readOnly(c, dir); got != want {
			t.Errorf("%s: expected %v, got %v", dir, want, got)
		}
	}
}

func TestLoopbackRegistries(t *testing.T) {
	for ref, want := range map[string]bool{
		"localhost:5000/x": true, "127.0.0.1:5000/x:1": true, "127.0.0.1/x": true, "[::1]:5000/x": true,
		"localhost/x": false, "example.org/x": false, "x": false, "127.0.0.1.example.org/x": false, "192.0.2.1:5000/x": false,
	} {
		if got := loopbackRegistry(ref); got != want {
			t.Errorf("%s: expected %v, got %v", ref, want, got)
		}
	}
}

func TestPullErrors(t *testing.T) {
	for text, is := range map[string]func(error) bool{
		"unauthorized: authentication required":              errdefs.IsUnauthorized,
		"reading manifest 1: manifest unknown":               errdefs.IsNotFound,
		"denied: requested access to the resource is denied": errdefs.IsPermissionDenied,
		"dial tcp 127.0.0.1:1: connect: connection refused":  errdefs.IsUnavailable,
	} {
		if err := pullError(text); !is(err) {
			t.Errorf("%s: wrong kind of %v", text, err)
		}
	}
}

func TestBuildQuery(t *testing.T) {
	q, err := buildQuery(runtime.BuildSpec{Tags: []string{"a:1", "b:1"}, Args: map[string]string{"X": "1"}, NoNetwork: true, Target: "t"}, "Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	var labels map[string]string
	if err := json.Unmarshal([]byte(q.Get("labels")), &labels); err != nil {
		t.Fatal(err)
	}
	if labels[runtime.LabelManaged] != "true" || labels[labelBuild] != "a:1" || q.Get("networkmode") != "NetworkDisabled" ||
		!strings.Contains(q.Get("nsoptions"), `"Host":false`) || q.Get("buildargs") != `{"X":"1"}` || len(q["t"]) != 2 {
		t.Errorf("got %v", q)
	}
}

func TestBuildOutputNamesTheStep(t *testing.T) {
	var progress bytes.Buffer
	stream := `{"stream":"STEP 1/2: FROM base\n"}{"stream":"STEP 2/2: RUN false\n"}{"stream":"oh"}{"stream":" no\n"}{"error":"building at STEP: exit status 1\n"}`
	_, err := (&buildOutput{progress: &progress}).read(strings.NewReader(stream))
	if err == nil || !strings.Contains(err.Error(), `"RUN false"`) || !strings.HasSuffix(err.Error(), "oh no") {
		t.Errorf("expected the step and the end of its output, got %v", err)
	}
	if !strings.Contains(progress.String(), "STEP 1/2: FROM base\n") {
		t.Errorf("got progress %q", progress.String())
	}
	id := strings.Repeat("ab", 32)
	got, err := (&buildOutput{}).read(strings.NewReader(`{"stream":"COMMIT x\n"}{"stream":"` + id + `\n"}`))
	if err != nil || got != id {
		t.Errorf("expected the image's id, got %q, %v", got, err)
	}
}

func TestHeredocs(t *testing.T) {
	for text, want := range map[string]bool{
		"FROM x\nRUN <<EOF\n": true, "COPY <<-'E' /x\n": true, "RUN cat <<\"E\" >x\n": true, "# RUN <<EOF\nRUN echo 1 << 2\n": false, "RUN a<b\n": false,
	} {
		if got := heredoc.MatchString(text); got != want {
			t.Errorf("%q: expected %v, got %v", text, want, got)
		}
	}
}

func TestEndpoints(t *testing.T) {
	none := func(string) string { return "" }
	list, own, err := endpoints("", none, true)
	if err != nil || !own || list[0].uri != "unix:///run/podman/podman.sock" || list[0].named {
		t.Errorf("root: got %v, %v, %v", list, own, err)
	}
	list, own, err = endpoints("", func(k string) string { return map[string]string{"CONTAINER_HOST": "ssh://u@h/x"}[k] }, false)
	if err != nil || own || list[0].uri != "ssh://u@h/x" || !list[0].named {
		t.Errorf("CONTAINER_HOST: got %v, %v, %v", list, own, err)
	}
	if list, _, err = endpoints("tcp://h:1", none, false); err != nil || list[0].uri != "tcp://h:1" {
		t.Errorf("named: got %v, %v", list, err)
	}
}

func TestServiceEnvironment(t *testing.T) {
	got := serviceEnv([]string{"A=1", "CONTAINER_HOST=tcp://x", "CONTAINERS_CONF=/y", "NOTIFY_SOCKET=z"}, "/conf")
	if want := []string{"A=1", "CONTAINERS_CONF=/conf"}; !reflect.DeepEqual(got, want) {
		t.Errorf("expected %q, got %q", want, got)
	}
}

package containerd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/bottle-run/bottle/runtime"
	"github.com/bottle-run/bottle/runtime/internal/subnet"
)

// eventually asks until it is so.
func eventually(t *testing.T, what string, so func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !so(); {
		if time.Now().After(deadline) {
			t.Fatalf("not so after a minute: %s", what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// A container that may do anything to its own network is still held to its
// addresses by the bridge.
func TestAPortPassesItsOwnAddressesAlone(t *testing.T) {
	e := testEngine(t)
	n := createNetwork(t, e, runtime.NetworkSpec{Name: "ctd-spoof", Internal: true})
	on := []runtime.NetworkAttachment{{Network: n.Name}}
	victim := run(t, e, runtime.ContainerSpec{Name: "ctd-victim", Networks: on})
	run(t, e, runtime.ContainerSpec{Name: "ctd-agent", Networks: on, Capabilities: []string{"NET_ADMIN", "NET_RAW"}})
	to := victim.Networks[0].Address
	reach := func() bool {
		_, code := sh(t, e, "ctd-agent", fmt.Sprintf("ping -c1 -W1 %s", to))
		return code == 0
	}
	if !reach() {
		t.Fatal("its neighbour does not answer")
	}
	own, _ := sh(t, e, "ctd-agent", "ip -4 -o addr show eth0")
	spoofed := subnet.Nth(n.Subnet, 30)
	for name, change := range map[string]string{
		"another address":   fmt.Sprintf("ip addr add %s/27 dev eth0 && ping -c1 -W1 -I %s %s", spoofed, spoofed, to),
		"another MAC":       fmt.Sprintf("ip link set eth0 down && ip link set eth0 address 02:00:00:00:00:99 && ip link set eth0 up && ping -c1 -W1 %s", to),
		"the host's bridge": "arping -c1 -w1 -I eth0 192.0.2.2",
	} {
		if out, code := sh(t, e, "ctd-agent", change); code == 0 {
			t.Errorf("with %s it was answered:\n%s\n(was %s)", name, out, own)
		}
	}
}

// As after `nft flush ruleset`.
func TestFlushedRulesAreRestored(t *testing.T) {
	e := testEngine(t)
	n := createNetwork(t, e, runtime.NetworkSpec{Name: "ctd-flushed", Internal: true})
	c := run(t, e, runtime.ContainerSpec{Name: "ctd-flushed", Networks: []runtime.NetworkAttachment{{Network: n.Name}}})
	before, err := firewallInventory()
	if err != nil {
		t.Fatal(err)
	}
	l, err := e.lockNetworks(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	fw, _, err := newFirewall()
	if err != nil {
		t.Fatal(err)
	}
	fw.conn.DelTable(fw.inet)
	fw.conn.DelTable(fw.bridge)
	err = fw.conn.Flush()
	if err == nil {
		_, err = e.openFirewall()
	}
	l.unlock()
	if err != nil {
		t.Fatal(err)
	}
	after, err := firewallInventory()
	if err != nil {
		t.Fatal(err)
	}
	if len(before) < 3 {
		t.Errorf("before: %q", before)
	}
	for _, had := range before {
		if !slices.Contains(after, had) {
			t.Errorf("%s is not restored", had)
		}
	}
	if _, code := sh(t, e, c.ID, "true"); code != 0 {
		t.Error("the container does not run")
	}
}

func TestAContainerRemovesItselfWithoutItsMaker(t *testing.T) {
	host := needEngine(t)
	testEngine(t) // loads the image
	rt, err := Driver{}.Open(t.Context(), runtime.Options{Host: host})
	if err != nil {
		t.Fatal(err)
	}
	maker := rt.(*Engine)
	n := createNetwork(t, testEngine(t), runtime.NetworkSpec{Name: "ctd-auto", Internal: true})
	c, err := runtime.Checked(maker).Run(t.Context(), runtime.ContainerSpec{
		Name: "ctd-auto", Image: testImage, AutoRemove: true, Command: []string{"sleep", "1"},
		Networks: []runtime.NetworkAttachment{{Network: n.Name}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := maker.Close(); err != nil {
		t.Fatal(err)
	}
	e := testEngine(t)
	status, err := e.Wait(t.Context(), c.ID)
	if err != nil || status.Code != 0 {
		t.Errorf("wait: %+v, %v", status, err)
	}
	eventually(t, "the container is gone", func() bool {
		_, err := e.InspectContainer(t.Context(), c.ID)
		return errdefs.IsNotFound(err)
	})
	eventually(t, "its directory is gone", func() bool {
		_, err := os.Stat(e.containerDir(c.ID))
		return errors.Is(err, os.ErrNotExist)
	})
	eventually(t, "the watcher has ended", func() bool {
		l, err := tryLock(e.watcherLock())
		if err != nil {
			t.Fatal(err)
		}
		if l != nil {
			l.unlock()
		}
		return l != nil
	})
}

func TestWhatAKilledProcessLeftIsSwept(t *testing.T) {
	e := testEngine(t)
	n := createNetwork(t, e, runtime.NetworkSpec{Name: "ctd-swept", Internal: true})
	// As after a kill -9 between the snapshot and the record.
	id := newID()
	if err := e.makeDir(id, "ctd-swept"); err != nil {
		t.Fatal(err)
	}
	spec := runtime.ContainerSpec{Name: "ctd-swept", Image: testImage, Networks: []runtime.NetworkAttachment{{Network: n.Name}}}
	if _, err := e.allocate(t.Context(), id, spec); err != nil {
		t.Fatal(err)
	}
	ctx := e.ctx(t.Context())
	img, source, err := e.resolve(ctx, testImage)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.prepareSnapshot(ctx, id, img, func() error { return e.unpack(ctx, source) }); err != nil {
		t.Fatal(err)
	}
	if err := e.RemoveNetwork(t.Context(), n.Name); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("the network is in use, but: %v", err)
	}
	e.sweep(t.Context(), true)
	if _, err := os.Stat(e.containerDir(id)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory is still there: %v", err)
	}
	if _, err := e.snapshots().Stat(ctx, id); !isNotFound(err) {
		t.Errorf("the snapshot is still there: %v", err)
	}
	if left, err := e.endpoints(n.ID); err != nil || len(left) > 0 {
		t.Errorf("addresses are still taken: %v, %v", left, err)
	}
}

// TestEveryContainerIsLookedAtWhereThereIsAReason leaves what a process that died leaves: it is
// found by the next one if something tells of it, at the latest when there is no watcher.
func TestEveryContainerIsLookedAtWhereThereIsAReason(t *testing.T) {
	e := testEngine(t)
	e.sweep(t.Context(), true)
	watched := run(t, e, runtime.ContainerSpec{Name: "ctd-watched", AutoRemove: true})
	if !e.watched() {
		t.Fatal("there is no watcher")
	}
	for _, test := range []struct {
		name   string
		reason func()
		swept  bool
	}{
		{"none", func() {}, false},
		{"a connection died", func() {
			if err := os.WriteFile(filepath.Join(e.aliveDir(), "dead00000002.lock"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}, true},
		{"one has died not long ago", func() { e.sweepAgain() }, true},
		{"the watcher has gone", func() {
			if err := e.RemoveContainer(t.Context(), watched.ID); err != nil {
				t.Fatal(err)
			}
			for end := time.Now().Add(20 * time.Second); e.watched() && time.Now().Before(end); {
				time.Sleep(10 * time.Millisecond)
			}
		}, true},
	} {
		_ = os.Remove(e.againFile())
		id := newID()
		if err := e.makeDir(id, "ctd-orphan"); err != nil {
			t.Fatal(err)
		}
		test.reason()
		e.sweep(t.Context(), false)
		_, err := os.Stat(e.containerDir(id))
		if swept := errors.Is(err, os.ErrNotExist); swept != test.swept {
			t.Errorf("%s: swept: %v, want %v", test.name, swept, test.swept)
		}
		e.sweep(t.Context(), true)
		if _, err := os.Stat(e.containerDir(id)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: the directory is still there: %v", test.name, err)
		}
	}
	// What is new is a reason for a while.
	e.sweepAgain()
	if e.swept(); !e.again() {
		t.Error("a reason is forgotten at once")
	}
	old := time.Now().Add(-2 * againTime)
	if err := os.Chtimes(e.againFile(), old, old); err != nil {
		t.Fatal(err)
	}
	if e.swept(); e.again() {
		t.Error("a reason is never forgotten")
	}
}

func TestAClaimThatIsBeingWorkedOnIsNotSwept(t *testing.T) {
	e := testEngine(t)
	claim, err := e.claim(e.ctx(t.Context()), "ctd-working")
	if err != nil {
		t.Fatal(err)
	}
	defer claim.remove()
	id := newID()
	if err := e.makeDir(id, "ctd-working"); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(e.containerDir(id)) }()
	if err := os.Mkdir(e.unnamedDir("ctd-working"), 0o700); err != nil {
		t.Fatal(err)
	}
	e.sweep(t.Context(), true)
	for _, dir := range []string{e.containerDir(id), e.unnamedDir("ctd-working")} {
		if _, err := os.Stat(dir); err != nil {
			t.Error(err)
		}
	}
	// What a process left that died amid it is no obstacle for the next.
	other := newID()
	if err := e.makeDir(other, "ctd-working"); err != nil {
		t.Error(err)
	}
	if err := os.RemoveAll(e.containerDir(other)); err != nil {
		t.Error(err)
	}
}

func TestADirectoryThatWasBeingMadeOrRemovedIsSwept(t *testing.T) {
	e := testEngine(t)
	run(t, e, runtime.ContainerSpec{Name: "ctd-kept"})
	kept, err := e.find(e.ctx(t.Context()), "ctd-kept")
	if err != nil {
		t.Fatal(err)
	}
	// Whatever the files, one that containerd knows stays.
	if err := os.Remove(filepath.Join(e.containerDir(kept.ID), nameFile)); err != nil {
		t.Fatal(err)
	}
	// Its name was the first of its files to go.
	half := e.containerDir(newID())
	// A power failure came before the name was on the disk.
	empty := e.containerDir(newID())
	unnamed := e.unnamedDir("ctd-half")
	for _, dir := range []string{half, empty, unnamed} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, file := range []string{filepath.Join(half, hostsFile), filepath.Join(empty, nameFile)} {
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	e.sweep(t.Context(), true)
	for _, dir := range []string{half, empty, unnamed} {
		if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is still there: %v", dir, err)
		}
	}
	if _, err := os.Stat(e.nameLock("ctd-half")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the lock is still there: %v", err)
	}
	if out, code := sh(t, e, "ctd-kept", "echo lives"); code != 0 || out != "lives\n" {
		t.Errorf("%q, status %d", out, code)
	}
}

func TestWhatAConnectionLeftOutlivesNoReboot(t *testing.T) {
	e := testEngine(t)
	// As a process leaves it that died with its machine: the lock by which it lived is gone.
	const dead = "dead00000001"
	dir, file := e.dir(mountPrefix+dead+"-123"), e.dir("init-abc."+dead+"-456")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	own, err := os.MkdirTemp(e.state, mountPrefix+e.name+"-")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.Remove(own) }()
	e.sweep(t.Context(), true)
	for _, path := range []string{dir, file, filepath.Join(e.aliveDir(), dead+".lock")} {
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is still there: %v", path, err)
		}
	}
	if _, err := os.Stat(own); err != nil {
		t.Errorf("a living connection's is gone: %v", err)
	}
}

func TestLogsAreSplitAndCut(t *testing.T) {
	e := testEngine(t)
	run(t, e, runtime.ContainerSpec{Name: "ctd-logs", Command: []string{"sh", "-c",
		"echo one; echo two >&2; printf three; until test -e /go; do sleep 0.1; done; echo; sleep 0.1; echo four >&2; sleep 0.1; echo five"}})
	read := func(opts runtime.LogOptions) (string, string) {
		t.Helper()
		var out, errs bytes.Buffer
		opts.Stdout, opts.Stderr = &out, &errs
		if err := e.Logs(t.Context(), "ctd-logs", opts); err != nil {
			t.Fatal(err)
		}
		return out.String(), errs.String()
	}
	eventually(t, "the first lines", func() bool {
		out, errs := read(runtime.LogOptions{})
		return out == "one\nthree" && errs == "two\n"
	})
	middle := time.Now()
	sh(t, e, "ctd-logs", "touch /go")
	for _, tc := range []struct {
		name      string
		opts      runtime.LogOptions
		out, errs string
	}{
		{"followed to the end", runtime.LogOptions{Follow: true}, "one\nthree\nfive\n", "two\nfour\n"},
		{"all", runtime.LogOptions{}, "one\nthree\nfive\n", "two\nfour\n"},
		{"the last line", runtime.LogOptions{Tail: 1}, "five\n", ""},
		{"the last two", runtime.LogOptions{Tail: 2}, "five\n", "four\n"},
		{"more than there are", runtime.LogOptions{Tail: 100}, "one\nthree\nfive\n", "two\nfour\n"},
		{"what is new", runtime.LogOptions{Since: middle}, "\nfive\n", "four\n"},
	} {
		if out, errs := read(tc.opts); out != tc.out || errs != tc.errs {
			t.Errorf("%s: %q and %q, want %q and %q", tc.name, out, errs, tc.out, tc.errs)
		}
	}
}

func TestACancelledExecLeavesNothingRunning(t *testing.T) {
	e := testEngine(t)
	run(t, e, runtime.ContainerSpec{Name: "ctd-cancel"})
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	_, err := e.Exec(ctx, "ctd-cancel", runtime.ExecSpec{Command: []string{"sh", "-c",
		"sleep 4321 & setsid sleep 4321 & (env -i sleep 4321 &) ; exec sleep 4321"}})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	if out, _ := sh(t, e, "ctd-cancel", "ps | grep '[s]leep 4321'"); out != "" {
		t.Errorf("still running:\n%s", out)
	}
	if out, code := sh(t, e, "ctd-cancel", "echo alive"); code != 0 || out != "alive\n" {
		t.Errorf("the container: %q, %d", out, code)
	}
}

func TestAnExecDoesNotWaitForItsBackground(t *testing.T) {
	e := testEngine(t)
	run(t, e, runtime.ContainerSpec{Name: "ctd-background"})
	for _, command := range []string{"echo begun; sleep 4321 &", "echo begun; yes &"} {
		start := time.Now()
		out, code := sh(t, e, "ctd-background", command)
		if !strings.HasPrefix(out, "begun\n") || code != 0 || time.Since(start) > 10*time.Second {
			t.Errorf("%s: %.20q, %d after %v", command, out, code, time.Since(start))
		}
	}
}

func TestABuildStepHasANetworkOfItsOwn(t *testing.T) {
	e := testEngine(t)
	dir := t.TempDir()
	write := func(content string) {
		if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("FROM " + testImage + "\nRUN ip -4 -o addr > /network && ip route >> /network && cat /etc/resolv.conf >> /network\n")
	img, err := runtime.Checked(e).BuildImage(t.Context(), runtime.BuildSpec{ContextDir: dir, Tags: []string{"localhost/containerd-test/step:1"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.RemoveImage(context.Background(), "localhost/containerd-test/step:1"); err != nil {
			t.Error(err)
		}
	})
	if img.Labels[runtime.LabelManaged] != "true" {
		t.Errorf("labels: %v", img.Labels)
	}
	run(t, e, runtime.ContainerSpec{Name: "ctd-step", Image: img.ID})
	out, _ := sh(t, e, "ctd-step", "cat /network")
	if !strings.Contains(out, "eth0") || !strings.Contains(out, "default via ") || strings.Contains(out, "192.0.2.2") {
		t.Errorf("the step saw:\n%s", out)
	}
	inv, err := e.Inventory(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range inv["networks"] {
		if strings.Contains(n, "step-") {
			t.Errorf("left behind: %s", n)
		}
	}
}

func TestTheProgramIsNoWatcherByAccident(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := &exec.Cmd{Path: self, Args: []string{watcherName}, Env: []string{}}
	if err := cmd.Run(); err == nil || cmd.ProcessState.ExitCode() != 2 {
		t.Errorf("a watcher without a configuration: %v", err)
	}
}

func TestAnExecThatIsCancelledAtAnyMomentLeavesNothing(t *testing.T) {
	e := testEngine(t)
	run(t, e, runtime.ContainerSpec{Name: "ctd-moments"})
	for moment := range 12 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(moment)*8*time.Millisecond)
		_, err := e.Exec(ctx, "ctd-moments", runtime.ExecSpec{Command: []string{"sleep", "5432"}})
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("after %d ms: %v", moment*8, err)
		}
	}
	if out, _ := sh(t, e, "ctd-moments", "ps | grep '[s]leep 5432'"); out != "" {
		t.Errorf("still running:\n%s", out)
	}
	if left, err := os.ReadDir(filepath.Join(e.run, "exec", e.name)); err != nil || len(left) > 0 {
		t.Errorf("FIFOs are left: %v, %v", left, err)
	}
}

func TestAWayOutIsNoWayToTheHost(t *testing.T) {
	e := testEngine(t)
	n := createNetwork(t, e, runtime.NetworkSpec{Name: "ctd-out"})
	other := createNetwork(t, e, runtime.NetworkSpec{Name: "ctd-out2"})
	run(t, e, runtime.ContainerSpec{Name: "ctd-out", Networks: []runtime.NetworkAttachment{{Network: n.Name}}})
	l, err := net.Listen("tcp4", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	accepted := make(chan string, 16)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			accepted <- conn.RemoteAddr().String()
			_ = conn.Close()
		}
	}()
	port := l.Addr().(*net.TCPAddr).Port
	targets := []string{n.Gateway.String(), other.Gateway.String()}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		if ip, ok := a.(*net.IPNet); ok && ip.IP.To4() != nil && !ip.IP.IsLoopback() {
			targets = append(targets, ip.IP.String())
		}
	}
	for _, target := range targets {
		if out, code := sh(t, e, "ctd-out", fmt.Sprintf("nc -w 1 %s %d </dev/null", target, port)); code == 0 {
			t.Errorf("%s answers: %s", target, out)
		}
	}
	select {
	case from := <-accepted:
		t.Errorf("the host was reached from %s", from)
	default:
	}
	// The listener is there, or the above proves nothing.
	conn, err := net.Dial("tcp", netip.AddrPortFrom(n.Gateway, uint16(port)).String())
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
}

// TestWhoeverJoinsKnowsWhoIsThere runs several containers at once: each knows, from its
// first moment on, those that were there before.
func TestWhoeverJoinsKnowsWhoIsThere(t *testing.T) {
	e := testEngine(t)
	network := createNetwork(t, e, runtime.NetworkSpec{Name: "ct-joiners", Internal: true})
	spec := func(name string, aliases ...string) runtime.ContainerSpec {
		return runtime.ContainerSpec{
			Name: name, Image: testImage, Entrypoint: []string{"/bin/busybox", "sleep", "60"},
			Networks: []runtime.NetworkAttachment{{Network: network.ID, Aliases: aliases}},
		}
	}
	run(t, e, spec("ct-first", "firewall"))
	for range 5 {
		var joining sync.WaitGroup
		for i := range 8 {
			joining.Go(func() {
				c, err := e.Run(t.Context(), spec(fmt.Sprintf("ct-joiner-%d", i)))
				if err != nil {
					t.Error(err)
					return
				}
				content, err := os.ReadFile(filepath.Join(e.containerDir(c.ID), hostsFile))
				if err != nil || !strings.Contains(string(content), "firewall") {
					t.Errorf("the hosts file of joiner %d is %q, %v", i, content, err)
				}
				if err := e.RemoveContainer(context.Background(), c.ID); err != nil {
					t.Error(err)
				}
			})
		}
		joining.Wait()
	}
}

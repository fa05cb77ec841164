package doctor

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/bottle-run/bottle/core"
	"github.com/bottle-run/bottle/core/session"
	"github.com/bottle-run/bottle/runtime"
	"github.com/bottle-run/bottle/runtime/fake"
	"github.com/bottle-run/bottle/runtime/faulty"
)

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestWhichVersionsHaveAFix(t *testing.T) {
	branches := []string{"1.2.8", "1.3.3", "1.4.0-rc.3"}
	for v, want := range map[string]bool{
		"1.1.5": false, "1.1.15": false, "1.2.7": false, "1.2.8": true, "1.2.10": true, "1.3.2": false, "1.3.3": true,
		"1.4.0-rc.2": false, "1.4.0-rc.3": true, "1.4.0": true, "1.5.0-rc.1": true, "2.0": true, "v1.2.8": true, "1.1.5+ds1-1+deb12u1": false,
		"1.3.3~ds1": true, "1.0.0-rc95": false, "0.1": false,
	} {
		parsed, ok := parseVersion(v)
		if !ok || parsed.fixed(branches) != want {
			t.Errorf("%s: %+v, %v; fixed %v, want %v", v, parsed, ok, parsed.fixed(branches), want)
		}
	}
	for _, v := range []string{"", "master", "release-20240101.0", "v", "1"} {
		if _, ok := parseVersion(v); ok {
			t.Errorf("%q is understood", v)
		}
	}
	if early, _ := parseVersion("1.0.0-rc6"); early.fixed([]string{"1.0.0-rc7"}) {
		t.Error("a release candidate before the fix has it")
	}
}

func TestEveryAdvisoryCanBeComparedAndHasASource(t *testing.T) {
	ids, names := map[string]bool{}, map[string]bool{}
	for _, p := range programs {
		if p.name == "" || names[p.name] {
			t.Errorf("the program %q has no name, or is there twice", p.name)
		}
		names[p.name] = true
		for _, a := range p.advisories {
			if !cve.MatchString(a.id) || ids[a.id] || a.what == "" || !strings.HasPrefix(a.source, "https://") || len(a.fixed) == 0 || !slices.Contains(severities, a.severity) {
				t.Errorf("%+v", a)
			}
			ids[a.id] = true
			last := version{}
			for _, f := range a.fixed {
				v, ok := parseVersion(f)
				if !ok || v.compare(last) <= 0 || !v.fixed(a.fixed) {
					t.Errorf("%s: fixed in %q", a.id, a.fixed)
				}
				last = v
			}
		}
	}
}

func TestVersionsOfDistributions(t *testing.T) {
	for v, want := range map[string]bool{
		"1.1.5+ds1-1+deb12u1": true, "20.10.24+dfsg1": true, "1.7.24-0ubuntu1~22.04.1": true, "4:4.9.4-1.el9": true, "1.14-1.fc39.x86_64": true, "1.6.20~ds1-1+deb12u3": true,
		"1.1.12": false, "27.1.1": false, "1.4.0-rc.3": false, "v2.1.5": false, "1.0.0-rc95": false,
	} {
		if isPackaged(v) != want {
			t.Errorf("%s: %v", v, !want)
		}
	}
}

func changelog(text string) *fstest.MapFile {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = z.Write([]byte(text))
	_ = z.Close()
	return &fstest.MapFile{Data: b.Bytes()}
}

func checks(list []Finding) []string {
	var names []string
	for _, f := range list {
		names = append(names, string(f.Severity)+" "+f.Check)
	}
	slices.Sort(names)
	return names
}

func TestAFixThatAPackagesChangelogNamesCounts(t *testing.T) {
	h := Host{Root: fstest.MapFS{"usr/share/doc/runc/changelog.Debian.gz": changelog("runc (1.1.5+ds1-1+deb12u1)\n  * CVE-2024-21626, CVE-2025-31133\n")}}
	packaged := []runtime.Component{{Name: "runc", Version: "1.1.5+ds1-1+deb12u1"}}
	if got, want := checks(h.escapes("e", packaged, true)), []string{"note known-escapes", "warning CVE-2025-52565", "warning CVE-2025-52881"}; !slices.Equal(got, want) {
		t.Errorf("here: %q", got)
	}
	// The host's changelogs say nothing about another machine.
	if got, want := checks(h.escapes("e", packaged, false)), []string{"warning CVE-2024-21626", "warning CVE-2025-31133", "warning CVE-2025-52565", "warning CVE-2025-52881"}; !slices.Equal(got, want) {
		t.Errorf("elsewhere: %q", got)
	}
	for _, f := range h.escapes("e", packaged, false) {
		if !strings.Contains(f.Text, "may be open") || !strings.Contains(f.Fix, "changelog") || f.Source == "" {
			t.Errorf("%+v", f)
		}
	}
	upstream := h.escapes("e", []runtime.Component{{Name: "runc", Version: "1.2.7"}, {Name: "crun", Version: "1.0"}, {Name: "runc", Version: "master"}}, true)
	if got, want := checks(upstream), []string{"note known-escapes", "problem CVE-2025-52565", "problem CVE-2025-52881"}; !slices.Equal(got, want) {
		// The changelog names CVE-2025-31133 for the package that is installed.
		if want := append(want, "note known-escapes"); len(got) != len(want) {
			t.Errorf("upstream: %q", got)
		}
	}
}

// host is one on which nothing is wrong; tests change it.
func host() (Host, fstest.MapFS) {
	text := func(s string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(s)} }
	root := fstest.MapFS{
		"proc/sys/kernel/osrelease":         text("6.1.0-18-amd64\n"),
		"proc/self/status":                  text("Name:\tx\nSeccomp:\t0\n"),
		"proc/filesystems":                  text("nodev\tproc\nnodev\toverlay\n"),
		"proc/sys/user/max_user_namespaces": text("9000\n"),
		"sys/fs/cgroup/cgroup.controllers":  text("cpu memory pids\n"),
		"sys/fs/cgroup/user.slice/user-1000.slice/user@1000.service/cgroup.controllers": text("cpu memory pids\n"),
		"run/systemd/system/x":      text(""),
		"var/lib/systemd/linger/me": text(""),
		"etc/subuid":                text("you:1:1\nme:100000:65536\n"),
		"etc/subgid":                text("1000:100000:65536\n"),
		"usr/bin/newuidmap":         text(""),
		"usr/bin/newgidmap":         text(""),
		"dev/net/tun":               {Mode: fs.ModeDevice | 0o666},
		"proc/net/route":            text("Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\nbr0\t0000D00A\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\neth0\t00000000\t0100000A\t0003\t0\t0\t0\t00000000\n"),
	}
	env := map[string]string{"XDG_RUNTIME_DIR": "/run/user/1000"}
	return Host{Root: root, UID: 1000, User: "me", LookupEnv: func(n string) (string, bool) { v, ok := env[n]; return v, ok }}, root
}

func TestWhatIsWrongWithAHost(t *testing.T) {
	set := func(name, content string) func(fstest.MapFS, *Host) {
		return func(root fstest.MapFS, _ *Host) { root[name] = &fstest.MapFile{Data: []byte(content)} }
	}
	remove := func(names ...string) func(fstest.MapFS, *Host) {
		return func(root fstest.MapFS, _ *Host) {
			for _, n := range names {
				delete(root, n)
			}
		}
	}
	for name, c := range map[string]struct {
		change func(fstest.MapFS, *Host)
		want   string
	}{
		"nothing":          {func(fstest.MapFS, *Host) {}, ""},
		"old kernel":       {set("proc/sys/kernel/osrelease", "5.4.0-1"), "problem kernel"},
		"no seccomp":       {set("proc/self/status", "Name:\tx\n"), "problem seccomp"},
		"no overlay":       {set("proc/filesystems", "nodev\tproc\n"), "warning overlay"},
		"bpf for everyone": {set("proc/sys/kernel/unprivileged_bpf_disabled", "0\n"), "note bpf"},
		"hybrid cgroups": {func(r fstest.MapFS, _ *Host) {
			delete(r, "sys/fs/cgroup/cgroup.controllers")
			r["sys/fs/cgroup/unified/cgroup.procs"] = &fstest.MapFile{}
		}, "warning cgroup-version"},
		"cgroup v1": {func(r fstest.MapFS, _ *Host) {
			delete(r, "sys/fs/cgroup/cgroup.controllers")
			r["sys/fs/cgroup/memory/tasks"] = &fstest.MapFile{}
		}, "warning cgroup-version"},
		"no subuids":           {set("etc/subuid", "you:100000:65536\n"), "problem subuid"},
		"few subgids":          {set("etc/subgid", "me:100000:1000\n"), "problem subgid"},
		"no subid files":       {remove("etc/subuid", "etc/subgid"), "problem subgid,problem subuid"},
		"no newuidmap":         {remove("usr/bin/newuidmap"), "problem uidmap"},
		"no tun":               {remove("dev/net/tun"), "problem dev-net-tun"},
		"tun of root's":        {func(r fstest.MapFS, _ *Host) { r["dev/net/tun"] = &fstest.MapFile{Mode: fs.ModeDevice | 0o600} }, "problem dev-net-tun"},
		"no user namespaces":   {set("proc/sys/user/max_user_namespaces", "0\n"), "problem user-namespaces"},
		"root's namespaces":    {set("proc/sys/kernel/unprivileged_userns_clone", "0\n"), "problem user-namespaces"},
		"AppArmor":             {set("proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1\n"), "warning user-namespaces"},
		"keys enough":          {set("proc/key-users", "    0:   900 9/9 900/1000 9/9\n 1000:   150 150/150 150/200 3000/20000\n"), ""},
		"keys nearly all":      {set("proc/key-users", " 1000:   190 190/190 190/200 3000/20000\n"), "warning keys"},
		"keys unreadable":      {set("proc/key-users", " 1000:   190 190/190\n"), ""},
		"no runtime directory": {func(_ fstest.MapFS, h *Host) { h.LookupEnv = func(string) (string, bool) { return "", false } }, "warning runtime-dir"},
		"no delegation":        {set("sys/fs/cgroup/user.slice/user-1000.slice/user@1000.service/cgroup.controllers", "pids\n"), "warning cgroup-delegation"},
		"no linger":            {remove("var/lib/systemd/linger/me"), "note linger"},
	} {
		h, root := host()
		c.change(root, &h)
		list := append(h.check(), h.rootless("e")...)
		if got := strings.Join(checks(list), ","); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
		for _, f := range list {
			if f.Fix == "" || f.Text == "" {
				t.Errorf("%s: %+v does not say what to do", name, f)
			}
		}
	}
}

func TestAKernelWithoutOpenat2IsAProblemThatSaysSo(t *testing.T) {
	for release, want := range map[string]bool{
		"3.10.0-1160.el7": true, "4.19.0-26-amd64": true, "5.5.19": true, "5.6.0": false, "5.10.0-28-amd64": false, "6.1.0": false,
		"what is this": false, // nothing is said about what is not understood
	} {
		h, root := host()
		root["proc/sys/kernel/osrelease"] = &fstest.MapFile{Data: []byte(release + "\n")}
		i := slices.IndexFunc(h.check(), func(f Finding) bool { return strings.Contains(f.Text, "openat2") })
		if found := i >= 0; found != want {
			t.Errorf("%s: found %v, want %v", release, found, want)
			continue
		}
		if want {
			if f := h.check()[i]; f.Severity != Problem || f.Check != "kernel" || !strings.Contains(f.Text, "files are copied safely") || !strings.Contains(f.Fix, "5.6") {
				t.Errorf("%s: %+v", release, f)
			}
		}
	}
}

func TestAnEngineThatIsInstalledAndDoesNotAnswerSaysWhatWasTried(t *testing.T) {
	broken := fake.New()
	silent := faulty.New(broken, faulty.MustParse(`ListContainers = fail unavailable "connection reset"`))
	r := Examine(t.Context(), options(t,
		driver{name: "shut", status: runtime.Status{Installed: true, Endpoint: "unix:///shut", Reason: "socket is shut", Fix: "open it"}},
		driver{name: "silent", engine: silent},
		driver{name: "absent", status: runtime.Status{Reason: "no program", Fix: "install it"}},
	))
	if r.Healthy() {
		t.Errorf("%+v", r)
	}
	for engine, want := range map[string]Finding{
		"shut":   {Severity: Warning, Text: "installed, and does not answer: socket is shut", Fix: "open it"},
		"silent": {Severity: Warning, Text: "connection reset"},
		"absent": {Severity: Note, Text: "not here: no program", Fix: "install it"},
	} {
		if !slices.ContainsFunc(r.Findings, func(f Finding) bool {
			return f.Engine == engine && f.Check == "engine" && f.Severity == want.Severity && strings.Contains(f.Text, want.Text) && f.Fix == want.Fix
		}) {
			t.Errorf("%s: %+v", engine, r.Findings)
		}
	}
	for i, e := range r.Engines {
		if e.Installed != (e.Name != "absent") || e.Healthy {
			t.Errorf("%d: %+v", i, e)
		}
	}
}

// driver opens an engine, or says why there is none.
type driver struct {
	name   string
	engine runtime.Runtime
	status runtime.Status
}

func (d driver) Name() string                                          { return d.name }
func (d driver) Probe(context.Context, runtime.Options) runtime.Status { return d.status }
func (d driver) Open(context.Context, runtime.Options) (runtime.Runtime, error) {
	if d.engine == nil {
		return nil, errors.New("no")
	}
	return unclosed{d.engine}, nil
}

// unclosed leaves the engine open for the next examination.
type unclosed struct{ runtime.Runtime }

func (unclosed) Close() error { return nil }

func options(t *testing.T, drivers ...runtime.Driver) Options {
	h, _ := host()
	return Options{Drivers: drivers, Host: h, Sessions: filepath.Join(t.TempDir(), "none"), System: session.ThisSystem(), Now: func() time.Time { return time.Now().Add(time.Hour) }}
}

func TestEnginesOfEveryKind(t *testing.T) {
	good := fake.New()
	good.SetInfo(func(i *runtime.Info) {
		i.Rootless, i.Endpoint, i.StorageDriver = true, "unix:///x", "vfs"
		i.Warnings = []string{"mind the gap"}
		i.Components = []runtime.Component{{Name: "runc", Version: "1.1.11"}}
		i.Missing[runtime.FeatureMemoryLimit] = "why not"
	})
	r := Examine(t.Context(), options(t,
		driver{name: "good", engine: good},
		driver{name: "broken", status: runtime.Status{Installed: true, Reason: "socket is shut", Fix: "open it"}},
		driver{name: "absent", status: runtime.Status{Reason: "no program"}},
	))
	if !r.Healthy() || r.Worst != Problem || len(r.Engines) != 3 || !r.Engines[0].Healthy || r.Engines[1].Healthy || !r.Engines[1].Installed || r.Engines[2].Installed {
		t.Errorf("%+v", r)
	}
	got := checks(r.Findings)
	for _, want := range []string{"problem CVE-2024-21626", "problem CVE-2025-31133", "warning storage-driver", "warning memory-limit", "note engine-warning", "warning engine", "note engine"} {
		if !slices.Contains(got, want) {
			t.Errorf("no %s in %q", want, got)
		}
	}
	if r.Findings[0].Severity != Problem || r.Findings[len(r.Findings)-1].Severity != Note {
		t.Error("the worst does not come first")
	}
	// The pool overlaps a route of the host's, 10.208.0.0/16.
	if !slices.ContainsFunc(r.Findings, func(f Finding) bool {
		return f.Check == "address-pool" && strings.Contains(f.Text, "10.208.0.0/16 by br0")
	}) {
		t.Errorf("the route is not told: %q", got)
	}
	if _, err := json.Marshal(r); err != nil {
		t.Error(err)
	}
	if none := Examine(t.Context(), options(t, driver{name: "absent"})); none.Healthy() {
		t.Error("an engine that is not there is healthy")
	}
}

func TestLeftoversAndManyContainers(t *testing.T) {
	engine := fake.New()
	engine.AddImage("img", runtime.ImageConfig{}, nil, nil)
	engine.Handle("p", func(ctx context.Context, _ *fake.Process) int { <-ctx.Done(); return 0 })
	labels := func(i int, role string) map[string]string {
		return map[string]string{core.LabelLaunch: fmt.Sprintf("%016x", i), core.LabelBottle: fmt.Sprintf("b%d", i), core.LabelRole: role}
	}
	for i := range 250 {
		_, err := engine.Run(t.Context(), runtime.ContainerSpec{Name: fmt.Sprintf("c%d", i), Image: "img", Entrypoint: []string{"p"}, Labels: labels(i, core.RoleAgent)})
		check(t, err)
	}
	_, err := engine.CreateNetwork(t.Context(), runtime.NetworkSpec{Name: "bottle-b999.internal", Internal: true, Labels: labels(999, core.RoleInternal)})
	check(t, err)
	opts := options(t, driver{name: "e", engine: engine})
	before, err := engine.Inventory(t.Context())
	check(t, err)
	calls := len(engine.Calls())
	begun := time.Now()
	r := Examine(t.Context(), opts)
	if took := time.Since(begun); took > time.Second {
		t.Errorf("it took %v", took)
	}
	if n := len(engine.Calls()) - calls; n != 2 {
		t.Errorf("%d calls, whose number must not grow with the containers: %+v", n, engine.Calls()[calls:])
	}
	after, err := engine.Inventory(t.Context())
	check(t, err)
	if fmt.Sprint(before) != fmt.Sprint(after) {
		t.Error("the engine was changed")
	}
	if r.Engines[0].Bottles != 250 || r.Engines[0].Networks != 1 {
		t.Errorf("%+v", r.Engines[0])
	}
	left := func(r Report) (f Finding) {
		for _, f := range r.Findings {
			if f.Check == "leftovers" {
				return f
			}
		}
		return f
	}
	if f := left(r); f.Severity != Warning || !strings.Contains(f.Text, "network bottle-b999.internal") || f.Fix != "bottle rm b999 --runtime e" {
		t.Errorf("%+v", f)
	}
	opts.Now = time.Now
	if f := left(Examine(t.Context(), opts)); f.Severity != Note {
		t.Errorf("what may be a launch: %+v", f)
	}
}

func TestAPoolThatIsNearlyUsedUp(t *testing.T) {
	engine := fake.New()
	opts := options(t, driver{name: "e", engine: engine})
	opts.Engines.SubnetPool = runtime.DefaultSubnetPool
	opts.Engines.SubnetPool, _ = opts.Engines.SubnetPool.Addr().Prefix(24) // 8 networks
	for i := range 7 {
		subnet, err := opts.Engines.SubnetPool.Addr().Prefix(27)
		check(t, err)
		a := subnet.Addr().As4()
		a[3] = byte(32 * i)
		_, err = engine.CreateNetwork(t.Context(), runtime.NetworkSpec{Name: fmt.Sprintf("n%d", i), Subnet: prefix27(a)})
		check(t, err)
	}
	r := Examine(t.Context(), opts)
	if !slices.ContainsFunc(r.Findings, func(f Finding) bool {
		return f.Check == "address-pool" && f.Severity == Warning && strings.Contains(f.Text, "7 of 8")
	}) {
		t.Errorf("%+v", r.Findings)
	}
}

func TestRecordsOfDeadOwners(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "sessions")
	store, err := session.Open(dir, session.ThisSystem())
	check(t, err)
	s, err := store.Begin(session.Record{Launch: "00000000000000aa", Bottle: "lost", Engine: "e", Label: core.LabelLaunch})
	check(t, err)
	check(t, s.Update(func(r *session.Record) { r.Owner.Start = "1" }))
	s.Release()
	check(t, os.WriteFile(filepath.Join(dir, "00000000000000bb.json"), []byte("{"), 0o600))
	opts := options(t, driver{name: "e", engine: fake.New()})
	opts.Sessions = dir
	var texts []string
	for _, f := range Examine(t.Context(), opts).Findings {
		if f.Check == "sessions" && f.Severity == Warning {
			texts = append(texts, f.Text)
		}
	}
	slices.Sort(texts)
	if len(texts) != 2 || !strings.Contains(texts[0], "00000000000000bb.json") || !strings.Contains(texts[1], "bottle lost") || !strings.Contains(texts[1], "nothing of it is left") {
		t.Errorf("%q", texts)
	}
}

func prefix27(a [4]byte) netip.Prefix { return netip.PrefixFrom(netip.AddrFrom4(a), 27) }

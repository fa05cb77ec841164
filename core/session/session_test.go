package session

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

const launch = "00112233445566aa"

func record(id string) Record {
	return Record{
		Launch: id, Bottle: "coder", Agent: "coder", Manifest: "/p/bottle.yaml", Engine: "engine", Endpoint: "unix:///x", Label: "dev.bottle.launch",
		Containers: []string{"bottle-coder"}, Networks: []string{"bottle-coder.internal"}, Created: time.Unix(1e9, 0).UTC(),
	}
}

func open(t *testing.T) *Store {
	t.Helper()
	s, err := Open(filepath.Join(t.TempDir(), "state", "bottle", "sessions"), ThisSystem())
	check(t, err)
	return s
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func begin(t *testing.T, s *Store, id string) *Session {
	t.Helper()
	session, err := s.Begin(record(id))
	check(t, err)
	return session
}

func files(t *testing.T, s *Store) []string {
	t.Helper()
	list, err := os.ReadDir(s.dir)
	check(t, err)
	names := []string{}
	for _, f := range list {
		names = append(names, f.Name())
	}
	return names
}

func TestARecordIsWrittenReadChangedAndRemoved(t *testing.T) {
	s := open(t)
	session := begin(t, s, launch)
	e, err := s.Load(launch)
	check(t, err)
	if e.Record.Owner.PID != os.Getpid() || e.Record.Phase != PhaseLaunching || e.Owner != Alive || e.Record.Bottle != "coder" || e.Abandoned() {
		t.Errorf("%+v", e)
	}
	check(t, session.Update(func(r *Record) { r.Phase = PhaseRunning; r.Containers = append(r.Containers, "bottle-coder.firewall") }))
	list, err := s.List()
	check(t, err)
	if len(list) != 1 || list[0].Record.Phase != PhaseRunning || !slices.Equal(list[0].Record.Containers, []string{"bottle-coder", "bottle-coder.firewall"}) {
		t.Errorf("%+v", list)
	}
	for _, name := range append(files(t, s), ".") {
		info, err := os.Stat(filepath.Join(s.dir, name))
		check(t, err)
		if info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", name, info.Mode())
		}
	}
	if err := session.Update(func(r *Record) { r.Launch = "ffffffffffffffff" }); err == nil {
		t.Error("the launch was changed")
	}
	check(t, session.Remove())
	if left := files(t, s); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
	if err := session.Update(func(*Record) {}); err == nil {
		t.Error("a session that is over was changed")
	}
	if _, err := s.Load(launch); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func TestOneLaunchHasOneRecord(t *testing.T) {
	s := open(t)
	session := begin(t, s, launch)
	if _, err := s.Begin(record(launch)); err == nil {
		t.Error("begun twice")
	}
	session.Release()
	if _, err := s.Begin(record(launch)); !errors.Is(err, fs.ErrExist) {
		t.Errorf("got %v", err)
	}
}

// TestMain lets the test be a process that owns a bottle, too.
func TestMain(m *testing.M) {
	if dir := os.Getenv("BOTTLE_TEST_SESSION"); dir != "" {
		s, err := Open(dir, ThisSystem())
		if err == nil {
			_, err = s.Begin(record(launch))
		}
		fmt.Println("begun", err)
		_, _ = os.Stdin.Read(make([]byte, 1)) // until it is killed
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func TestTheSessionOfAKilledProcessIsTakenByExactlyOne(t *testing.T) {
	s := open(t)
	exe, err := os.Executable()
	check(t, err)
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), "BOTTLE_TEST_SESSION="+s.dir)
	in, err := cmd.StdinPipe()
	check(t, err)
	defer func() { _ = in.Close() }()
	out, err := cmd.StdoutPipe()
	check(t, err)
	check(t, cmd.Start())
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || !strings.Contains(line, "begun <nil>") {
		t.Fatalf("%q, %v", line, err)
	}
	if _, err := s.Take(launch); !errors.Is(err, ErrAlive) {
		t.Errorf("the session of a living process was taken: %v", err)
	}
	if list, err := s.List(); err != nil || len(list) != 1 || list[0].Owner != Alive {
		t.Errorf("%+v, %v", list, err)
	}
	check(t, cmd.Process.Kill())
	_ = cmd.Wait()
	list, err := s.List()
	if err != nil || len(list) != 1 || !list[0].Abandoned() {
		t.Errorf("%+v, %v", list, err)
	}
	var wg sync.WaitGroup
	taken := make(chan *Session, 20)
	for range 20 {
		wg.Go(func() {
			if session, err := s.Take(launch); err == nil {
				taken <- session
			} else if !errors.Is(err, ErrAlive) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if len(taken) != 1 {
		t.Fatalf("it was taken %d times", len(taken))
	}
	check(t, (<-taken).Remove())
	if left := files(t, s); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}

func TestADetachedBottleIsNobodysLeftover(t *testing.T) {
	s := open(t)
	check(t, begin(t, s, launch).Detach())
	e, err := s.Load(launch)
	check(t, err)
	if !e.Record.Detached || e.Abandoned() {
		t.Errorf("%+v", e)
	}
	// Whoever ends it takes it first.
	session, err := s.Take(launch)
	check(t, err)
	check(t, session.Remove())
}

func TestOnlyTheHeirOfADeadOwnerInherits(t *testing.T) {
	s := open(t)
	session := begin(t, s, launch)
	owner := session.Record().Owner
	if _, err := s.Inherit(launch, owner); !errors.Is(err, ErrAlive) {
		t.Errorf("while its owner holds it: %v", err)
	}
	session.Release()
	other := owner
	other.Start += "1"
	if _, err := s.Inherit(launch, other); !errors.Is(err, ErrAlive) {
		t.Errorf("that of another: %v", err)
	}
	heir, err := s.Inherit(launch, owner)
	check(t, err)
	check(t, heir.Detach())
	if _, err := s.Inherit(launch, owner); !errors.Is(err, ErrDetached) {
		t.Errorf("that of a detached bottle: %v", err)
	}
	// Who removes a detached bottle owns it: when that process dies, it is abandoned.
	taken, err := s.Take(launch)
	check(t, err)
	check(t, taken.Own())
	if r := taken.Record(); r.Detached || r.Phase != PhaseClosing || r.Owner.PID != os.Getpid() {
		t.Errorf("%+v", r)
	}
	check(t, taken.Remove())
}

func TestAProcessReadsWhatItWrote(t *testing.T) {
	self := ThisSystem().Self()
	if got, err := ParseProcess(self.String()); err != nil || got != self {
		t.Errorf("%+v, %v", got, err)
	}
	for _, text := range []string{"", "{}", `{"pid":-1}`, "[]", `{"pid":1}` + strings.Repeat(" ", maxProcess)} {
		if p, err := ParseProcess(text); err == nil || p != (Process{}) {
			t.Errorf("%.20q: %+v", text, p)
		}
	}
}

func FuzzParseProcess(f *testing.F) {
	f.Add(Process{PID: 1, Host: "h"}.String())
	f.Fuzz(func(t *testing.T, text string) {
		p, err := ParseProcess(text)
		if err != nil {
			return
		}
		if again, err := ParseProcess(p.String()); err != nil || again != p {
			t.Errorf("%q: %+v, then %+v, %v", text, p, again, err)
		}
	})
}

func TestRecordsThatCannotBeUsedAreNamedAndHideNoOther(t *testing.T) {
	s := open(t)
	good := begin(t, s, launch)
	whole, err := os.ReadFile(s.path(launch, recordExt))
	check(t, err)
	newer, err := json.Marshal(map[string]any{"version": Version + 1, "launch": 7})
	check(t, err)
	bad := map[string][]byte{
		"aaaaaaaaaaaaaaa1.json": whole[:len(whole)/2],
		"aaaaaaaaaaaaaaa2.json": nil,
		"aaaaaaaaaaaaaaa3.json": newer,
		"aaaaaaaaaaaaaaa4.json": whole, // another launch's
		"aaaaaaaaaaaaaaa5.json": []byte(`{"version":1,"launch":"aaaaaaaaaaaaaaa5"}`),
		"aaaaaaaaaaaaaaa6.json": []byte(strings.Repeat(" ", maxRecord+2)),
		"no launch.json":        whole,
	}
	for name, content := range bad {
		check(t, os.WriteFile(filepath.Join(s.dir, name), content, 0o600))
	}
	check(t, os.Symlink(s.path(launch, recordExt), filepath.Join(s.dir, "aaaaaaaaaaaaaaa7.json")))
	check(t, os.Mkdir(filepath.Join(s.dir, "aaaaaaaaaaaaaaa8.json"), 0o700))
	list, err := s.List()
	check(t, err)
	if len(list) != len(bad)+3 || list[0].Err != nil || list[0].Record.Launch != launch {
		t.Fatalf("%d entries, the first is %+v", len(list), list[0])
	}
	for _, e := range list[1:] {
		if e.Err == nil || !strings.Contains(e.Err.Error(), e.File) || e.Abandoned() {
			t.Errorf("%+v", e)
		}
		if strings.Contains(e.File, "aaa3") != errors.Is(e.Err, ErrNewer) {
			t.Errorf("%s: %v", e.File, e.Err)
		}
		if _, err := s.Take(strings.TrimSuffix(filepath.Base(e.File), recordExt)); err == nil {
			t.Errorf("%s was taken", e.File)
		}
	}
	if err := s.Discard(list[0]); err == nil {
		t.Error("a good record was discarded")
	}
	check(t, s.Discard(list[1]))
	check(t, good.Remove())
}

func TestWhatAProcessLeftBetweenLockAndRecordIsTidied(t *testing.T) {
	s := open(t)
	mine := begin(t, s, launch)
	for _, name := range []string{"bbbbbbbbbbbbbbb1.lock", "bbbbbbbbbbbbbbb2.tmp", launch + ".tmp", "else.txt"} {
		check(t, os.WriteFile(filepath.Join(s.dir, name), []byte("x"), 0o600))
	}
	busy, err := lock(filepath.Join(s.dir, "bbbbbbbbbbbbbbb3.lock"))
	check(t, err)
	held, err := s.Tidy()
	check(t, err)
	if held != 1 {
		t.Errorf("%d locks are held, and one is", held)
	}
	if want := []string{launch + ".json", launch + ".lock", launch + ".tmp", "bbbbbbbbbbbbbbb3.lock", "else.txt"}; !slices.Equal(files(t, s), want) {
		t.Errorf("there is %q", files(t, s))
	}
	_ = busy.Close()
	check(t, mine.Update(func(r *Record) { r.Phase = PhaseClosing })) // over what a crash left
	check(t, mine.Remove())
}

func TestBeginOutwaitsWhoTidiesUp(t *testing.T) {
	s := open(t)
	r := record("dddddddddddddddd")
	held, err := lock(s.path(r.Launch, lockExt))
	check(t, err)
	time.AfterFunc(20*time.Millisecond, func() { _ = held.Close() })
	mine, err := s.Begin(r)
	check(t, err)
	check(t, mine.Remove())
}

func TestDirectoriesThatOthersCouldChangeAreRefused(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "s")
	if _, err := At(dir, ThisSystem()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	check(t, os.Mkdir(dir, 0o700))
	check(t, os.Chmod(dir, 0o777))
	if _, err := Open(dir, ThisSystem()); err == nil || !strings.Contains(err.Error(), "chmod 700") {
		t.Errorf("got %v", err)
	}
	link := dir + "-link"
	check(t, os.Symlink(dir, link))
	if _, err := Open(link, ThisSystem()); err == nil {
		t.Error("a symbolic link was accepted")
	}
	file := dir + "-file"
	check(t, os.WriteFile(file, nil, 0o600))
	if _, err := Open(filepath.Join(file, "x"), ThisSystem()); err == nil {
		t.Error("a directory below a file was made")
	}
	if _, err := Open("relative", ThisSystem()); err == nil {
		t.Error("a relative directory was accepted")
	}
}

func TestWhereTheDirectoryIs(t *testing.T) {
	for _, c := range []struct{ state, home, want string }{
		{"/s", "/h", "/s/bottle/sessions"}, {"", "/h", "/h/.local/state/bottle/sessions"}, {"rel", "/h", "/h/.local/state/bottle/sessions"}, {"", "", ""},
	} {
		got, err := Dir(func(string) (string, bool) { return c.state, c.state != "" }, c.home)
		if got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%+v: %q, %v", c, got, err)
		}
	}
}

func TestWhetherAProcessLives(t *testing.T) {
	sys := ThisSystem()
	self := sys.Self()
	with := func(change func(*Process)) Process { p := self; change(&p); return p }
	for name, c := range map[string]struct {
		p    Process
		want Life
	}{
		"this one":                         {self, Alive},
		"its number was given out again":   {with(func(p *Process) { p.Start = "1" }), Dead},
		"no such number":                   {with(func(p *Process) { p.PID = 1 << 30 }), Dead},
		"before the machine was restarted": {with(func(p *Process) { p.Boot = "x" }), Dead},
		"on another machine":               {with(func(p *Process) { p.Boot, p.Host = "x", "elsewhere" }), Unknown},
		"in another namespace":             {with(func(p *Process) { p.Namespace = "pid:[1]" }), Unknown},
		"start unknown":                    {with(func(p *Process) { p.Start = "" }), Unknown},
	} {
		if got := sys.Life(c.p); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
	// A zombie is no owner, whatever its program is called.
	root := t.TempDir()
	dir := filepath.Join(root, "7")
	check(t, os.MkdirAll(dir, 0o700))
	for state, want := range map[string]Life{"S": Alive, "Z": Dead} {
		check(t, os.WriteFile(filepath.Join(dir, "stat"), []byte("7 (a) Z (b) "+state+strings.Repeat(" 0", 18)+" 55 0\n"), 0o600))
		check(t, os.MkdirAll(filepath.Join(root, "sys/kernel/random"), 0o700))
		check(t, os.WriteFile(filepath.Join(root, "sys/kernel/random/boot_id"), []byte("b\n"), 0o600))
		fake := System{Proc: root, Hostname: func() (string, error) { return "h", nil }}
		if got := fake.Life(Process{PID: 7, Start: "55", Boot: "b", Host: "h"}); got != want {
			t.Errorf("state %s: %s, want %s", state, got, want)
		}
	}
}

func FuzzDecode(f *testing.F) {
	whole, err := json.Marshal(Record{Version: 1, Launch: launch, Engine: "e", Label: "l", Phase: PhaseRunning, Owner: Process{PID: 1}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Add([]byte(`{"version":2}`))
	f.Add([]byte("null"))
	f.Fuzz(func(t *testing.T, content []byte) {
		r, err := decode(content)
		if err == nil && r.check() != nil {
			t.Errorf("%q: %v", content, r.check())
		}
	})
}

func TestAWriteThatFailsKeepsTheOldRecord(t *testing.T) {
	s := open(t)
	session := begin(t, s, launch)
	check(t, os.MkdirAll(filepath.Join(s.path(launch, tempExt), "in-the-way"), 0o700))
	if err := session.Update(func(r *Record) { r.Phase = PhaseClosing }); err == nil || !strings.Contains(err.Error(), "write the record of bottle coder") {
		t.Errorf("got %v", err)
	}
	if e, err := s.Load(launch); err != nil || e.Record.Phase != PhaseLaunching || session.Record().Phase != PhaseLaunching {
		t.Errorf("%+v, %v", e, err)
	}
	for _, err := range []error{fs.ErrPermission, fmt.Errorf("x: %w", os.ErrPermission)} {
		if !strings.Contains(advice(err), "XDG_STATE_HOME") {
			t.Errorf("%v: no advice", err)
		}
	}
}

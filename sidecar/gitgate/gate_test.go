package gitgate

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bottle-run/bottle/sidecar/config"
	"github.com/bottle-run/bottle/sidecar/gitgate/internal/pktline"
	"github.com/bottle-run/bottle/sidecar/secrets"
)

func TestRealURLs(t *testing.T) {
	w := newWorld(t)
	w.bare("lib")
	w.bare("main")
	repos := []config.GitRepository{w.repositories("lib", everything)[0], w.repositories("main", everything)[1]}
	repos[0].Name, repos[1].Name = "lib", "main"
	g := w.gate(repos, nil)
	// What core would write into the agent's gitconfig.
	f, err := os.OpenFile(filepath.Join(w.home, ".gitconfig"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	host := strings.TrimPrefix(w.urls["ssh"], "ssh://robot@")
	fmt.Fprintf(f, "[url %q]\ninsteadOf = %s/lib.git\n", g.url("lib"), w.urls["https"])
	fmt.Fprintf(f, "[url %q]\ninsteadOf = %s/main.git\ninsteadOf = robot@%s:main.git\n", g.url("main"), w.urls["ssh"], "real.example")
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	work := filepath.Join(t.TempDir(), "work")
	w.git("", "clone", "-q", "robot@real.example:main.git", work)
	w.git(work, "submodule", "add", "-q", w.urls["https"]+"/lib.git", "lib")
	w.git(work, "commit", "-qm", "a submodule")
	w.git(work, "push", "-q")
	again := filepath.Join(t.TempDir(), "again")
	w.git("", "clone", "-q", "--recurse-submodules", "ssh://robot@"+host+"/main.git", again)
	if _, err := os.Stat(filepath.Join(again, "lib", "dir", "file2")); err != nil {
		t.Errorf("the submodule: %v", err)
	}
	w.commit(again, "pulled", "x", "m")
	w.git(again, "push", "-q")
	w.git(work, "pull", "-q")
	if _, err := os.Stat(filepath.Join(work, "pulled")); err != nil {
		t.Errorf("pulled: %v", err)
	}
}

func TestPartialClones(t *testing.T) {
	w := newWorld(t)
	w.bare("partial")
	repos := w.repositories("partial", everything)
	for i := range repos {
		repos[i].AnyObject = true
	}
	g := w.gate(repos, nil)
	for _, kind := range protocols {
		for _, filter := range []string{"blob:none", "tree:0", "blob:limit=10"} {
			work := g.clone(kind, "--filter="+filter)
			if kind == "file" && filter == "tree:0" {
				w.commit(work, "x", "x", "from a partial clone")
				w.git(work, "push", "-q")
			}
			if _, err := os.Stat(filepath.Join(work, "dir", "file2")); err != nil {
				t.Errorf("%s %s: %v", kind, filter, err)
			}
			w.git(work, "log", "-p") // fetches what is missing
		}
	}
	// Where it is not allowed a partial clone is a whole one.
	g = w.gate(w.repositories("partial", nil), nil)
	work := g.clone("https", "--filter=blob:none")
	if out := w.git(work, "rev-list", "--objects", "--all", "--missing=print"); strings.Contains(out, "?") {
		t.Errorf("objects are missing: %s", out)
	}
}

func TestUpstreamsThatRefuse(t *testing.T) {
	w := newWorld(t)
	w.bare("refuse")
	https, ssh := w.repositories("refuse", everything)[0], w.repositories("refuse", everything)[1]
	with := func(r config.GitRepository, name string, change func(*config.GitRepository)) config.GitRepository {
		r.Name = name
		c := *r.Credential
		r.Credential = &c
		change(&r)
		return r
	}
	other, _ := newKey(t)
	g := w.gate([]config.GitRepository{
		with(https, "bearer", func(r *config.GitRepository) {
			r.Credential.Kind, r.Credential.Username = config.GitBearer, ""
		}),
		with(https, "wrong", func(r *config.GitRepository) { r.Credential.Secret = "canary" }),
		with(https, "missing", func(r *config.GitRepository) { r.URL = w.urls["https"] + "/missing.git" }),
		with(https, "moved", func(r *config.GitRepository) { r.URL = w.urls["https"] + "/moved/refuse.git" }),
		with(https, "away", func(r *config.GitRepository) { r.URL = w.urls["https"] + "/away/refuse.git" }),
		with(https, "guarded", func(r *config.GitRepository) { r.URL = "https://127.1.2.3/x.git" }),
		with(ssh, "imposter", func(r *config.GitRepository) {
			host, _, _ := strings.Cut(w.keys[0], " ")
			r.KnownHosts = []string{host + " ssh-ed25519 " + base64.StdEncoding.EncodeToString(other.PublicKey().Marshal())}
		}),
		with(ssh, "sshmissing", func(r *config.GitRepository) { r.URL = w.urls["ssh"] + "/missing.git" }),
		{Name: "gitmissing", URL: w.urls["git"] + "/missing.git"},
		{Name: "filemissing", URL: "file://" + w.root + "/missing.git"},
		{Name: "meta", URL: "git://169.254.169.254/x.git"},
	}, func(c *config.GitGate) { c.Guard.AllowCIDRs = c.Guard.AllowCIDRs[:0] })
	// Nothing of the host may be dialled.
	for _, name := range []string{"bearer", "imposter", "gitmissing", "meta", "guarded"} {
		if out, err := w.try("", "ls-remote", g.url(name)); err == nil || !strings.Contains(out, "which may not be dialled") {
			t.Errorf("%s: %v %s", name, err, out)
		}
	}
	if err := json.Unmarshal([]byte(`["127.0.0.0/8"]`), &g.config.Guard.AllowCIDRs); err != nil {
		t.Fatal(err)
	}
	g.put()
	if err := g.Reload(); err != nil {
		t.Fatal(err)
	}
	for name, says := range map[string]string{
		"wrong": "does not accept the credential of the gate", "missing": "no such repository", "away": "https://elsewhere.test/away/refuse.git, where the gate does not follow",
		"imposter": "does not present a key that known_hosts has", "sshmissing": "missing.git", "gitmissing": "access denied or repository not exported", "filemissing": "missing.git",
	} {
		out, err := w.try("", "ls-remote", g.url(name))
		if err == nil || !strings.Contains(out, says) || strings.Contains(out, password) {
			t.Errorf("%s: %v %s; want %q", name, err, out, says)
		}
	}
	for _, name := range []string{"bearer", "moved"} {
		work := g.clone(name)
		w.commit(work, name, "x", "m")
		w.git(work, "push", "-q")
	}
}

func TestReadiness(t *testing.T) {
	w := newWorld(t)
	w.bare("ready")
	g := w.gate(w.repositories("ready", everything), nil)
	if err := g.Health(); err != nil {
		t.Errorf("ready: %v", err)
	}
	path := filepath.Join(g.dir, "secrets")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := g.Reload(); err != nil {
		t.Fatal(err)
	}
	if err := g.Health(); err == nil || !strings.Contains(err.Error(), "key, password") {
		t.Errorf("without secrets: %v", err)
	}
	if out, err := w.try("", "ls-remote", g.url("git")); err == nil || !strings.Contains(out, "waiting for the secrets key, password") {
		t.Errorf("without secrets: %v %s", err, out)
	}
	put := func(key string) error {
		set, err := json.Marshal(map[string]any{"secrets": []secrets.Secret{{Name: "password", Value: password}, {Name: "key", Value: secrets.Value(key)}}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := secrets.Put(path, strings.NewReader(string(set))); err != nil {
			t.Fatal(err)
		}
		return g.Reload()
	}
	for _, key := range []string{"no base64!", base64.StdEncoding.EncodeToString([]byte("no key at all"))} {
		if err := put(key); err == nil || strings.Contains(err.Error(), key) {
			t.Errorf("a bad key: %v", err)
		}
	}
	if err := put(w.key); err != nil {
		t.Fatal(err)
	}
	w.git("", "ls-remote", g.url("ssh"))
	g.config.Agent = "another"
	g.put()
	if err := g.Reload(); err == nil {
		t.Error("the agent's name was changed")
	}
	fresh := New(filepath.Join(t.TempDir(), "none"), "", g.Gate.log, nil)
	if err := fresh.Health(); err == nil || fresh.Policy() != nil || fresh.Test("fetch", "git://x/y").Rule != "not-ready" || fresh.Reload() == nil || fresh.Serve(nil) == nil {
		t.Errorf("without a configuration: %v", err)
	}
}

func TestLimits(t *testing.T) {
	w := newWorld(t)
	w.bare("limits")
	g := w.gate(w.repositories("limits", everything), func(c *config.GitGate) {
		c.Limits.Connections, c.Limits.RequestTimeout, c.Limits.ObjectBytes, c.Limits.PackBytes, c.Limits.Objects = 1, config.Duration(300*time.Millisecond), 50_000, 200_000, 200
	})
	conn, err := net.Dial("tcp", g.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	// There is one place, and it is taken until its request is late. Connections are accepted
	// in turn: the second is told.
	if out := g.dial(); !strings.Contains(out, "too many connections") {
		t.Errorf("a second connection: %q", out)
	}
	if b, err := io.ReadAll(conn); err != nil || !strings.Contains(string(b), "ERR bottle: reading the request") {
		t.Errorf("a request that does not come: %q, %v", b, err)
	}
	_ = conn.Close()
	work := filepath.Join(t.TempDir(), "work")
	for { // until the place is free again
		if out, err := w.try("", "clone", "-q", g.url("git"), work); err == nil {
			break
		} else if !strings.Contains(out, "too many connections") {
			t.Fatalf("%v %s", err, out)
		}
	}
	try := func() (string, error) {
		for {
			out, err := w.try(work, "push", "origin", "main")
			if !strings.Contains(out, "too many connections") {
				return out, err
			}
		}
	}
	w.commit(work, "big", strings.Repeat("0123456789", 6_000), "a large object")
	if out, err := try(); err == nil || !strings.Contains(out, "an object of 60000 bytes is in the pack, more than 50000") {
		t.Errorf("a large object: %v %s", err, out)
	}
	w.git(work, "reset", "-q", "--hard", "HEAD~1")
	for i := range 70 {
		w.commit(work, "small", fmt.Sprint(i), "m")
	}
	if out, err := try(); err == nil || !strings.Contains(out, "objects, more than 200") {
		t.Errorf("many objects: %v %s", err, out)
	}
}

// TestKilledInTheMiddle kills the gate while it takes a push in, and while it passes it on.
func TestKilledInTheMiddle(t *testing.T) {
	w := newWorld(t)
	dir := w.bare("killed")
	before := w.git(dir, "for-each-ref")
	// An upstream that stops reading in the middle of a push.
	reached := make(chan struct{})
	var once sync.Once
	slow := w.accept(func(c net.Conn) {
		up, err := net.Dial("tcp", strings.TrimPrefix(w.urls["git"], "git://"))
		if err != nil {
			return
		}
		defer func() { _ = up.Close() }()
		go func() { _, _ = io.Copy(c, up) }()
		if _, err := io.CopyN(up, c, 20_000); err != nil {
			return
		}
		once.Do(func() { close(reached) })
		_, _ = io.Copy(io.Discard, c) // until the gate is gone
	})
	work := filepath.Join(t.TempDir(), "work")
	w.git("", "clone", "-q", dir, work)
	noise := make([]byte, 2<<20)
	for i := range noise {
		noise[i] = byte(i*i>>7 ^ i>>11*31)
	}
	w.commit(work, "noise", string(noise), "m")
	w.git(work, "config", "core.compression", "0")

	addr, gate := w.spawn(config.GitGate{Repositories: []config.GitRepository{{Name: "killed", URL: "git://" + slow + "/killed.git", Push: everything}}})
	done := make(chan string, 1)
	go func() {
		out, err := w.try(work, "push", "git://"+addr+"/killed.git", "main")
		done <- fmt.Sprint(out, err)
	}()
	<-reached
	if err := gate.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if out := <-done; !strings.Contains(out, "the remote end hung up unexpectedly") || !strings.Contains(out, "exit status") {
		t.Errorf("the client says: %s", out)
	}

	addr, gate = w.spawn(config.GitGate{Repositories: []config.GitRepository{{Name: "killed", URL: w.urls["git"] + "/killed.git", Push: everything}}})
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	head, old := w.git(work, "rev-parse", "HEAD"), w.git(dir, "rev-parse", "main")
	pack := w.gitIn(work, head+"\n^"+old+"\n", "pack-objects", "--revs", "--stdout", "-q")
	_, _ = conn.Write([]byte(line("git-receive-pack /killed.git\x00host=x\x00")))
	r := pktline.NewReader(conn)
	for {
		p, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		if p.Kind == pktline.Flush {
			break
		}
	}
	_, _ = conn.Write([]byte(line(old+" "+head+" refs/heads/main\x00 report-status side-band-64k") + "0000" + pack[:len(pack)/2]))
	if err := gate.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(conn); err == nil && len(rest) > 0 {
		t.Errorf("it answers: %q", rest)
	}
	if after := w.git(dir, "for-each-ref"); after != before {
		t.Errorf("the upstream has changed: %s", after)
	}
	if out, err := w.try(dir, "cat-file", "-e", head); err == nil {
		t.Errorf("the upstream has the commit %s", out)
	}
	w.git(dir, "fsck", "--strict")
}

func TestShutdownEndsWhatIsUnderWay(t *testing.T) {
	w := newWorld(t)
	w.bare("ending")
	g := w.gate(w.repositories("ending", everything), nil)
	conn, err := net.Dial("tcp", g.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_, _ = conn.Write([]byte(line("git-upload-pack /ssh.git\x00host=x\x00\x00version=2\x00")))
	if _, err := pktline.NewReader(conn).Next(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := g.Shutdown(ctx); err != nil {
		t.Fatal(err)
	}
	if log := g.said.String(); !strings.Contains(log, `"method":"fetch"`) {
		t.Errorf("the audit log: %s", log)
	}
}

func TestModules(t *testing.T) {
	for text, want := range map[string]string{
		"[submodule \"a\"]\n\tpath = a\n\turl = https://example.com/a.git\n": "",
		"[submodule \"a\"]\n\turl = ../a.git # https://x:y@z\n":              "",
		"[submodule \"a\"]\n\turl = git@example.com:a.git\n":                 "",
		"[submodule \"a\"]\n\turl = https://me@example.com/a.git\n":          "",
		"[submodule \"a\"]\n\turl = \"https://x:y@example.com/a\"\n":         "2 holds a password",
		"[submodule \"a\"]\n\tURL=https://x:\\\ny@example.com/a\n":           "2 holds a password",
		"[submodule \"a\"]url=-u./x\n":                                       "1 begins with a dash",
		"\n\n[submodule \"a\"]\r\n\turl = ext::sh -c x\r\n":                  "4 runs a helper (ext::)",
		"[submodule \"a\"]\n\turl = fd::17/foo\n":                            "2 runs a helper",
		"[submodule \"a\"]\n\turl = \"https://x\\n/y\"\n":                    "2 control character",
		"[submodule \"a\"]\n\turl = https://x%0a@y/z\n":                      "2 line break",
		"[submodule \"../../x\"]\n":                                          "1 leads out",
		"[submodule \"a\\\\..\\\\b\"]\n":                                     "1 leads out",
		"[submodule \"a\"]\n\tpath = -x\n":                                   "2 begins with a dash",
		"[submodule \"a\"]\n\tupdate = !sh\n":                                "2 by a command",
		"[submodule \"a..b\"]\n":                                             "",
	} {
		number, what := checkModules(text)
		at, says, _ := strings.Cut(want, " ")
		if want == "" && what != "" || want != "" && (!strings.Contains(what, says) || fmt.Sprint(number) != at) {
			t.Errorf("%q: line %d, %q; want %q", text, number, what, want)
		}
	}
}

func FuzzRequest(f *testing.F) {
	for _, s := range []string{"git-upload-pack /a.git\x00host=x\x00\x00version=2\x00", "git-receive-pack /a\x00", "git-upload-archive /a\x00", "x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := parseRequest(s)
		if err == nil && (r.service != uploadPack && r.service != receivePack || r.version != 0 && r.version != 2) {
			t.Fatalf("%q: %+v", s, r)
		}
	})
}

func FuzzModules(f *testing.F) {
	f.Add("[submodule \"a\"]\n\turl = https://example.com/a.git\n")
	f.Fuzz(func(_ *testing.T, s string) { checkModules(s) })
}

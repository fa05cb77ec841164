package gitgate

import (
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf16"

	"github.com/bottle-run/bottle/sidecar/config"
	"github.com/bottle-run/bottle/sidecar/gitgate/internal/pktline"
)

// githubToken is a token as gitleaks knows them, that nobody has.
const githubToken = "ghp_" + "a8Kd93jsLq02mZx71bVn64tYrE5wPc8UhG3f"

var everything = &config.GitPush{Branches: []string{"**"}, Tags: []string{"**"}, Notes: []string{"**"}}

func (w *world) commit(dir, path, text, message string) {
	w.t.Helper()
	w.write(filepath.Join(dir, path), text)
	w.git(dir, "add", "-f", path)
	w.git(dir, "commit", "-qm", message)
}

func TestPush(t *testing.T) {
	w := newWorld(t)
	for _, kind := range protocols {
		t.Run(kind, func(t *testing.T) {
			dir := w.bare("push-" + kind)
			g := w.gate(w.repositories("push-"+kind, everything), nil)
			work := g.clone(kind)
			w.commit(work, "dir/file0", strings.Repeat("line of 0\n", 49)+"changed\n", "a change")
			w.git(work, "branch", "feature")
			w.git(work, "tag", "-am", "two", "v2")
			w.git(work, "notes", "add", "-m", "a note")
			w.git(work, "push", "-q", "origin", "main", "feature", "v2", "refs/notes/commits")
			for _, name := range []string{"main", "feature", "v2", "refs/notes/commits"} {
				if got, want := w.git(dir, "rev-parse", name), w.git(work, "rev-parse", name); got != want {
					t.Errorf("%s is at %s, want %s", name, got, want)
				}
			}
			w.git(dir, "fsck", "--strict")
			// A branch at what is there already, and one from a shallow clone.
			w.git(work, "push", "-q", "origin", "main:refs/heads/again")
			shallow := g.clone(kind, "--depth=1")
			w.commit(shallow, "shallow", "s", "from a shallow clone")
			w.git(shallow, "push", "-q", "origin", "HEAD:main")
			if got, want := w.git(dir, "rev-parse", "main"), w.git(shallow, "rev-parse", "HEAD"); got != want {
				t.Errorf("from a shallow clone: %s, want %s", got, want)
			}
			if out, err := w.try(work, "push", "origin", "main"); err == nil {
				t.Errorf("what is behind was pushed: %s", out)
			}
			// A fast-forward to commits that the upstream has, of which the pack holds nothing.
			w.git(work, "fetch", "-q")
			w.git(work, "push", "-q", "origin", "origin/main:refs/heads/other")
			// An atomic push of several.
			w.git(work, "push", "-q", "--atomic", "origin", "HEAD:refs/heads/x", "HEAD:refs/heads/y")
			// What the upstream itself says comes back as it is.
			w.write(filepath.Join(dir, "hooks", "pre-receive"), "#!/bin/sh\necho the hook says no\nexit 1\n")
			if err := os.Chmod(filepath.Join(dir, "hooks", "pre-receive"), 0o755); err != nil {
				t.Fatal(err)
			}
			out, err := w.try(work, "push", "origin", "HEAD:refs/heads/hooked")
			if err == nil || !strings.Contains(out, "remote: the hook says no") || !strings.Contains(out, "pre-receive hook declined") {
				t.Errorf("the upstream's hook: %v\n%s", err, out)
			}
			if log := g.records(); !strings.Contains(log, "pre-receive hook declined") || !strings.Contains(log, "refs/heads/feature") {
				t.Errorf("the audit log: %s", log)
			}
		})
	}
}

func TestPolicy(t *testing.T) {
	w := newWorld(t)
	dir := w.bare("policy")
	repos := w.repositories("policy", &config.GitPush{Branches: []string{"agent/*", "main", "other"}})
	repos[0].Push = nil
	g := w.gate(repos, func(c *config.GitGate) { c.Limits.Refs = 5 })
	before := w.git(dir, "for-each-ref")
	work := g.clone("git")
	w.git(work, "remote", "add", "readonly", g.url("https"))
	w.git(work, "remote", "add", "ssh", g.url("ssh"))
	w.git(work, "remote", "add", "file", g.url("file"))
	w.git(work, "checkout", "-q", "-b", "side", "HEAD~1")
	w.commit(work, "side", "side", "side")
	w.git(work, "branch", "unrelated", w.git(work, "commit-tree", "-m", "unrelated", "HEAD^{tree}"))
	w.git(work, "tag", "v9")
	many := []string{"push", "origin"}
	for i := range 6 {
		many = append(many, fmt.Sprintf("HEAD:refs/heads/agent/%d", i))
	}
	for name, c := range map[string]struct {
		args []string
		says []string
	}{
		"read only":         {[]string{"push", "readonly", "side:agent/x"}, []string{"remote error: bottle: nothing may be pushed to https"}},
		"another branch":    {[]string{"push", "origin", "side"}, []string{"remote: bottle: this push is refused", "only these branches may be pushed: agent/*, main, other", "[remote rejected] side"}},
		"deeper":            {[]string{"push", "origin", "side:refs/heads/agent/a/b"}, []string{"only these branches"}},
		"a tag":             {[]string{"push", "origin", "v9"}, []string{"tags may not be pushed here"}},
		"a tag beside":      {[]string{"push", "origin", "side:agent/x", "v9"}, []string{"tags may not be pushed", "[remote rejected] side -> agent/x"}},
		"notes":             {[]string{"push", "origin", "side:refs/notes/x"}, []string{"notes may not be pushed here"}},
		"another kind":      {[]string{"push", "origin", "side:refs/pull/1/head"}, []string{"only branches, tags and notes"}},
		"delete":            {[]string{"push", "origin", ":other"}, []string{"may not be deleted", "[remote rejected] other"}},
		"force":             {[]string{"push", "-f", "origin", "side:main"}, []string{"no fast-forward", "[remote rejected] side -> main"}},
		"force over ssh":    {[]string{"push", "-f", "ssh", "side:main"}, []string{"no fast-forward"}},
		"force to a file":   {[]string{"push", "-f", "file", "side:main"}, []string{"no fast-forward"}},
		"force, unrelated":  {[]string{"push", "-f", "origin", "unrelated:main"}, []string{"no fast-forward"}},
		"force, back":       {[]string{"push", "-f", "origin", "origin/main~1:main"}, []string{"no fast-forward"}},
		"too many":          {many, []string{"more than 5 references"}},
		"push options":      {[]string{"push", "-o", "ci.skip", "origin", "side:agent/x"}, []string{"does not support push options"}},
		"signed":            {[]string{"push", "--signed=yes", "origin", "side:agent/x"}, []string{"does not support --signed"}},
		"no such":           {[]string{"fetch", g.url("nothing")}, []string{`no repository \"nothing\"`, "file, git, https, ssh"}},
		"an archive":        {[]string{"archive", "--remote=" + g.url("git"), "HEAD"}, []string{"does not serve archives"}},
		"an unshown object": {[]string{"fetch", "origin", strings.Repeat("12", 20)}, []string{"no reference of the upstream is at 1212"}},
		"unshown, v0":       {[]string{"-c", "protocol.version=0", "fetch", "origin", strings.Repeat("12", 20)}, []string{"1212"}},
	} {
		out, err := w.try(work, c.args...)
		if err == nil {
			t.Errorf("%s: it was done: %s", name, out)
		}
		for _, says := range c.says {
			if !strings.Contains(out, strings.ReplaceAll(says, `\"`, `"`)) {
				t.Errorf("%s: %s\nwant %q", name, out, says)
			}
		}
	}
	if after := w.git(dir, "for-each-ref"); after != before {
		t.Errorf("the upstream has changed: %s", after)
	}
	w.git(work, "push", "-q", "origin", "side:agent/x")
	w.git(work, "push", "-q", "ssh", "origin/main:other")
	if got, want := w.git(dir, "rev-parse", "other"), w.git(dir, "rev-parse", "main"); got != want {
		t.Errorf("a fast-forward of other: %s, want %s", got, want)
	}

	for what, c := range map[string]struct {
		method, url, decision, rule string
	}{
		"push":         {"push", g.url("git") + "#refs/heads/agent/z", "allow", "repository:git"},
		"upstream":     {"push", w.urls["git"] + "/policy#refs/heads/main", "allow", "repository:git"},
		"ref":          {"push", g.url("git") + "#refs/heads/z", "deny", "ref"},
		"no ref":       {"push", g.url("git"), "deny", "malformed"},
		"read only":    {"push", g.url("https") + "#refs/heads/main", "deny", "read-only"},
		"fetch":        {"fetch", g.url("https"), "allow", "repository:https"},
		"nowhere":      {"fetch", "git://x.test/none.git", "deny", "no-such-repository"},
		"no method":    {"pull", g.url("git"), "deny", "malformed"},
		"upper method": {"FETCH", g.url("git"), "allow", "repository:git"},
	} {
		if v := g.Test(c.method, c.url); v.Decision != c.decision || v.Rule != c.rule {
			t.Errorf("%s: %+v", what, v)
		}
	}
}

func TestForceAndDeleteWhereAllowed(t *testing.T) {
	w := newWorld(t)
	dir := w.bare("force")
	g := w.gate(w.repositories("force", &config.GitPush{Branches: []string{"**"}, Tags: []string{"*"}, Force: true, Delete: true}), nil)
	work := g.clone("https")
	w.git(work, "reset", "-q", "--hard", "HEAD~1")
	w.commit(work, "x", "x", "instead")
	w.git(work, "tag", "-f", "-am", "moved", "v1")
	w.git(work, "push", "-q", "-f", "origin", "main", "v1", ":other")
	if out, err := w.try(dir, "rev-parse", "--verify", "other"); err == nil {
		t.Errorf("other is still there: %s", out)
	}
	for _, name := range []string{"main", "v1"} {
		if got, want := w.git(dir, "rev-parse", name), w.git(work, "rev-parse", name); got != want {
			t.Errorf("%s is at %s", name, got)
		}
	}
	w.git(work, "push", "-q", "origin", ":v1")
}

// TestHiddenSecrets pushes secrets in every place that a repository has for them.
func TestHiddenSecrets(t *testing.T) {
	w := newWorld(t)
	dir := w.bare("hidden")
	g := w.gate(w.repositories("hidden", everything), nil)
	wide := func(s string) string {
		b := []byte{0xff, 0xfe}
		for _, c := range utf16.Encode([]rune(s)) {
			b = binary.LittleEndian.AppendUint16(b, c)
		}
		return string(b)
	}
	filler := strings.Repeat("nothing to see in this line\n", 4000)
	before := w.git(dir, "for-each-ref")
	objects := w.git(dir, "count-objects", "-v")
	for name, c := range map[string]struct {
		do   func(work string)
		refs []string
		says []string
	}{
		"a file":            {func(d string) { w.commit(d, "conf/prod.env", "a\nb\ntoken = "+githubToken+"\n", "m") }, nil, []string{"conf/prod.env, line 3", "github-pat"}},
		"a canary":          {func(d string) { w.commit(d, "a.txt", "x\n"+canary+"\n", "m") }, nil, []string{"a.txt, line 2", "the secret canary of this bottle"}},
		"the credential":    {func(d string) { w.commit(d, "a.txt", password, "m") }, nil, []string{"a.txt, line 1", "the secret password of this bottle"}},
		"a canary, encoded": {func(d string) { w.commit(d, "a.txt", base64.StdEncoding.EncodeToString([]byte("x"+canary)), "m") }, nil, []string{"the secret canary"}},
		"the ssh key": {func(d string) {
			key, _ := base64.StdEncoding.DecodeString(w.key)
			lines := strings.Split(string(key), "\n")
			w.commit(d, "a.txt", "x\n"+lines[len(lines)-4]+"\n", "m")
		}, nil, []string{"the secret key (line"}},
		"far into a file": {func(d string) { w.commit(d, "a.txt", filler+"x "+githubToken+"\n", "m") }, nil, []string{"a.txt, line 4001", "github-pat"}},
		"a binary":        {func(d string) { w.commit(d, "a.bin", "\x7fELF\x00\x01\x02"+filler+"\x00"+githubToken+"\x00", "m") }, nil, []string{"a.bin", "github-pat"}},
		"UTF-16":          {func(d string) { w.commit(d, "a.txt", wide("one\ntwo "+githubToken+" \n"), "m") }, nil, []string{"a.txt, line 2", "github-pat"}},
		"UTF-16, the other end first, late": {func(d string) {
			w.commit(d, "a.bin", strings.Repeat("\x01\x02\x00\x7f", 20_000)+wide("x " + githubToken + " \n")[3:], "m")
		}, nil, []string{"a.bin, line 1", "github-pat"}},
		"added and removed":   {func(d string) { w.commit(d, "a.txt", githubToken+"\n", "in"); w.commit(d, "a.txt", "gone\n", "out") }, nil, []string{"a.txt, line 1", "github-pat"}},
		"a commit's message":  {func(d string) { w.git(d, "commit", "-q", "--allow-empty", "-m", "use "+githubToken+" here") }, nil, []string{"itself, line 6", "github-pat"}},
		"an author":           {func(d string) { w.git(d, "commit", "-q", "--allow-empty", "-m", "x", "--author="+canary+" <a@b.c>") }, nil, []string{"itself, line 3", "canary"}},
		"a tag's message":     {func(d string) { w.git(d, "tag", "-am", "x\n\n"+githubToken+"\n", "t") }, []string{"t"}, []string{"tag ", "itself", "github-pat"}},
		"an old commit's tag": {func(d string) { w.git(d, "tag", "-am", canary, "t", "HEAD~1") }, []string{"t"}, []string{"tag ", "canary"}},
		"a note":              {func(d string) { w.git(d, "notes", "add", "-m", githubToken) }, []string{"refs/notes/commits"}, []string{"github-pat"}},
		"a name":              {func(d string) { w.commit(d, "a/"+canary+"/b", "x", "m") }, nil, []string{"directory /a: the name of a file holds the secret canary"}},
		"a name that other trees have": {func(d string) {
			blob := w.gitIn(d, "x", "hash-object", "-w", "--stdin")
			tree := w.gitIn(d, "100644 blob "+blob+"\tplain\n", "mktree")
			for _, name := range []string{"plain", canary, "plain"} {
				tree = w.gitIn(d, "040000 tree "+tree+"\t"+name+"\n", "mktree")
			}
			w.git(d, "reset", "-q", "--hard", w.git(d, "commit-tree", "-m", "m", "-p", "HEAD", tree))
		}, nil, []string{"directory /plain: the name of a file holds the secret canary"}},
		"a mode that git does not have": {func(d string) {
			blob := w.gitIn(d, "x", "hash-object", "-w", "--stdin")
			raw, err := hex.DecodeString(blob)
			if err != nil {
				t.Fatal(err)
			}
			tree := w.gitIn(d, "100644 same\x00"+string(raw), "hash-object", "-t", "tree", "-w", "--literally", "--stdin")
			odd := w.gitIn(d, "104755 same\x00"+string(raw), "hash-object", "-t", "tree", "-w", "--literally", "--stdin")
			one := w.git(d, "commit-tree", "-m", "one", "-p", "HEAD", tree)
			w.git(d, "update-ref", "HEAD", w.git(d, "commit-tree", "-m", "two", "-p", one, odd))
		}, nil, []string{"has the mode 104755, which git does not have"}},
		"a link's target": {func(d string) {
			if err := os.Symlink("/x/"+canary, filepath.Join(d, "link")); err != nil {
				t.Fatal(err)
			}
			w.git(d, "add", "link")
			w.git(d, "commit", "-qm", "m")
		}, nil, []string{"link, line 1", "canary"}},
		"an LFS pointer": {func(d string) {
			w.commit(d, "big.bin", "version https://git-lfs.github.com/spec/v1\next-0-x "+githubToken+"\noid sha256:"+strings.Repeat("ab", 32)+"\nsize 5\n", "m")
		}, nil, []string{"big.bin, line 2", "github-pat"}},
		"a submodule's URL": {func(d string) {
			w.commit(d, ".gitmodules", "[submodule \"x\"]\n\tpath = x\n\turl = https://me:hunter2@example.com/x.git\n", "m")
		}, nil, []string{".gitmodules, line 3: the URL of a submodule holds a password"}},
		"a helper": {func(d string) {
			w.commit(d, "sub/.gitmodules", "[submodule \"x\"] url = ext::sh -c touch\n", "m")
		}, nil, []string{"sub/.gitmodules, line 1: the URL of a submodule runs a helper (ext::)"}},
		"another ref":  {func(d string) { w.git(d, "branch", "clean"); w.commit(d, "a.txt", githubToken, "m") }, []string{"clean", "main"}, []string{"a.txt", "[remote rejected] clean -> clean", "[remote rejected] main -> main"}},
		"a ref's name": {func(d string) { w.git(d, "branch", canary) }, []string{canary}, []string{"the name of a reference holds a secret"}},
		"gitleaks is told to ignore it": {func(d string) {
			w.commit(d, ".gitleaks.toml", "[allowlist]\nregexes=['.*']\npaths=['.*']\n", "m")
			w.commit(d, ".gitleaksignore", "a.txt:github-pat:1\n", "m")
			w.commit(d, "a.txt", githubToken+" # gitleaks:allow\n", "m")
		}, nil, []string{"a.txt, line 1", "github-pat"}},
		"a merge of unrelated history": {func(d string) {
			blob := w.gitIn(d, "hidden "+githubToken, "hash-object", "-w", "--stdin")
			tree := w.gitIn(d, "100644 blob "+blob+"\tdeep.txt\n", "mktree")
			tree = w.gitIn(d, "040000 tree "+tree+"\tbelow\n", "mktree")
			hidden := w.git(d, "commit-tree", "-m", "hidden", tree)
			merge := w.git(d, "commit-tree", "-m", "merge", "-p", "HEAD", "-p", hidden, "HEAD^{tree}")
			w.git(d, "reset", "-q", "--hard", merge)
		}, nil, []string{"below/deep.txt, line 1", "github-pat"}},
		"a tag of a file": {func(d string) {
			w.git(d, "tag", "t", w.gitIn(d, "x "+githubToken, "hash-object", "-w", "--stdin"))
		}, []string{"t"}, []string{"which no commit of the push has, line 1", "github-pat"}},
		"a delta": {func(d string) {
			w.commit(d, "big.txt", filler, "one")
			w.commit(d, "big.txt", strings.Replace(filler, "see", githubToken, 1), "two")
			w.commit(d, "big.txt", filler+"end\n", "three")
			w.git(d, "repack", "-adfq", "--depth=50", "--window=50")
		}, nil, []string{"big.txt, line 1", "github-pat"}},
	} {
		t.Run(name, func(t *testing.T) {
			work := g.clone("git")
			c.do(work)
			if c.refs == nil {
				c.refs = []string{"main"}
			}
			for _, kind := range []string{"git", "https"} {
				w.forget()
				out, err := w.try(work, append([]string{"push", g.url(kind)}, c.refs...)...)
				if err == nil {
					t.Errorf("it was pushed: %s", out)
				}
				flat := strings.Join(strings.Fields(strings.ReplaceAll(out, "remote:", "")), " ")
				for _, says := range append(c.says, "this push is refused, and nothing of it has reached 127.0.0.1") {
					if !strings.Contains(flat, says) {
						t.Errorf("%s\nwant %q", out, says)
					}
				}
				if name == "a ref's name" {
					continue // git itself repeats it
				}
				for _, secret := range []string{githubToken, canary, password} {
					if strings.Contains(out, secret) {
						t.Errorf("the secret is told: %s", out)
					}
				}
				for _, asked := range w.services() {
					if strings.HasPrefix(asked, "POST") {
						t.Errorf("the upstream was asked: %s", asked)
					}
				}
			}
		})
	}
	if after := w.git(dir, "for-each-ref"); after != before {
		t.Errorf("the upstream has changed: %s", after)
	}
	if after := w.git(dir, "count-objects", "-v"); after != objects {
		t.Errorf("the upstream has other objects: %s, before %s", after, objects)
	}
}

// TestAnotherFormat pushes to a repository that names its objects by SHA-256, and to one
// that is empty.
func TestAnotherFormat(t *testing.T) {
	w := newWorld(t)
	dir := filepath.Join(w.root, "sha256.git")
	w.git("", "init", "-q", "--bare", "--object-format=sha256", dir)
	g := w.gate(w.repositories("sha256", &config.GitPush{Branches: []string{"main"}}), nil)
	work := t.TempDir()
	w.git("", "init", "-q", "--object-format=sha256", work)
	w.commit(work, "a", "a", "one")
	for _, kind := range protocols {
		w.commit(work, "a", kind, "more")
		w.git(work, "push", "-q", g.url(kind), "main")
		if got, want := w.git(dir, "rev-parse", "main"), w.git(work, "rev-parse", "main"); got != want || len(got) != 64 {
			t.Errorf("%s: main is at %s, want %s", kind, got, want)
		}
		for _, version := range []string{"0", "2"} {
			w.git(g.clone(kind, "-c", "protocol.version="+version), "fsck", "--strict")
		}
		w.commit(work, "b", canary, "a secret")
		if out, err := w.try(work, "push", g.url(kind), "main"); err == nil || !strings.Contains(out, "b, line 1: the secret canary") {
			t.Errorf("%s: a secret: %v %s", kind, err, out)
		}
		w.git(work, "reset", "-q", "--hard", "HEAD~1")
		other := w.git(work, "commit-tree", "-m", "other", "-p", "HEAD~1", "HEAD^{tree}")
		if out, err := w.try(work, "push", "-f", g.url(kind), other+":refs/heads/main"); err == nil || !strings.Contains(out, "no fast-forward") {
			t.Errorf("%s: force: %v %s", kind, err, out)
		}
	}
}

func TestOrdinaryPushesPass(t *testing.T) {
	w := newWorld(t)
	w.bare("plain")
	g := w.gate(w.repositories("plain", everything), nil)
	work := g.clone("git")
	w.commit(work, "README.md", "See https://user:password@example.com/ and API_KEY=your-key-here\n", "docs")
	w.commit(work, ".gitmodules", "[submodule \"lib\"]\n\tpath = lib\n\turl = ../lib.git\n[submodule \"b\"]\n\tpath = b\n\turl = git@example.com:b/b.git\n", "m")
	w.commit(work, "blob.bin", string(make([]byte, 100_000)), "zeros")
	w.commit(work, "go.sum", "example.com/x v1.0.0 h1:"+base64.StdEncoding.EncodeToString(make([]byte, 32))+"=\n", "sum")
	w.git(work, "push", "-q", "origin", "main")
}

// dial sends packets to a gate and returns everything that it answers.
func (g *gate) dial(packets ...string) string {
	g.w.t.Helper()
	conn, err := net.Dial("tcp", g.addr)
	if err != nil {
		g.w.t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	for _, p := range packets {
		if p != "" {
			_, _ = conn.Write([]byte(p))
		}
	}
	_ = conn.(*net.TCPConn).CloseWrite()
	var b strings.Builder
	buf := make([]byte, 4096)
	for {
		n, err := conn.Read(buf)
		b.Write(buf[:n])
		if err != nil {
			return b.String()
		}
	}
}

func line(s string) string { return string(pktline.AppendString(nil, s)) }

func emptyPack() string {
	b := []byte("PACK\x00\x00\x00\x02\x00\x00\x00\x00")
	sum := sha1.Sum(b)
	return string(append(b, sum[:]...))
}

// TestHostileClients speaks as no git does.
func TestHostileClients(t *testing.T) {
	w := newWorld(t)
	dir := w.bare("hostile")
	g := w.gate(w.repositories("hostile", everything), func(c *config.GitGate) { c.Limits.PackBytes = 100_000 })
	head := w.git(dir, "rev-parse", "main")
	zero := strings.Repeat("0", 40)
	before := w.git(dir, "for-each-ref")
	fetch := line("git-upload-pack /git.git\x00host=x\x00\x00version=2\x00")
	fetch0 := line("git-upload-pack /git.git\x00host=x\x00")
	push := line("git-receive-pack /git.git\x00host=x\x00")
	const caps = "\x00 report-status side-band-64k agent=x"
	for name, c := range map[string]struct {
		packets []string
		says    string
	}{
		"nothing":               {nil, "ERR"},
		"no packet":             {[]string{"GET / HTTP/1.1\r\n\r\n"}, "malformed packet"},
		"an empty request":      {[]string{"0000"}, "it is empty"},
		"a service":             {[]string{line("git-shell /git.git\x00host=x\x00")}, "does not know the service"},
		"a service with a dash": {[]string{line("--git-upload-pack /git.git\x00")}, "does not know the service"},
		"a path":                {[]string{line("git-upload-pack /../../etc\x00")}, "no repository"},
		"ext":                   {[]string{line("git-upload-pack ext::sh\x00")}, "no repository"},
		"a command":             {[]string{fetch, line("command=object-info\n"), "0000"}, "does not know the command"},
		"a bundle":              {[]string{fetch, line("command=bundle-uri\n"), "0000"}, "does not know the command"},
		"a server option":       {[]string{fetch, line("command=fetch\n"), line("server-option=x\n"), "0000"}, "does not pass on"},
		"an argument":           {[]string{fetch, line("command=fetch\n"), "0001", line("packfile-uris https\n"), "0000"}, "does not pass on"},
		"want-ref":              {[]string{fetch, line("command=fetch\n"), "0001", line("want-ref refs/heads/main\n"), "0000"}, "does not pass on"},
		"a filter":              {[]string{fetch, line("command=fetch\n"), "0001", line("filter blob:none\n"), "0000"}, "does not pass on"},
		"a canary in a prefix":  {[]string{fetch, line("command=ls-refs\n"), "0001", line("ref-prefix " + canary), "0000"}, "canary"},
		"a want":                {[]string{fetch, line("command=fetch\n"), "0001", line("want " + strings.Repeat("ab", 20)), line("done"), "0000"}, "no reference of the upstream"},
		"a want, v0":            {[]string{fetch0, line("want " + strings.Repeat("ab", 20) + " multi_ack\n"), "0000", line("done\n")}, "no reference of the upstream"},
		"no want, v0":           {[]string{fetch0, line("shallow " + head), "0000", line("done\n")}, "does not pass on"},
		"a capability, v0":      {[]string{fetch0, line("want " + head + " no-done\n"), "0000"}, "does not pass on"},
		"a have, v0":            {[]string{fetch0, line("want " + head + " multi_ack\n"), "0000", line("have x\n"), "0000"}, "does not pass on"},
		"a dash":                {[]string{push, line(zero + " " + head + " refs/heads/-x" + caps), "0000" + emptyPack()}, "begins with a dash"},
		"an option as a name":   {[]string{push, line(zero + " " + head + " --exec=x" + caps), "0000" + emptyPack()}, "not below refs/"},
		"control characters":    {[]string{push, line(zero + " " + head + " refs/heads/\x1b[2J" + caps), "0000" + emptyPack()}, "the character"},
		"dots":                  {[]string{push, line(zero + " " + head + " refs/heads/../../x" + caps), "0000" + emptyPack()}, "two dots"},
		"HEAD":                  {[]string{push, line(zero + " " + head + " HEAD" + caps), "0000" + emptyPack()}, "not below refs/"},
		"a space":               {[]string{push, line(zero + " " + head + " refs/heads/a b" + caps), "0000" + emptyPack()}, "the character"},
		"capital ids":           {[]string{push, line(zero + " " + strings.ToUpper(head[:39]) + "A refs/heads/a" + caps), "0000"}, "malformed"},
		"two zeros":             {[]string{push, line(zero + " " + zero + " refs/heads/a" + caps), "0000"}, "malformed"},
		"push options":          {[]string{push, line(zero + " " + head + " refs/heads/a\x00 push-options"), "0000", line("x"), "0000"}, "push options are not passed on"},
		"a certificate":         {[]string{push, line("push-cert\x00 report-status"), "0000"}, "signed pushes are not passed on"},
		"twice":                 {[]string{push, line(zero + " " + head + " refs/heads/a" + caps), line(zero + " " + head + " refs/heads/a"), "0000"}, "pushed twice"},
		"a wrong old":           {[]string{push, line(head + " " + head + " refs/heads/other" + caps), "0000" + emptyPack()}, "is not what it was"},
		"a wrong new":           {[]string{push, line(zero + " " + head + " refs/heads/main" + caps), "0000" + emptyPack()}, "is not what it was"},
		"no pack":               {[]string{push, line(zero + " " + head + " refs/heads/a" + caps), "0000", "nonsense in place of a pack"}, "the pack is malformed"},
		"a wrong checksum":      {[]string{push, line(zero + " " + head + " refs/heads/a" + caps), "0000", emptyPack()[:31] + "x"}, "checksum"},
		"a large pack":          {[]string{push, line(zero + " " + head + " refs/heads/a" + caps), "0000", "PACK\x00\x00\x00\x02\x00\x00\x00\x01\xb0\xff\x7f\x78\x01\x00\xff\xff\x00\x00" + strings.Repeat("x", 200_000)}, "larger than 100000 bytes"},
		"a delimiter":           {[]string{push, "0001"}, "malformed"},
		"an old object's kind":  {[]string{push, line(zero + " " + head + " refs/stash" + caps), "0000" + emptyPack()}, "no part after refs/KIND/"},
	} {
		out := g.dial(c.packets...)
		if !strings.Contains(out, c.says) {
			t.Errorf("%s: %q, want %q", name, out, c.says)
		}
		if strings.Contains(out, "\x1b") {
			t.Errorf("%s: it tells a terminal what to do: %q", name, out)
		}
	}
	if after := w.git(dir, "for-each-ref"); after != before {
		t.Errorf("the upstream has changed: %s", after)
	}
	// An empty pack is one that git sends for what is there already.
	if out := g.dial(push, line(zero+" "+head+" refs/heads/fine"+caps), "0000"+emptyPack()); !strings.Contains(out, "ok refs/heads/fine") {
		t.Errorf("an empty pack: %q", out)
	}
}

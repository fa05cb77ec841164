package gitgate

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"github.com/bottle-run/bottle/sidecar/audit"
	"github.com/bottle-run/bottle/sidecar/config"
	"github.com/bottle-run/bottle/sidecar/secrets"
)

const (
	password = "upstream-password-0123456789"
	canary   = "the-value-of-a-canary-4711"
)

// world is upstreams on loopback, over every protocol, that serve the same directory.
type world struct {
	t    testing.TB
	root string // bare repositories
	home string // what clients have for HOME
	urls map[string]string
	ca   string // file with the root of the https server
	keys []string
	key  string // of ssh, in base64

	mu    sync.Mutex
	asked []string // services that upstreams ran
}

func newWorld(t testing.TB) *world {
	w := &world{t: t, root: t.TempDir(), home: t.TempDir(), urls: map[string]string{}}
	w.write(filepath.Join(w.home, ".gitconfig"), "[user]\nname = Agent\nemail = agent@example.com\n[init]\ndefaultBranch = main\n[protocol \"file\"]\nallow = always\n[gc]\nauto = 0\n")
	w.daemon()
	w.https()
	w.ssh()
	w.urls["file"] = "file://" + w.root
	return w
}

func (w *world) write(path, text string) {
	w.t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) ran(service string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked = append(w.asked, service)
}

// services returns which services upstreams ran since they were forgotten.
func (w *world) services() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.asked)
}

func (w *world) forget() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked = nil
}

func (w *world) env() []string {
	return []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + w.home, "GIT_CONFIG_NOSYSTEM=1", "GIT_TERMINAL_PROMPT=0", "LC_ALL=C",
		"GIT_AUTHOR_DATE=1700000000 +0000", "GIT_COMMITTER_DATE=1700000000 +0000",
	}
}

// try runs git and returns all that it says.
func (w *world) try(dir string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(w.t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Dir, cmd.Env = dir, w.env()
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (w *world) git(dir string, args ...string) string {
	w.t.Helper()
	out, err := w.try(dir, args...)
	if err != nil {
		w.t.Fatalf("git %q: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(out)
}

// gitIn is git with an input.
func (w *world) gitIn(dir, in string, args ...string) string {
	w.t.Helper()
	cmd := exec.CommandContext(w.t.Context(), "git", args...)
	cmd.Dir, cmd.Env, cmd.Stdin = dir, w.env(), strings.NewReader(in)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		w.t.Fatalf("git %q: %v\n%s", args, err, stderr.String())
	}
	return string(bytes.TrimSuffix(out, []byte("\n")))
}

func (w *world) accept(serve func(net.Conn)) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	var work sync.WaitGroup
	w.t.Cleanup(func() { _ = ln.Close(); work.Wait() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			work.Go(func() { defer func() { _ = c.Close() }(); serve(c) })
		}
	}()
	return ln.Addr().String()
}

func (w *world) daemon() {
	addr := w.accept(func(c net.Conn) {
		f, err := c.(*net.TCPConn).File()
		if err != nil {
			return
		}
		defer f.Close()
		w.ran("git-daemon")
		cmd := exec.CommandContext(w.t.Context(), "git", "daemon", "--inetd", "--export-all", "--enable=receive-pack", "--base-path="+w.root, w.root)
		cmd.Env, cmd.Stdin, cmd.Stdout = w.env(), f, f
		_ = cmd.Run()
	})
	w.urls["git"] = "git://" + addr
}

func (w *world) https() {
	backend := filepath.Join(w.git("", "--exec-path"), "git-http-backend")
	srv := httptest.NewTLSServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/moved/") {
			http.Redirect(rw, r, strings.TrimPrefix(r.URL.String(), "/moved"), http.StatusMovedPermanently)
			return
		}
		if strings.HasPrefix(r.URL.Path, "/away/") {
			http.Redirect(rw, r, "https://elsewhere.test"+r.URL.String(), http.StatusMovedPermanently)
			return
		}
		if user, pass, ok := r.BasicAuth(); r.Header.Get("Authorization") != "Bearer "+password && (!ok || user != "robot" || pass != password) {
			rw.Header().Set("WWW-Authenticate", "Basic realm=git")
			rw.WriteHeader(http.StatusUnauthorized)
			return
		}
		w.ran(r.Method + " " + r.URL.String())
		if path, ok := strings.CutPrefix(r.URL.Path, "/old"); ok {
			// A server that knows nothing of versions.
			r.URL.Path = path
			r.Header.Del("Git-Protocol")
		}
		h := &cgi.Handler{Path: backend, Dir: w.root, Stderr: io.Discard, Env: append(w.env(),
			"GIT_PROJECT_ROOT="+w.root, "GIT_HTTP_EXPORT_ALL=1", "REMOTE_USER=robot", "GIT_PROTOCOL="+r.Header.Get("Git-Protocol"))}
		h.ServeHTTP(rw, r)
	}))
	srv.Config.ErrorLog = nil
	w.t.Cleanup(srv.Close)
	w.ca = filepath.Join(w.home, "ca.pem")
	w.write(w.ca, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})))
	w.urls["https"] = srv.URL
}

func newKey(t testing.TB) (ssh.Signer, []byte) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, "test")
	if err != nil {
		t.Fatal(err)
	}
	return signer, pem.EncodeToMemory(block)
}

func (w *world) ssh() {
	host, _ := newKey(w.t)
	client, file := newKey(w.t)
	w.key = base64.StdEncoding.EncodeToString(file)
	c := &ssh.ServerConfig{PublicKeyCallback: func(_ ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
		if !bytes.Equal(key.Marshal(), client.PublicKey().Marshal()) {
			return nil, fmt.Errorf("an unknown key")
		}
		return nil, nil
	}}
	c.AddHostKey(host)
	addr := w.accept(func(conn net.Conn) { w.serveSSH(conn, c) })
	w.keys = []string{knownhosts.Line([]string{addr}, host.PublicKey())}
	w.urls["ssh"] = "ssh://robot@" + addr
}

func (w *world) serveSSH(conn net.Conn, c *ssh.ServerConfig) {
	_, channels, requests, err := ssh.NewServerConn(conn, c)
	if err != nil {
		return
	}
	go ssh.DiscardRequests(requests)
	for nc := range channels {
		ch, reqs, err := nc.Accept()
		if err != nil {
			return
		}
		env := w.env()
		for r := range reqs {
			switch r.Type {
			case "env":
				var kv struct{ Name, Value string }
				if ssh.Unmarshal(r.Payload, &kv) == nil && kv.Name == "GIT_PROTOCOL" {
					env = append(env, kv.Name+"="+kv.Value)
				}
				_ = r.Reply(true, nil)
			case "exec":
				var line struct{ Command string }
				_ = ssh.Unmarshal(r.Payload, &line)
				_ = r.Reply(true, nil)
				service, path, _ := strings.Cut(line.Command, " '/")
				w.ran("ssh " + service)
				cmd := exec.Command("git", strings.TrimPrefix(service, "git-"), strings.TrimSuffix(path, "'"))
				cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = w.root, env, ch, ch.Stderr()
				in, err := cmd.StdinPipe()
				if err != nil || cmd.Start() != nil {
					_ = ch.Close()
					continue
				}
				go func() { _, _ = io.Copy(in, ch); in.Close() }()
				status := uint32(0)
				if cmd.Wait() != nil {
					status = 1
				}
				_, _ = ch.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{status}))
				_ = ch.Close()
			default:
				_ = r.Reply(false, nil)
			}
		}
	}
}

// bare makes a bare repository with a commit on main, a tag and another branch.
func (w *world) bare(name string) (dir string) {
	w.t.Helper()
	dir = filepath.Join(w.root, name+".git")
	w.git(w.root, "init", "-q", "--bare", dir)
	w.git(dir, "config", "uploadpack.allowFilter", "true")
	work := filepath.Join(w.t.TempDir(), "work")
	w.git("", "clone", "-q", dir, work)
	for i := range 3 {
		w.write(filepath.Join(work, "dir", fmt.Sprintf("file%d", i)), strings.Repeat(fmt.Sprintf("line of %d\n", i), 50))
		w.git(work, "add", ".")
		w.git(work, "commit", "-qm", fmt.Sprintf("commit %d", i))
	}
	w.git(work, "tag", "-am", "one", "v1")
	w.git(work, "branch", "other", "HEAD~1")
	w.git(work, "push", "-q", "origin", "main", "other", "v1")
	return dir
}

// gate is a gate that a test started.
type gate struct {
	*Gate
	w         *world
	addr      string
	config    config.GitGate
	dir       string
	log, said *syncBuffer
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// repositories are one upstream over every protocol, each by the name of the protocol.
func (w *world) repositories(name string, push *config.GitPush) []config.GitRepository {
	at := func(kind string) config.GitRepository {
		return config.GitRepository{Name: kind, URL: w.urls[kind] + "/" + name + ".git", Push: push}
	}
	h, s := at("https"), at("ssh")
	h.Credential = &config.GitCredential{Secret: "password", Kind: "basic", Username: "robot"}
	s.Credential, s.KnownHosts = &config.GitCredential{Secret: "key", Kind: "ssh-key"}, w.keys
	return []config.GitRepository{h, s, at("git"), at("file")}
}

func (w *world) gate(repos []config.GitRepository, change func(*config.GitGate)) *gate {
	w.t.Helper()
	g := &gate{w: w, dir: w.t.TempDir(), log: &syncBuffer{}, said: &syncBuffer{}}
	g.config = config.GitGate{Agent: "coder", Repositories: repos, Quarantine: w.t.TempDir()}
	if err := json.Unmarshal([]byte(`["127.0.0.0/8"]`), &g.config.Guard.AllowCIDRs); err != nil {
		w.t.Fatal(err)
	}
	g.config.Upstream.CAFiles = []string{w.ca}
	if change != nil {
		change(&g.config)
	}
	g.put()
	set, err := json.Marshal(map[string]any{"secrets": []secrets.Secret{
		{Name: "password", Value: password, Hosts: []string{"127.0.0.1"}}, {Name: "key", Value: secrets.Value(w.key)}, {Name: "canary", Value: canary},
	}})
	if err != nil {
		w.t.Fatal(err)
	}
	if _, err := secrets.Put(filepath.Join(g.dir, "secrets"), bytes.NewReader(set)); err != nil {
		w.t.Fatal(err)
	}
	log := slog.New(slog.NewJSONHandler(g.log, nil))
	g.Gate = New(filepath.Join(g.dir, "config.json"), filepath.Join(g.dir, "secrets"), log, func(agent string) *audit.Log { return audit.New(g.said, "git-gate", agent) })
	if err := g.Reload(); err != nil {
		w.t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	g.addr = ln.Addr().String()
	ended := make(chan error, 1)
	go func() { ended <- g.Serve(ln) }()
	w.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := g.Shutdown(ctx); err != nil {
			w.t.Errorf("shutting down: %v", err)
		}
		if err := <-ended; err != nil {
			w.t.Errorf("serving: %v", err)
		}
		if left, _ := os.ReadDir(g.config.Quarantine); len(left) > 0 {
			w.t.Errorf("left in the quarantine: %v", left)
		}
		if text := g.said.String() + g.log.String(); strings.Contains(text, password) || strings.Contains(text, canary) || strings.Contains(text, w.key) {
			w.t.Errorf("a secret is in a log: %s", text)
		}
	})
	return g
}

func (g *gate) put() {
	g.w.t.Helper()
	data, err := json.Marshal(g.config)
	if err != nil {
		g.w.t.Fatal(err)
	}
	g.w.write(filepath.Join(g.dir, "config.json"), string(data))
}

func (g *gate) url(name string) string { return "git://" + g.addr + "/" + name + ".git" }

// records ends the gate and returns its audit log.
func (g *gate) records() string {
	g.w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := g.Shutdown(ctx); err != nil {
		g.w.t.Fatal(err)
	}
	return g.said.String()
}

// clone clones through the gate.
func (g *gate) clone(name string, args ...string) string {
	g.w.t.Helper()
	dir := filepath.Join(g.w.t.TempDir(), "clone")
	g.w.git("", append(append([]string{"clone", "-q"}, args...), g.url(name), dir)...)
	return dir
}

package main

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/cgi"
	"net/netip"
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

	"github.com/bottle-run/bottle/runtime/conformance/world"
)

// The names of the upstreams' hosts in the outside world.
const (
	webHost    = "code." + world.Zone
	shellHost  = "shell." + world.Zone
	daemonHost = "daemon." + world.Zone
)

// upstreams are git servers in the outside world, behind one address, over the same
// directory: git http-backend with basic authentication over TLS, sshd, and git daemon.
type upstreams struct {
	layout     world.Layout
	roots      []byte // PEM
	dir        string // of the repositories
	password   string // of the web server's user robot
	keyFile    string // the private key that sshd lets in
	keyText    string
	knownHosts []byte

	mu         sync.Mutex
	remembered map[string]string
}

func openUpstreams(t *testing.T) *upstreams {
	t.Helper()
	w, err := world.Open(t.Context(), "")
	check(t, err)
	t.Cleanup(func() { check(t, w.Close()) })
	u := &upstreams{layout: w.Layout(), dir: t.TempDir(), password: "web/pass+=word-" + rand.Text(), remembered: map[string]string{}}
	listen := func(port uint16) net.Listener {
		l, err := w.Bind(t.Context(), netip.AddrPortFrom(u.layout.Answer, port))
		check(t, err)
		return l
	}
	u.web(t, listen(443))
	u.sshd(t, listen(22))
	u.inetd(t, listen(9418), func() *exec.Cmd {
		cmd := exec.Command("git", "daemon", "--inetd", "--export-all", "--enable=receive-pack", "--base-path="+u.dir, u.dir)
		cmd.Env = gitEnv()
		return cmd
	})
	return u
}

// env is what the scripts' manifests need to know.
func (u *upstreams) env() map[string]string {
	return map[string]string{
		"DNS": u.layout.DNS.String(), "CIDR": u.layout.A.String(), "GIT_IMAGE": gitImage, "WEB": "https://" + webHost, "SHELL_HOST": "git@" + shellHost,
		"DAEMON": "git://" + daemonHost, "WEB_PASSWORD": u.password,
		"KEY": u.keyFile, "KEY_FILE": u.keyText, "KEY_LINE": strings.Split(u.keyText, "\n")[2],
	}
}

// web is git http-backend with basic authentication, over TLS.
func (u *upstreams) web(t *testing.T, l net.Listener) {
	git := lookPath(t, "git")
	tlsOf := &outside{}
	config := &tls.Config{Certificates: []tls.Certificate{tlsOf.certificate(t)}, MinVersion: tls.VersionTLS12}
	u.roots = tlsOf.roots
	server := &http.Server{ReadHeaderTimeout: time.Minute, TLSConfig: config, ErrorLog: log.New(io.Discard, "", 0), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user != "robot" || password != u.password {
			w.Header().Set("WWW-Authenticate", `Basic realm="git"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		(&cgi.Handler{Path: git, Args: []string{"http-backend"}, Dir: u.dir, Stderr: io.Discard, Env: gitEnv(
			"GIT_PROJECT_ROOT="+u.dir, "GIT_HTTP_EXPORT_ALL=1", "REMOTE_USER=robot", "GIT_PROTOCOL="+r.Header.Get("Git-Protocol"),
		)}).ServeHTTP(w, r)
	})}
	var served sync.WaitGroup
	served.Go(func() { _ = server.ServeTLS(l, "", "") })
	t.Cleanup(func() {
		_ = server.Close()
		served.Wait()
	})
}

// inetd runs a program for each connection, with the connection as its standard input and
// output.
func (u *upstreams) inetd(t *testing.T, l net.Listener, program func() *exec.Cmd) {
	var served sync.WaitGroup
	var mu sync.Mutex
	running := map[*exec.Cmd]bool{}
	ended := false
	serve := func(c net.Conn) {
		defer func() { _ = c.Close() }()
		f, err := c.(*net.TCPConn).File()
		if err != nil {
			return
		}
		defer func() { _ = f.Close() }()
		cmd := program()
		cmd.Stdin, cmd.Stdout = f, f
		mu.Lock()
		if ended || cmd.Start() != nil {
			mu.Unlock()
			return
		}
		running[cmd] = true
		mu.Unlock()
		_ = cmd.Wait() // it belongs to the connection
		mu.Lock()
		delete(running, cmd)
		mu.Unlock()
	}
	served.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			served.Go(func() { serve(c) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		mu.Lock()
		ended = true
		for cmd := range running {
			_ = cmd.Process.Kill()
		}
		mu.Unlock()
		served.Wait()
	})
}

func sshKey(t *testing.T) (ssh.PublicKey, []byte) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	check(t, err)
	key, err := ssh.NewPublicKey(public)
	check(t, err)
	block, err := ssh.MarshalPrivateKey(private, "of the test")
	check(t, err)
	return key, pem.EncodeToMemory(block)
}

// sshd is OpenSSH's, once for each connection. It knows a user git, who is this process's
// under another name: the file of users is replaced in a mount namespace of its own.
func (u *upstreams) sshd(t *testing.T, l net.Listener) {
	dir := t.TempDir()
	program := "/usr/sbin/sshd"
	if _, err := os.Stat(program); err != nil {
		t.Fatalf("sshd is needed (Debian: openssh-server): %v", err)
	}
	host, hostKey := sshKey(t)
	client, clientKey := sshKey(t)
	u.keyText = string(clientKey)
	u.knownHosts = []byte(knownhosts.Line([]string{knownhosts.HashHostname(shellHost)}, host) + "\n")
	write := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		check(t, os.WriteFile(path, []byte(text), mode))
		return path
	}
	key := write("host_key", string(hostKey), 0o600)
	authorized := write("authorized_keys", string(ssh.MarshalAuthorizedKey(client)), 0o600)
	u.keyFile = write("key", u.keyText, 0o600)
	config := write("sshd_config", strings.Join([]string{
		"HostKey " + key, "AuthorizedKeysFile " + authorized, "StrictModes no", "UsePAM no", "PasswordAuthentication no", "KbdInteractiveAuthentication no",
		"PermitRootLogin prohibit-password", "AcceptEnv GIT_PROTOCOL", "PidFile none", "PrintMotd no", "PrintLastLog no", "UseDNS no", "LogLevel ERROR",
	}, "\n")+"\n", 0o600)
	users := fmt.Sprintf("git:x:%d:%d::%s:/bin/sh\nsshd:x:65533:65533::/run/sshd:/usr/sbin/nologin\n", os.Getuid(), os.Getgid(), dir)
	// Paths of ssh URLs begin at the root of the file system, and those of scp's form at home.
	check(t, os.Symlink(u.dir, filepath.Join(dir, "team")))
	passwd := write("passwd", users, 0o644)
	args := []string{"--mount"}
	prepare := "mount --bind " + passwd + " /etc/passwd && "
	if os.Getuid() == 0 {
		prepare += "mount -t tmpfs tmpfs /run && mkdir /run/sshd && "
	} else {
		args = append(args, "--user", "--map-current-user", "--keep-caps")
	}
	args = append(args, "sh", "-c", prepare+"exec "+program+" -i -e -f "+config)
	said := &tailWriter{}
	u.inetd(t, l, func() *exec.Cmd {
		cmd := exec.Command("unshare", args...)
		cmd.Env, cmd.Stderr, cmd.Dir = []string{"PATH=" + os.Getenv("PATH")}, said, dir
		return cmd
	})
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("sshd: %s", said)
		}
	})
}

// tailWriter keeps what is written, up to a size.
type tailWriter struct {
	mu   sync.Mutex
	text strings.Builder
}

func (w *tailWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.text.Len() < 64<<10 {
		w.text.Write(p)
	}
	return len(p), nil
}

func (w *tailWriter) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.String()
}

// repo makes a bare repository with three commits on main, a tag, and another branch.
func (u *upstreams) repo(name string) error {
	bare, work := filepath.Join(u.dir, name+".git"), filepath.Join(u.dir, name+".work")
	steps := [][]string{
		{"init", "-q", "--bare", "-b", "main", bare},
		{"-C", bare, "config", "uploadpack.allowFilter", "true"},
		{"clone", "-q", bare, work},
		{"-C", work, "checkout", "-q", "-b", "main"},
	}
	for i := range 3 {
		steps = append(steps,
			[]string{"-C", work, "commit", "-q", "--allow-empty", "-m", fmt.Sprintf("commit %d of %s", i, name)},
		)
	}
	steps = append(steps, []string{"-C", work, "tag", "-am", "one", "v1"}, []string{"-C", work, "branch", "other", "HEAD~1"}, []string{"-C", work, "push", "-q", "origin", "main", "other", "v1"})
	for _, args := range steps {
		if _, err := hostGit(u.dir, args...); err != nil {
			return err
		}
	}
	return os.RemoveAll(work)
}

// state is all that a repository holds: every object, and every reference.
func (u *upstreams) state(name string) (string, error) {
	bare := filepath.Join(u.dir, name+".git")
	objects, err := hostGit(bare, "cat-file", "--batch-all-objects", "--batch-check", "--unordered")
	if err != nil {
		return "", err
	}
	refs, err := hostGit(bare, "for-each-ref")
	if err != nil {
		return "", err
	}
	lines := strings.Split(strings.TrimSpace(objects), "\n")
	slices.Sort(lines)
	return refs + strings.Join(lines, "\n"), nil
}

package docker

import (
	"crypto/sha256"
	"encoding/hex"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/bottle-run/bottle/runtime"
)

// cleanEnvironment hides the endpoints of who runs the tests.
func cleanEnvironment(t *testing.T) (config string) {
	t.Helper()
	config = t.TempDir()
	for _, name := range []string{"DOCKER_HOST", "DOCKER_CONTEXT", "XDG_RUNTIME_DIR"} {
		t.Setenv(name, "")
	}
	t.Setenv("DOCKER_CONFIG", config)
	return config
}

func writeContext(t *testing.T, config, name, host string) {
	t.Helper()
	sum := sha256.Sum256([]byte(name))
	dir := filepath.Join(config, "contexts", "meta", hex.EncodeToString(sum[:]))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	meta := `{"Name":"` + name + `","Endpoints":{"docker":{"Host":"` + host + `"}}}`
	if err := os.WriteFile(filepath.Join(dir, "meta.json"), []byte(meta), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestEndpointIsFoundInTheCLIsOrder(t *testing.T) {
	config := cleanEnvironment(t)
	find := func(given, want, source string) {
		t.Helper()
		ep, err := findEndpoint(given)
		if err != nil || ep.host != want || !strings.Contains(ep.source, source) {
			t.Errorf("found %q from %q, %v; want %q from %q", ep.host, ep.source, err, want, source)
		}
	}
	find("", "unix:///var/run/docker.sock", "usual")
	writeContext(t, config, "current", "unix:///c.sock")
	writeContext(t, config, "other", "tcp://192.0.2.1:2376")
	if err := os.WriteFile(filepath.Join(config, "config.json"), []byte(`{"currentContext":"current"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	find("", "unix:///c.sock", "current docker context")
	t.Setenv("DOCKER_CONTEXT", "other")
	find("", "tcp://192.0.2.1:2376", "DOCKER_CONTEXT")
	t.Setenv("DOCKER_HOST", "unix:///h.sock")
	find("", "unix:///h.sock", "DOCKER_HOST")
	find("ssh://u@h", "ssh://u@h", "--host")
	find("/plain/path", "unix:///plain/path", "--host")
	for _, bad := range []string{"nonsense", "unix://", "ftp://x"} {
		if _, err := findEndpoint(bad); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	t.Setenv("DOCKER_HOST", "")
	t.Setenv("DOCKER_CONTEXT", "missing")
	if _, err := findEndpoint(""); !errdefs.IsUnavailable(err) {
		t.Errorf("a missing context: %v", err)
	}
}

func TestNobodyAnswers(t *testing.T) {
	cleanEnvironment(t)
	missing := "unix://" + filepath.Join(t.TempDir(), "none.sock")
	_, err := Driver{}.Open(t.Context(), runtime.Options{Host: missing})
	if !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), missing) || !strings.Contains(err.Error(), "--host") {
		t.Errorf("got %v", err)
	}
	s := Driver{}.Probe(t.Context(), runtime.Options{Host: missing})
	if s.Healthy || s.Reason == "" || s.Fix == "" || s.Endpoint != missing || !s.Installed {
		t.Errorf("got %+v", s)
	}
}

// TestSomebodyElseAnswers has another server behind the socket.
func TestSomebodyElseAnswers(t *testing.T) {
	cleanEnvironment(t)
	for _, tc := range []struct{ name, version, want string }{
		{"Podman", `{"Version":"5.4.0","ApiVersion":"1.41","Os":"linux","Components":[{"Name":"Podman Engine","Version":"5.4.0"}]}`, "--runtime=podman"},
		{"an old Docker", `{"Version":"19.03.1","ApiVersion":"1.40","Os":"linux"}`, "20.10"},
		{"Windows containers", `{"Version":"28.0.0","ApiVersion":"1.48","Os":"windows"}`, "Linux"},
		{"no Docker at all", `hello`, "--host"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			host := fakeDaemon(t, tc.version)
			_, err := Driver{}.Open(t.Context(), runtime.Options{Host: host})
			if !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v", err)
			}
			if s := (Driver{}).Probe(t.Context(), runtime.Options{Host: host}); s.Healthy || s.Reason == "" {
				t.Errorf("got %+v", s)
			}
		})
	}
}

func TestSSHArguments(t *testing.T) {
	for host, want := range map[string][]string{
		"ssh://host":                    {"--", "host", "docker", "system", "dial-stdio"},
		"ssh://user@host:2222":          {"-l", "user", "-p", "2222", "--", "host", "docker", "system", "dial-stdio"},
		"ssh://host/run/x/docker.sock":  {"--", "host", "docker", "--host", "unix:///run/x/docker.sock", "system", "dial-stdio"},
		"ssh://host/run/x;reboot":       nil,
		"ssh://user:password@host":      nil,
		"ssh://-oProxyCommand=reboot/x": nil,
		"ssh:///path":                   nil,
		"ssh://host?x=y":                nil,
	} {
		got, err := sshArgs(host)
		if (err != nil) != (want == nil) || want != nil && !slices.Equal(got[len(got)-len(want):], want) {
			t.Errorf("%s: %q, %v", host, got, err)
		}
		if err != nil && strings.Contains(err.Error(), "password@") {
			t.Errorf("the error tells the password: %v", err)
		}
	}
}

// TestSSHConnection has a program in ssh's place, which answers what it reads.
func TestSSHConnection(t *testing.T) {
	dir := t.TempDir()
	program := "#!/bin/sh\nread line\necho \"$* got $line\"\necho said >&2\n"
	if err := os.WriteFile(filepath.Join(dir, "ssh"), []byte(program), 0o700); err != nil { //nolint:gosec // a program
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	dial, err := sshDialer("ssh://host")
	if err != nil {
		t.Fatal(err)
	}
	var conn net.Conn
	if conn, err = dial(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer conn.Close() //nolint:errcheck // a test's
	if _, err := conn.Write([]byte("question\n")); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 512)
	n, err := conn.Read(buf)
	if err != nil || !strings.HasSuffix(string(buf[:n]), "host docker system dial-stdio got question\n") {
		t.Errorf("read %q, %v", buf[:n], err)
	}
	if _, err := conn.Read(buf); err == nil || !strings.Contains(err.Error(), "said") {
		t.Errorf("the end is not explained: %v", err)
	}
	t.Setenv("PATH", t.TempDir())
	if _, err := sshDialer("ssh://host"); !errdefs.IsUnavailable(err) {
		t.Errorf("without the program: %v", err)
	}
}

package docker

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/bottle-run/bottle/runtime"
)

// endpoint is where a daemon is asked for.
type endpoint struct {
	host string
	// source says why it is this one: "--host", "DOCKER_HOST", a context's name.
	source string
	// named reports that somebody asked for it.
	named bool
	// present reports that a socket is there.
	present bool
	tls     *tlsFiles
}

type tlsFiles struct{ ca, cert, key string }

func (e endpoint) scheme() string {
	scheme, _, _ := strings.Cut(e.host, "://")
	return scheme
}

// fix says what to do when nobody answers there.
func (e endpoint) fix() string {
	switch {
	case e.named:
		return fmt.Sprintf("the endpoint comes from %s: is a daemon running there?", e.source)
	case e.present:
		return "start the daemon (systemctl start docker), or add yourself to the group docker"
	}
	return "install Docker and start its daemon, or name another endpoint with --host or DOCKER_HOST"
}

// findEndpoint decides in the docker CLI's order: the host that was given,
// DOCKER_HOST, the context in DOCKER_CONTEXT or the CLI's configuration, then the
// usual sockets.
func findEndpoint(given string) (endpoint, error) {
	if given != "" {
		return checkEndpoint(endpoint{host: given, source: "--host", named: true})
	}
	if host := os.Getenv("DOCKER_HOST"); host != "" {
		return checkEndpoint(endpoint{host: host, source: "DOCKER_HOST", named: true})
	}
	ep, err := contextEndpoint()
	if err != nil || ep.host != "" {
		return ep, err
	}
	sockets := defaultSockets()
	for _, path := range sockets {
		if info, err := os.Stat(path); err == nil && info.Mode()&os.ModeSocket != 0 {
			return endpoint{host: "unix://" + path, source: "the usual sockets", present: true}, nil
		}
	}
	return endpoint{host: "unix://" + sockets[0], source: "the usual sockets"}, nil
}

// defaultSockets lists where daemons listen: a rootless one's before the system's.
func defaultSockets() []string {
	var paths []string
	if os.Geteuid() != 0 {
		if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" {
			paths = append(paths, filepath.Join(dir, "docker.sock"))
		}
		if home, err := os.UserHomeDir(); err == nil {
			paths = append(paths, filepath.Join(home, ".docker", "run", "docker.sock"))
		}
	}
	return append(paths, "/var/run/docker.sock")
}

func checkEndpoint(ep endpoint) (endpoint, error) {
	if strings.HasPrefix(ep.host, "/") {
		ep.host = "unix://" + ep.host
	}
	switch ep.scheme() {
	case "unix", "tcp", "ssh", "http", "https":
		if _, rest, _ := strings.Cut(ep.host, "://"); rest == "" {
			return ep, runtime.Errorf(errdefs.ErrInvalidArgument, "%q (from %s) names no address", ep.host, ep.source)
		}
	default:
		return ep, runtime.Errorf(errdefs.ErrInvalidArgument, "%q (from %s) is not an endpoint: it must begin with unix://, tcp:// or ssh://", ep.host, ep.source)
	}
	if path, ok := strings.CutPrefix(ep.host, "unix://"); ok {
		_, err := os.Stat(path)
		ep.present = err == nil
	}
	return ep, nil
}

// contextEndpoint reads the context that the docker CLI would use. The zero
// endpoint means the default one.
func contextEndpoint() (endpoint, error) {
	dir := os.Getenv("DOCKER_CONFIG")
	if dir == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return endpoint{}, nil //nolint:nilerr // without a home there are no contexts
		}
		dir = filepath.Join(home, ".docker")
	}
	name, source := os.Getenv("DOCKER_CONTEXT"), "DOCKER_CONTEXT"
	if name == "" {
		var config struct {
			CurrentContext string `json:"currentContext"`
		}
		content, err := os.ReadFile(filepath.Join(dir, "config.json"))
		if err != nil || json.Unmarshal(content, &config) != nil {
			return endpoint{}, nil //nolint:nilerr // the CLI's file is not ours to complain about
		}
		name, source = config.CurrentContext, "the current docker context"
	}
	if name == "" || name == "default" {
		return endpoint{}, nil
	}
	sum := sha256.Sum256([]byte(name))
	id := hex.EncodeToString(sum[:])
	content, err := os.ReadFile(filepath.Join(dir, "contexts", "meta", id, "meta.json"))
	if err != nil {
		return endpoint{}, runtime.Errorf(errdefs.ErrUnavailable, "docker context %q (from %s) cannot be read: %v", name, source, err)
	}
	var meta struct {
		Endpoints map[string]struct{ Host string }
	}
	if err := json.Unmarshal(content, &meta); err != nil {
		return endpoint{}, runtime.Errorf(errdefs.ErrInvalidArgument, "docker context %q (from %s): %v", name, source, err)
	}
	ep := endpoint{host: meta.Endpoints["docker"].Host, source: fmt.Sprintf("%s %q", source, name), named: true}
	files := filepath.Join(dir, "contexts", "tls", id, "docker")
	if _, err := os.Stat(files); err == nil {
		ep.tls = &tlsFiles{ifExists(files, "ca.pem"), ifExists(files, "cert.pem"), ifExists(files, "key.pem")}
	}
	return checkEndpoint(ep)
}

// ifExists is the path of a file, or empty if it is not there.
func ifExists(dir, name string) string {
	path := filepath.Join(dir, name)
	if _, err := os.Stat(path); err != nil {
		return ""
	}
	return path
}

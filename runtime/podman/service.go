package podman

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"

	"github.com/bottle-run/bottle/internal/atomicfile"
	"github.com/bottle-run/bottle/runtime"
	"github.com/bottle-run/bottle/runtime/internal/procs"
)

const (
	// serviceIdle is how long a service of ours outlives the last connection to
	// it: no orphan stays when this process is killed.
	serviceIdle = 15 * time.Second
	// serviceStart bounds the wait for a service to answer.
	serviceStart = 20 * time.Second
	// serviceStop is how long a service has to end before it is killed.
	serviceStop = 5 * time.Second
)

// service is a `podman system service` of our own: on a socket that nobody else
// knows, in a directory that nobody else may enter.
type service struct {
	binary string
	flags  []string // of podman itself
	dir    string
	config []byte
	log    *slog.Logger

	confPath string
	lock     *os.File

	mu    sync.Mutex
	cmd   *exec.Cmd
	ended chan struct{} // closed when cmd has ended
	stop  chan struct{} // closed to end the pings
	dead  bool          // closed for good
}

// runtimeDir is where sockets go: private to the user, gone with the session.
func runtimeDir() string {
	if os.Geteuid() == 0 {
		return "/run"
	}
	if d := os.Getenv("XDG_RUNTIME_DIR"); d != "" {
		return d
	}
	if d := "/run/user/" + strconv.Itoa(os.Geteuid()); isDir(d) {
		return d
	}
	return os.TempDir()
}

func isDir(p string) bool {
	info, err := os.Stat(p)
	return err == nil && info.IsDir()
}

// baseDir makes the directory that holds services and their configuration.
func baseDir() (string, error) {
	dir := filepath.Join(runtimeDir(), "bottle-podman-"+strconv.Itoa(os.Geteuid()))
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return "", err
	}
	return dir, checkPrivate(dir)
}

// startService starts a service and waits until it answers.
func startService(ctx context.Context, binary string, log *slog.Logger, flags ...string) (*service, error) {
	home, _ := os.UserHomeDir()
	config, err := mergedConfig(os.Getenv, home)
	if err != nil {
		return nil, runtime.WithKind(errdefs.ErrFailedPrecondition, fmt.Errorf("the configuration of Podman: %w", err))
	}
	s := &service{binary: binary, flags: flags, config: config, log: log, stop: make(chan struct{})}
	if err := s.prepare(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.start(ctx); err != nil {
		s.remove()
		return nil, err
	}
	go s.keepAlive()
	return s, nil
}

// prepare makes the directory and the configuration. The configuration lies
// beside it under the name of its content, because Podman's processes that clean
// up after a container read it again, when this process may be long gone.
func (s *service) prepare() error {
	base, err := baseDir()
	if err != nil {
		return err
	}
	unlock, err := lockDir(base)
	if err != nil {
		return err
	}
	defer unlock()
	sweep(base)
	sum := sha256.Sum256(s.config)
	s.confPath = filepath.Join(base, "containers-"+hex.EncodeToString(sum[:6])+".conf")
	if err := writeOnce(s.confPath, s.config); err != nil {
		return err
	}
	if s.dir, err = os.MkdirTemp(base, "s"); err != nil {
		return err
	}
	s.lock, err = holdDir(s.dir)
	return err
}

// sweep removes the directories of services and of seccomp profiles whose processes
// were killed, and ends the services: what such a service still does for a process that
// is gone is done, or given up, when it has ended.
func sweep(base string) {
	// Configurations that were not written to their end; the lock of base is held.
	parts, _ := filepath.Glob(filepath.Join(base, ".containers-*"))
	for _, f := range parts {
		_ = os.Remove(f)
	}
	dead, _ := deadBuilds(base)
	dirs, _ := filepath.Glob(filepath.Join(base, "[ps]*"))
	var ending sync.WaitGroup
	for _, d := range dirs {
		f, err := holdDir(d)
		if err != nil {
			continue // its process lives, or it was removed just now
		}
		ending.Go(func() {
			defer func() { _ = f.Close() }()
			endBuilds("unix://"+filepath.Join(d, socketFile), dead)
			endOrphan("unix://" + filepath.Join(d, socketFile))
			_ = os.RemoveAll(d)
		})
	}
	ending.Wait()
}

// endOrphan ends a service by its address, which is on its command line and on no
// other's, and returns when it has ended.
func endOrphan(uri string) {
	deadline, signal := time.Now().Add(serviceStop), terminateSignal
	for asked := map[int]bool{}; ; {
		pids := procs.With(uri)
		if len(pids) == 0 {
			return
		}
		if time.Now().After(deadline) {
			if signal == killSignal {
				return // it cannot be ended
			}
			deadline, signal, asked = time.Now().Add(serviceStop), killSignal, map[int]bool{}
		}
		for _, pid := range pids {
			if !asked[pid] {
				asked[pid] = true
				signalProcess(pid, signal)
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// SweepHost implements [runtime.HostSweeper].
func (Driver) SweepHost() { sweepBase() }

// sweepBase is sweep for a connection that needs no service of its own.
func sweepBase() {
	base := filepath.Join(runtimeDir(), "bottle-podman-"+strconv.Itoa(os.Geteuid()))
	if checkPrivate(base) != nil {
		return // most often there is none
	}
	unlock, err := lockDir(base)
	if err != nil {
		return
	}
	defer unlock()
	sweep(base)
	_ = os.Remove(base) // unless something is there
}

// socketFile is a service's socket, in its directory.
const socketFile = "podman.sock"

func (s *service) socket() string  { return filepath.Join(s.dir, socketFile) }
func (s *service) logPath() string { return filepath.Join(s.dir, "service.log") }
func (s *service) uri() string     { return "unix://" + s.socket() }

// start starts the process; the caller holds mu.
func (s *service) start(ctx context.Context) error {
	// A file and not a pipe: processes that outlive the service inherit it.
	out, err := os.OpenFile(s.logPath(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	_ = os.Remove(s.socket())
	args := append(slices.Clone(s.flags), "system", "service", "--time", strconv.Itoa(int(serviceIdle.Seconds())), s.uri())
	cmd := exec.Command(s.binary, args...) //nolint:gosec // the user's Podman
	cmd.Env = serviceEnv(os.Environ(), s.confPath)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.Dir = "/"
	// Out of the terminal's process group: Ctrl-C must not end the service before
	// the teardown that needs it.
	detach(cmd)
	if err := cmd.Start(); err != nil {
		return runtime.WithKind(errdefs.ErrUnavailable, fmt.Errorf("start %s system service: %w", s.binary, err))
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	s.cmd, s.ended = cmd, ended

	ctx, cancel := context.WithTimeout(ctx, serviceStart)
	defer cancel()
	// Podman says nowhere that it listens, so the socket is tried, at first every
	// millisecond.
	for wait := time.Millisecond; ; wait = min(wait*5/4, 100*time.Millisecond) {
		if c, err := net.Dial("unix", s.socket()); err == nil {
			return c.Close()
		}
		select {
		case <-ended:
			return runtime.WithKind(errdefs.ErrUnavailable, fmt.Errorf("podman system service ended: %s", s.lastWords()))
		case <-ctx.Done():
			s.kill()
			return fmt.Errorf("podman system service does not answer: %w", context.Cause(ctx))
		case <-time.After(wait):
		}
	}
}

// serviceEnv is the environment of a service: ours, without what would make
// Podman a client or a systemd unit.
func serviceEnv(environ []string, conf string) []string {
	env := make([]string, 0, len(environ)+1)
	for _, kv := range environ {
		switch name, _, _ := strings.Cut(kv, "="); name {
		case "CONTAINERS_CONF", "CONTAINER_HOST", "CONTAINER_CONNECTION", "CONTAINER_SSHKEY",
			"LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "NOTIFY_SOCKET":
			continue
		}
		env = append(env, kv)
	}
	return append(env, "CONTAINERS_CONF="+conf)
}

// lastWords are the last lines of the service's output.
func (s *service) lastWords() string {
	f, err := os.Open(s.logPath())
	if err != nil {
		return "it said nothing"
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size() > 2048 {
		_, _ = f.Seek(-2048, io.SeekEnd)
	}
	b, _ := io.ReadAll(f)
	text := strings.TrimSpace(string(b))
	if text == "" {
		return "it said nothing"
	}
	return text
}

// ensure starts the service anew if it has ended (this process may have been
// suspended for longer than the service waits). It reports whether it did.
func (s *service) ensure(ctx context.Context) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dead {
		return false, runtime.Errorf(errdefs.ErrUnavailable, "the connection is closed")
	}
	select {
	case <-s.ended:
	default:
		return false, nil
	}
	s.log.Debug("podman: the service ended; starting it again", "said", s.lastWords())
	return true, s.start(ctx)
}

// keepAlive keeps a runtime that is not used for a while from losing its service.
func (s *service) keepAlive() {
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", s.socket())
	}}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: serviceIdle}
	tick := time.NewTicker(serviceIdle / 3)
	defer tick.Stop()
	for {
		select {
		case <-s.stop:
			return
		case <-tick.C:
			if resp, err := client.Get("http://d/_ping"); err == nil {
				_, _ = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
			}
		}
	}
}

// close ends the service. inUse says that containers exist whose cleanup will
// need the configuration.
func (s *service) close(inUse bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dead {
		return nil
	}
	s.dead = true
	close(s.stop)
	s.kill()
	s.remove()
	if inUse {
		return nil
	}
	base := filepath.Dir(s.dir)
	unlock, err := lockDir(base)
	if err != nil {
		return nil // another process removed it
	}
	defer unlock()
	if others, _ := filepath.Glob(filepath.Join(base, "s*")); len(others) == 0 {
		_ = os.Remove(s.confPath)
		_ = os.Remove(base) // unless it holds another configuration
	}
	return nil
}

// kill ends the process.
func (s *service) kill() {
	if s.cmd == nil {
		return
	}
	terminate(s.cmd.Process)
	select {
	case <-s.ended:
	case <-time.After(serviceStop):
		_ = s.cmd.Process.Kill()
		<-s.ended
	}
}

func (s *service) remove() {
	if s.dir != "" {
		_ = os.RemoveAll(s.dir)
	}
	if s.lock != nil {
		_ = s.lock.Close()
	}
}

// writeOnce makes a file whose name stands for its content. Podman processes of
// other services read it at any time, so it is never there in part.
func writeOnce(path string, content []byte) error {
	if have, err := os.ReadFile(path); err == nil && bytes.Equal(have, content) {
		return nil
	}
	return atomicfile.Write(path, content, 0o600)
}

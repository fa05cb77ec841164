package docker

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/url"
	"os/exec"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"

	"github.com/bottle-run/bottle/runtime"
)

// sshDialer returns a function that connects to the daemon's socket on another
// machine through the user's own ssh program, with its keys, agent, jump hosts
// and known hosts. ssh://[user@]host[:port][/path/of/socket]
func sshDialer(host string) (func(context.Context) (net.Conn, error), error) {
	args, err := sshArgs(host)
	if err != nil {
		return nil, err
	}
	program, err := exec.LookPath("ssh")
	if err != nil {
		return nil, runtime.Errorf(errdefs.ErrUnavailable, "%s needs the program ssh: %v", host, err)
	}
	return func(ctx context.Context) (net.Conn, error) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		// The connection outlives the call that needed it first.
		return newCommandConn(exec.Command(program, args...)) //nolint:gosec // the arguments are checked
	}, nil
}

// sshArgs makes ssh's arguments. The remote end is the docker CLI's own relay
// to the socket, which every ssh:// host has for the docker CLI itself.
func sshArgs(host string) ([]string, error) {
	u, err := url.Parse(host)
	switch {
	case err != nil:
		return nil, fmt.Errorf("endpoint: %w", err)
	case u.Hostname() == "" || strings.HasPrefix(u.Hostname(), "-"):
		return nil, fmt.Errorf("endpoint %q has no host", host)
	case u.RawQuery != "" || u.Fragment != "":
		return nil, fmt.Errorf("endpoint %q: a query or fragment means nothing here", host)
	}
	if u.User != nil {
		if _, set := u.User.Password(); set {
			return nil, fmt.Errorf("endpoint ssh://%s: a password does not belong into it", u.Host)
		}
	}
	args := []string{"-T", "-o", "ConnectTimeout=30", "-o", "BatchMode=yes"}
	if name := u.User.Username(); u.User != nil && name != "" {
		args = append(args, "-l", name)
	}
	if u.Port() != "" {
		args = append(args, "-p", u.Port())
	}
	args = append(args, "--", u.Hostname(), "docker")
	if path := strings.TrimSuffix(u.Path, "/"); path != "" {
		if strings.ContainsAny(path, " \t\n'\"\\$`;&|<>(){}*?[]~#!") {
			return nil, fmt.Errorf("endpoint %q: the socket's path has a character that a shell would interpret", host)
		}
		args = append(args, "--host", "unix://"+path)
	}
	return append(args, "system", "dial-stdio"), nil
}

// commandConn is a connection over a program's standard input and output.
type commandConn struct {
	io.ReadCloser
	in     io.WriteCloser
	cmd    *exec.Cmd
	stderr *tail
	closed sync.Once
	// wait reaps the program and says when it has: all that it said is in stderr then.
	wait func() <-chan struct{}
}

// lastWords is how long a program whose output has ended may take to say why.
const lastWords = time.Second

func newCommandConn(cmd *exec.Cmd) (*commandConn, error) {
	c := &commandConn{cmd: cmd, stderr: &tail{max: 2048}}
	cmd.Stderr = c.stderr
	var err error
	if c.in, err = cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if c.ReadCloser, err = cmd.StdoutPipe(); err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	c.wait = sync.OnceValue(func() <-chan struct{} {
		reaped := make(chan struct{})
		go func() {
			defer close(reaped)
			_ = cmd.Wait() // its status says less than its words
		}()
		return reaped
	})
	return c, nil
}

// Read explains an early end by what the program said.
func (c *commandConn) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	if n == 0 && err != nil {
		select {
		case <-c.wait():
		case <-time.After(lastWords):
		}
		if said := strings.TrimSpace(c.stderr.String()); said != "" {
			err = fmt.Errorf("ssh: %s: %w", said, err)
		}
	}
	return n, err
}

func (c *commandConn) Write(p []byte) (int, error) { return c.in.Write(p) }

// CloseWrite passes an end of input on.
func (c *commandConn) CloseWrite() error { return c.in.Close() }

// Close ends the program.
func (c *commandConn) Close() error {
	c.closed.Do(func() {
		_ = c.in.Close()
		_ = c.cmd.Process.Kill()
		<-c.wait()
	})
	return nil
}

// The deadlines of a pipe to a program are not settable; the callers' contexts
// close the connection instead.

func (c *commandConn) SetDeadline(time.Time) error      { return nil }
func (c *commandConn) SetReadDeadline(time.Time) error  { return nil }
func (c *commandConn) SetWriteDeadline(time.Time) error { return nil }
func (c *commandConn) LocalAddr() net.Addr              { return commandAddr{} }
func (c *commandConn) RemoteAddr() net.Addr             { return commandAddr{} }

type commandAddr struct{}

func (commandAddr) Network() string { return "ssh" }
func (commandAddr) String() string  { return "ssh" }

// tail keeps the last bytes written to it.
type tail struct {
	mu  sync.Mutex
	max int
	buf bytes.Buffer
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf.Write(p)
	if extra := t.buf.Len() - t.max; extra > 0 {
		t.buf.Next(extra)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.buf.String()
}

package gitgate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/bottle-run/bottle/sidecar/config"
	"github.com/bottle-run/bottle/sidecar/gitgate/internal/pktline"
)

// The services of git that there are.
const (
	uploadPack  = "git-upload-pack"
	receivePack = "git-receive-pack"
)

// upstream opens sessions with one repository.
type upstream interface {
	// open begins a service. Version is that of the protocol to ask for: 2, or 0.
	open(ctx context.Context, service string, version int) (session, error)
}

// session is one run of a service.
type session interface {
	// advertisement reads what the service says first.
	advertisement() *pktline.Reader
	// ask sends a request of size bytes, -1 if that is not known, and returns a reader of
	// what is answered.
	ask(body io.Reader, size int64) (*pktline.Reader, error)
	// stream is the connection, nil if every request has its own.
	stream() io.Writer
	// trouble explains an error with what the upstream said beside its answer.
	trouble(err error) error
	close()
}

// connectTimeout is how long it may take until an upstream has answered for the first
// time.
const connectTimeout = time.Minute

// upstreamError is an error of the upstream's, or of the way there.
type upstreamError struct{ err error }

func (e *upstreamError) Error() string { return e.err.Error() }
func (e *upstreamError) Unwrap() error { return e.err }

func upstreamFailed(format string, args ...any) error {
	return &upstreamError{fmt.Errorf(format, args...)}
}

// lines is a bounded record of what an upstream says on the side.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

const maxLines = 4 << 10

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if room := maxLines - l.b.Len(); room > 0 {
		l.b.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.TrimSpace(printable(l.b.String()))
}

// printable replaces what a terminal could take for a command.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' {
			return r
		}
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 || r == 0xfffd {
			return '?'
		}
		return r
	}, s)
}

// pipe is a session over one connection.
type pipe struct {
	w      io.Writer
	r      *pktline.Reader
	side   *lines
	settle func() // waits for the last of side
	end    func()
	ended  sync.Once
	stop   func() bool
}

// newPipe makes a session that ends with a context.
func newPipe(ctx context.Context, r io.Reader, w io.Writer, end func()) *pipe {
	p := &pipe{w: w, r: pktline.NewReader(r), side: &lines{}, end: end}
	p.stop = context.AfterFunc(ctx, p.finish)
	return p
}

func (p *pipe) finish() { p.ended.Do(p.end) }

func (p *pipe) advertisement() *pktline.Reader { return p.r }

func (p *pipe) ask(body io.Reader, _ int64) (*pktline.Reader, error) {
	if _, err := io.Copy(p.w, body); err != nil {
		return nil, upstreamFailed("sending to the upstream: %w", err)
	}
	return p.r, nil
}

func (p *pipe) stream() io.Writer { return p.w }

func (p *pipe) trouble(err error) error {
	if p.settle != nil {
		p.settle()
	}
	if said := p.side.String(); said != "" {
		return upstreamFailed("%w; the upstream says: %s", err, said)
	}
	return err
}

func (p *pipe) close() {
	p.stop()
	p.finish()
}

// gitUpstream speaks to a git daemon.
type gitUpstream struct {
	url  *config.GitURL
	dial dialer
}

func (u *gitUpstream) open(ctx context.Context, service string, version int) (session, error) {
	dctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	conn, err := u.dial(dctx, "tcp", net.JoinHostPort(u.url.Host, strconv.Itoa(int(u.url.Port))))
	if err != nil {
		return nil, &upstreamError{err}
	}
	request := service + " " + u.url.Path + "\x00host=" + net.JoinHostPort(u.url.Host, strconv.Itoa(int(u.url.Port))) + "\x00"
	if version != 0 {
		request += fmt.Sprintf("\x00version=%d\x00", version)
	}
	p := newPipe(ctx, conn, conn, func() { _ = conn.Close() })
	if _, err := conn.Write(pktline.AppendString(nil, request)); err != nil {
		p.close()
		return nil, upstreamFailed("sending to the upstream: %w", err)
	}
	return p, nil
}

// fileUpstream runs git itself on a directory. The built-in image has no git.
type fileUpstream struct{ url *config.GitURL }

// errNoGit says that files cannot be served.
var errNoGit = errors.New("a URL of a file needs the program git in the gate's image, and there is none: give an image that has it, or serve the repository over https, ssh or git")

func checkGit() error {
	if _, err := exec.LookPath("git"); err != nil {
		return errNoGit
	}
	return nil
}

func (u *fileUpstream) open(ctx context.Context, service string, version int) (session, error) {
	name := strings.TrimPrefix(service, "git-")
	cmd := exec.Command("git", "-c", "safe.directory="+u.url.Path, name, u.url.Path)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null", "LC_ALL=C"}
	if version != 0 {
		cmd.Env = append(cmd.Env, fmt.Sprintf("GIT_PROTOCOL=version=%d", version))
	}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, &upstreamError{err}
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, &upstreamError{err}
	}
	side := &lines{}
	cmd.Stderr = side
	cmd.WaitDelay = time.Second
	if err := cmd.Start(); err != nil {
		return nil, upstreamFailed("running git: %w", err)
	}
	waited := sync.OnceFunc(func() { _ = cmd.Wait() }) // what is wrong, it has said
	p := newPipe(ctx, stdout, stdin, func() {
		stdin.Close()
		// A receive-pack that is at work ends by itself when its input has ended.
		timer := time.AfterFunc(5*time.Second, func() { _ = cmd.Process.Kill() })
		defer timer.Stop()
		_, _ = io.Copy(io.Discard, stdout)
		waited()
	})
	p.side = side
	p.settle = p.finish
	return p, nil
}

package containerd

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bottle-run/bottle/runtime"
)

// streams are the FIFOs between this process and a shim.
type streams struct {
	dir            string
	stdin          string // its path, or empty
	stdout, stderr *fifo
	// peers keep the FIFOs from looking ended before the shim has opened them.
	peers   []*os.File
	pumps   []*pump
	pending atomic.Int32
	done    chan struct{} // closed when all pumps have ended
	failed  chan error    // the first error of a writer
	closed  chan struct{} // closed when nothing is copied any more
}

// fifo is a FIFO that is read, and this process's end of it.
type fifo struct {
	path string
	f    *os.File
}

func (f *fifo) name() string {
	if f == nil {
		return ""
	}
	return f.path
}

func (e *Engine) openStreams(id string, spec runtime.ExecSpec) (_ *streams, err error) {
	s := &streams{dir: filepath.Join(e.run, "exec", e.name, id), done: make(chan struct{}), failed: make(chan error, 2), closed: make(chan struct{})}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if spec.Stdin != nil {
		path := filepath.Join(s.dir, "stdin")
		if err := unix.Mkfifo(path, 0o600); err != nil {
			return nil, err
		}
		s.stdin = path
	}
	if s.stdout, err = s.make("stdout"); err != nil {
		return nil, err
	}
	if !spec.TTY {
		if s.stderr, err = s.make("stderr"); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// make makes a FIFO and opens both its ends, ours to read and for now the shim's: a
// reader alone sees its end.
func (s *streams) make(name string) (*fifo, error) {
	path := filepath.Join(s.dir, name)
	if err := unix.Mkfifo(path, 0o600); err != nil {
		return nil, err
	}
	reader, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	writer, err := os.OpenFile(path, os.O_WRONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		_ = reader.Close()
		return nil, err
	}
	s.peers = append(s.peers, writer)
	return &fifo{path, reader}, nil
}

// start copies, once the shim has opened its ends. endInput tells the shim that
// there is no more input.
func (s *streams) start(spec runtime.ExecSpec, endInput func()) {
	for _, p := range s.peers {
		_ = p.Close()
	}
	s.peers = nil
	s.pump(s.stdout, spec.Stdout)
	s.pump(s.stderr, spec.Stderr)
	for _, p := range s.pumps {
		go func() {
			if err := p.run(); err != nil {
				s.failed <- err
			}
			if s.pending.Add(-1) == 0 {
				close(s.done)
			}
		}()
	}
	if s.stdin == "" {
		return
	}
	// Not waited for: a Read of the caller's may never return.
	go func() {
		if f := s.openInput(); f != nil {
			go func() { <-s.closed; _ = f.Close() }() // ends a write that waits
			_, _ = io.Copy(struct{ io.Writer }{f}, spec.Stdin)
			_ = f.Close()
		}
		endInput()
	}()
}

// openInput opens our end of the input once the shim has opened its own, which it may
// do long after it has started the process. Without a reader, what is written is lost,
// and one that comes when the writer has gone waits forever. It returns nil if nothing
// is copied any more.
func (s *streams) openInput() *os.File {
	for pause := 100 * time.Microsecond; ; pause = min(2*pause, 10*time.Millisecond) {
		f, err := os.OpenFile(s.stdin, os.O_WRONLY|unix.O_NONBLOCK, 0)
		if err == nil {
			return f
		}
		if !errors.Is(err, unix.ENXIO) {
			return nil
		}
		select {
		case <-s.closed:
			return nil
		case <-time.After(pause):
		}
	}
}

func (s *streams) pump(f *fifo, to io.Writer) {
	if f == nil {
		return
	}
	if to == nil {
		to = io.Discard
	}
	s.pumps = append(s.pumps, &pump{from: f.f, to: to})
	s.pending.Add(1)
}

func (s *streams) open() bool { return s.pending.Load() > 0 }

func (s *streams) failure() error {
	select {
	case err := <-s.failed:
		return err
	default:
		return nil
	}
}

// count is how many bytes have been copied.
func (s *streams) count() (n int64) {
	for _, p := range s.pumps {
		n += p.copied.Load()
	}
	return n
}

// busy reports whether a caller's writer is taking its time.
func (s *streams) busy() bool {
	return slices.ContainsFunc(s.pumps, func(p *pump) bool { return p.writing.Load() })
}

// hurry ends reads that wait.
func (s *streams) hurry() {
	for _, p := range s.pumps {
		_ = p.from.SetReadDeadline(time.Now())
	}
}

func (s *streams) close() {
	close(s.closed)
	for _, f := range []*fifo{s.stdout, s.stderr} {
		if f != nil {
			_ = f.f.Close()
		}
	}
	for _, p := range s.peers {
		_ = p.Close()
	}
	_ = os.RemoveAll(s.dir)
}

// pump copies one stream out.
type pump struct {
	from    *os.File
	to      io.Writer
	copied  atomic.Int64
	writing atomic.Bool
}

// run copies until the stream ends, and returns an error of the writer's.
func (p *pump) run() error {
	buf := make([]byte, 64<<10)
	for {
		n, err := p.from.Read(buf)
		if n > 0 {
			p.writing.Store(true)
			_, werr := p.to.Write(buf[:n])
			p.writing.Store(false)
			p.copied.Add(int64(n))
			if werr != nil {
				return fmt.Errorf("write the command's output: %w", werr)
			}
		}
		if err != nil {
			return nil
		}
	}
}

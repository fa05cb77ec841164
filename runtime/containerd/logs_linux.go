package containerd

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	tasks "github.com/containerd/containerd/api/services/tasks/v1"
	"golang.org/x/sys/unix"

	"github.com/bottle-run/bottle/runtime"
	"github.com/bottle-run/bottle/runtime/internal/procs"
	"github.com/bottle-run/bottle/runtime/internal/tinyinit"
)

// Logs implements [runtime.Containers].
func (e *Engine) Logs(ctx context.Context, name string, opts runtime.LogOptions) error {
	return wrap(ctx, "read logs of container", name, e.logs(e.ctx(ctx), name, opts))
}

func (e *Engine) logs(ctx context.Context, name string, opts runtime.LogOptions) error {
	c, err := e.find(ctx, name)
	if err != nil {
		return err
	}
	f, err := os.Open(filepath.Join(e.containerDir(c.ID), logFile))
	if errors.Is(err, os.ErrNotExist) {
		return notFound("it has been removed")
	}
	if err != nil {
		return err
	}
	defer f.Close()
	r := &logReader{file: f, opts: opts}
	if !opts.Follow {
		if err := r.settle(ctx); err != nil {
			return err
		}
		return r.all(ctx)
	}
	return e.follow(ctx, c.ID, r)
}

// follow writes what comes until the process has ended and its last words are
// written.
func (e *Engine) follow(ctx context.Context, id string, r *logReader) error {
	watch, err := newWatch(r.file.Name())
	if err != nil {
		return err
	}
	defer watch.close()
	waiting, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = e.tasks().Wait(waiting, &tasks.WaitRequest{ContainerID: id})
		watch.wake()
	}()
	defer context.AfterFunc(ctx, watch.wake)()
	for {
		over := false
		select {
		case <-ended:
			over = true
			if err := r.settle(ctx); err != nil {
				return err
			}
		default:
		}
		if err := r.all(ctx); err != nil || over {
			return err
		}
		if err := watch.wait(); err != nil {
			return err
		}
		if err := context.Cause(ctx); err != nil {
			return err
		}
	}
}

// logReader reads the records of a log file (see package tinyinit).
type logReader struct {
	file *os.File
	opts runtime.LogOptions
	at   int64
	// begun is set when the beginning has been looked for.
	begun bool
	// skip leaves out what is before the last lines, per kind of record.
	skip map[uint8]int64
	data [tinyinit.LogData]byte
}

// settle waits until all that the container has written so far is in the file: it
// asks the logger, if that still lives, to say when.
func (r *logReader) settle(ctx context.Context) error {
	end, err := r.file.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	watch, err := newWatch(r.file.Name())
	if errors.Is(err, os.ErrNotExist) {
		return nil // removed: the logger is gone
	}
	if err != nil {
		return err
	}
	defer watch.close()
	defer context.AfterFunc(ctx, watch.wake)()
	asked := false
	from := end
	for {
		// The lock is the logger's as long as it lives.
		if flock(r.file, unix.LOCK_SH|unix.LOCK_NB) == nil {
			return flock(r.file, unix.LOCK_UN)
		}
		if !asked {
			if asked, err = r.ask(); err != nil || !asked {
				return err
			}
		}
		for {
			rec, _, ok, err := r.record(&from)
			if err != nil {
				return err
			}
			if !ok {
				break
			}
			if rec.Kind == tinyinit.LogSync {
				return nil
			}
		}
		if err := watch.wait(); err != nil {
			return err
		}
		if err := context.Cause(ctx); err != nil {
			return err
		}
	}
}

// ask sends the logger its signal; false if it is gone or not to be found.
func (r *logReader) ask() (bool, error) {
	var at int64
	rec, data, ok, err := r.record(&at)
	if err != nil || !ok || rec.Kind != tinyinit.LogStart || len(data) != 4 {
		return false, err
	}
	pid := int(binary.LittleEndian.Uint32(data))
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return false, nil
	}
	defer closeFD(fd)
	// Its command line names the file: the PID has not become another's.
	line, err := os.ReadFile(procs.File(pid, "cmdline"))
	if err != nil || !bytes.Contains(line, []byte("\x00log\x00"+r.file.Name()+"\x00")) {
		return false, nil
	}
	return unix.PidfdSendSignal(fd, unix.SIGUSR1, nil, 0) == nil, nil
}

// record reads the record at a place and moves the place behind it. ok is false at
// the end of what has been written.
func (r *logReader) record(at *int64) (rec tinyinit.LogRecord, data []byte, ok bool, err error) {
	for {
		var header [tinyinit.LogHeader]byte
		chunkEnd := (*at/tinyinit.LogChunk + 1) * tinyinit.LogChunk
		if *at+tinyinit.LogHeader <= chunkEnd {
			n, err := r.file.ReadAt(header[:], *at)
			if err != nil && !errors.Is(err, io.EOF) {
				return rec, nil, false, err
			}
			if n < len(header) {
				clear(header[:])
			}
		}
		rec.Time = binary.LittleEndian.Uint64(header[:])
		rec.Size = binary.LittleEndian.Uint32(header[8:])
		rec.Kind = header[12]
		if rec.Kind == 0 {
			// The rest of a chunk, if there is something behind it.
			st, err := r.file.Stat()
			if err != nil {
				return rec, nil, false, err
			}
			if st.Size() <= chunkEnd {
				return rec, nil, false, nil
			}
			*at = chunkEnd
			continue
		}
		if rec.Size > tinyinit.LogData {
			return rec, nil, false, fmt.Errorf("the log is damaged at %d", *at)
		}
		data = r.data[:rec.Size]
		if _, err := r.file.ReadAt(data, *at+tinyinit.LogHeader); err != nil {
			return rec, nil, false, err
		}
		*at += tinyinit.LogHeader + int64(rec.Size)
		return rec, data, true, nil
	}
}

// begin finds the first record to write: the first that is kept, or that of the
// last lines.
func (r *logReader) begin(ctx context.Context) error {
	r.begun = true
	first, err := r.file.Seek(0, unix.SEEK_DATA)
	switch {
	case errors.Is(err, unix.ENXIO):
		first = 0
	case err != nil:
		return err
	}
	if first >= tinyinit.LogChunk {
		// Whole chunks are given back.
		r.at = (first + tinyinit.LogChunk - 1) / tinyinit.LogChunk * tinyinit.LogChunk
	}
	if r.opts.Tail <= 0 {
		return nil
	}
	type line struct {
		kind uint8
		// place counts bytes of the stream's data from r.at on.
		place int64
	}
	lines := make([]line, 0, min(r.opts.Tail, 1<<16))
	next := 0
	seen := map[uint8]int64{}
	fresh := map[uint8]bool{tinyinit.LogStdout: true, tinyinit.LogStderr: true}
	for at := r.at; ; {
		rec, data, ok, err := r.record(&at)
		if err != nil {
			return err
		}
		if !ok {
			break
		}
		if err := context.Cause(ctx); err != nil {
			return err
		}
		if !r.wanted(rec) {
			continue
		}
		for len(data) > 0 {
			if fresh[rec.Kind] {
				l := line{rec.Kind, seen[rec.Kind]}
				if len(lines) < r.opts.Tail {
					lines = append(lines, l)
				} else {
					lines[next] = l
					next = (next + 1) % len(lines)
				}
			}
			n := bytes.IndexByte(data, '\n') + 1
			fresh[rec.Kind] = n > 0
			if n == 0 {
				n = len(data)
			}
			seen[rec.Kind] += int64(n)
			data = data[n:]
		}
	}
	r.skip = seen
	for _, l := range lines {
		r.skip[l.kind] = min(r.skip[l.kind], l.place)
	}
	return nil
}

func (r *logReader) wanted(rec tinyinit.LogRecord) bool {
	if rec.Kind != tinyinit.LogStdout && rec.Kind != tinyinit.LogStderr {
		return false
	}
	return r.opts.Since.IsZero() || !time.Unix(0, int64(rec.Time)).Before(r.opts.Since)
}

// all writes what is there.
func (r *logReader) all(ctx context.Context) error {
	if !r.begun {
		if err := r.begin(ctx); err != nil {
			return err
		}
	}
	for {
		rec, data, ok, err := r.record(&r.at)
		if err != nil || !ok {
			return err
		}
		if err := context.Cause(ctx); err != nil {
			return err
		}
		if !r.wanted(rec) {
			continue
		}
		if left := r.skip[rec.Kind]; left > 0 {
			n := min(left, int64(len(data)))
			r.skip[rec.Kind] -= n
			data = data[n:]
		}
		to := r.opts.Stdout
		if rec.Kind == tinyinit.LogStderr {
			to = r.opts.Stderr
		}
		if to == nil || len(data) == 0 {
			continue
		}
		if r.opts.Stamp != nil {
			r.opts.Stamp(time.Unix(0, int64(rec.Time)))
		}
		if _, err := to.Write(data); err != nil {
			return fmt.Errorf("write the log: %w", err)
		}
	}
}

// fileWatch waits for changes of a file.
type fileWatch struct {
	inotify *os.File
}

func newWatch(path string) (*fileWatch, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, err
	}
	if _, err := unix.InotifyAddWatch(fd, path, unix.IN_MODIFY|unix.IN_CLOSE_WRITE|unix.IN_ATTRIB|unix.IN_DELETE_SELF); err != nil {
		_ = unix.Close(fd)
		return nil, &os.PathError{Op: "watch", Path: path, Err: err}
	}
	return &fileWatch{inotify: os.NewFile(uintptr(fd), "inotify")}, nil
}

// wait returns when the file has changed since the last wait, or wake was called.
func (w *fileWatch) wait() error {
	var buf [4096]byte
	_, err := w.inotify.Read(buf[:])
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil
	}
	return err
}

// wake ends every wait from now on.
func (w *fileWatch) wake() { _ = w.inotify.SetReadDeadline(time.Unix(1, 0)) }

func (w *fileWatch) close() { _ = w.inotify.Close() }

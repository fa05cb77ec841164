package podman

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/containerd/errdefs"

	"github.com/bottle-run/bottle/runtime"
)

// errWrite marks an error of the caller's writer.
var errWrite = errors.New("write the output")

// The streams of multiplexed output: a header of eight bytes (stream, three
// zeros, length) before every piece.
const (
	streamStdin  = 0
	streamStdout = 1
	streamStderr = 2
	streamError  = 3
)

// demultiplex copies multiplexed output to its writers until it ends.
func demultiplex(r io.Reader, stdout, stderr io.Writer) error {
	if stdout == nil {
		stdout = io.Discard
	}
	if stderr == nil {
		stderr = io.Discard
	}
	buf := make([]byte, 64<<10)
	var header [8]byte
	for {
		if _, err := io.ReadFull(r, header[:]); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return fmt.Errorf("output: %w", err)
		}
		size := int64(binary.BigEndian.Uint32(header[4:]))
		var w io.Writer
		switch header[0] {
		case streamStdin, streamStdout:
			w = stdout
		case streamStderr:
			w = stderr
		case streamError:
			b, _ := io.ReadAll(io.LimitReader(r, min(size, maxError)))
			return runtime.Errorf(errdefs.ErrInternal, "the service: %s", b)
		default:
			return runtime.Errorf(errdefs.ErrInternal, "the service sent a stream of unknown kind %d", header[0])
		}
		if err := copyExactly(w, r, size, buf); err != nil {
			return err
		}
	}
}

// copyExactly copies size bytes with the given buffer: in one write, if they fit.
func copyExactly(w io.Writer, r io.Reader, size int64, buf []byte) error {
	for size > 0 {
		n, err := io.ReadFull(r, buf[:min(size, int64(len(buf)))])
		if n > 0 {
			size -= int64(n)
			if _, werr := w.Write(buf[:n]); werr != nil {
				return fmt.Errorf("%w: %w", errWrite, werr)
			}
		}
		if err != nil && size > 0 {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return fmt.Errorf("output: %w", err)
		}
	}
	return nil
}

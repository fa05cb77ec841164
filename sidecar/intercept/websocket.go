package intercept

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

// switchProtocols passes on what goes through a WebSocket, in both directions.
func (f *Forwarder) switchProtocols(w http.ResponseWriter, r *Request, resp *http.Response, in Inspection, watch *watch) Result {
	upstream, ok := resp.Body.(io.ReadWriteCloser)
	if !ok || !IsWebSocket(r.Request) {
		return Result{Err: errors.New("the upstream switched to a protocol that was not asked for")}
	}
	if resp.Header.Get("Sec-Websocket-Extensions") != "" {
		return Result{Err: errors.New("the upstream uses an extension of WebSocket that was not asked for")}
	}
	client, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return Result{Err: fmt.Errorf("taking the connection over: %w", err)}
	}
	defer client.Close()
	res := Result{Status: resp.StatusCode}
	removeHop(resp.Header)
	head := http.Header{"Connection": {"Upgrade"}, "Upgrade": {"websocket"}}
	copyHeader(head, resp.Header, in.Mask)
	out := &lockedWriter{w: client}
	hw := bufio.NewWriter(out)
	fmt.Fprintf(hw, "HTTP/1.1 101 Switching Protocols\r\n")
	if err := errors.Join(head.Write(hw), second(hw.WriteString("\r\n")), hw.Flush()); err != nil {
		res.Err = fmt.Errorf("answering the client: %w", err)
		return res
	}
	// The watch is of the request, which is over: it would end the connection although
	// something moves.
	watch.stop()
	end := sync.OnceFunc(func() {
		client.Close()
		upstream.Close()
	})
	defer end()
	idle := newWatch(f.Idle, end)
	defer idle.stop()
	defer func() {
		if idle.fired.Load() {
			watch.fired.Store(true)
		}
	}()

	type ended struct {
		n   int64
		err error
	}
	down := make(chan ended, 1)
	go func() {
		n, err := pump(out, in.Mask.Reader(upstream), idle, nil)
		end()
		down <- ended{n, err}
	}()
	var inspect func([]byte) error
	if in.Frames != nil {
		frames := &frameReader{inspect: in.Frames}
		inspect = frames.feed
	}
	n, err := pump(upstream, buffered, idle, inspect)
	res.BytesOut = n
	var refused *frameError
	if errors.As(err, &refused) {
		out.close(1008, "refused by bottle")
		res.Err = refused.err
	}
	end()
	d := <-down
	res.BytesIn = d.n
	return res
}

func second(_ int, err error) error { return err }

// pump copies until either end closes.
func pump(dst io.Writer, src io.Reader, idle *watch, inspect func([]byte) error) (int64, error) {
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	var total int64
	for {
		n, err := src.Read(*buf)
		idle.moved()
		if n > 0 {
			if inspect != nil {
				if err := inspect((*buf)[:n]); err != nil {
					return total, &frameError{err}
				}
			}
			if _, err := dst.Write((*buf)[:n]); err != nil {
				return total, err
			}
			total += int64(n)
			idle.moved()
		}
		if err != nil {
			return total, err
		}
	}
}

type frameError struct{ err error }

func (e *frameError) Error() string { return e.err.Error() }

// lockedWriter keeps a closing frame from getting into another.
type lockedWriter struct {
	mu     sync.Mutex
	w      net.Conn
	closed bool
}

func (l *lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return 0, net.ErrClosed
	}
	return l.w.Write(p)
}

// close sends a closing frame. Within a frame of the upstream's that is not yet whole
// it cannot be understood, and the connection just ends.
func (l *lockedWriter) close(code uint16, reason string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	frame := []byte{0x88, byte(2 + len(reason))}
	frame = append(binary.BigEndian.AppendUint16(frame, code), reason...)
	_ = l.w.SetWriteDeadline(time.Now().Add(time.Second))
	_, _ = l.w.Write(frame)
}

// frameReader follows the frames of a client and unmasks what is in them.
type frameReader struct {
	inspect func([]byte) error
	head    []byte
	left    uint64
	mask    [4]byte
	at      int
	plain   [4 << 10]byte
}

func (f *frameReader) feed(p []byte) error {
	for len(p) > 0 {
		if f.left == 0 {
			f.head = append(f.head, p[0])
			p = p[1:]
			if err := f.begin(); err != nil {
				return err
			}
			continue
		}
		n := int(min(uint64(len(p)), f.left, uint64(len(f.plain))))
		for i, b := range p[:n] {
			f.plain[i] = b ^ f.mask[f.at&3]
			f.at++
		}
		f.left -= uint64(n)
		p = p[n:]
		if err := f.inspect(f.plain[:n]); err != nil {
			return err
		}
	}
	return nil
}

// begin reads the head of a frame once it is whole.
func (f *frameReader) begin() error {
	if len(f.head) == 1 && f.head[0]&0x70 != 0 {
		return errors.New("a WebSocket frame uses an extension that was not agreed on")
	}
	if len(f.head) < 2 {
		return nil
	}
	if f.head[1]&0x80 == 0 {
		return errors.New("a WebSocket frame of the client is not masked")
	}
	size := 2
	switch f.head[1] & 0x7f {
	case 126:
		size += 2
	case 127:
		size += 8
	}
	if len(f.head) < size+4 {
		return nil
	}
	switch size {
	case 2:
		f.left = uint64(f.head[1] & 0x7f)
	case 4:
		f.left = uint64(binary.BigEndian.Uint16(f.head[2:]))
	default:
		f.left = binary.BigEndian.Uint64(f.head[2:])
		if f.left > 1<<62 {
			return errors.New("a WebSocket frame is too long")
		}
	}
	copy(f.mask[:], f.head[size:])
	f.head, f.at = f.head[:0], 0
	return nil
}

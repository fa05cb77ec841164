package world

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
)

// Bind listens at an address of the world. The socket is made in the world and handed to
// this process, which serves what it likes there, whatever user it runs as.
func (c *client) Bind(ctx context.Context, at netip.AddrPort) (net.Listener, error) {
	l, err := c.bind(ctx, at)
	if err != nil {
		return nil, fmt.Errorf("listen in the world at %s: %w", at, err)
	}
	return l, nil
}

func (c *client) bind(ctx context.Context, at netip.AddrPort) (net.Listener, error) {
	// A connection of its own: the descriptor comes beside the bytes.
	conn, err := new(net.Dialer).DialContext(ctx, "unix", c.socket)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	line, err := json.Marshal(request{Bind: &at})
	if err != nil {
		return nil, err
	}
	if _, err := conn.Write(append(line, '\n')); err != nil {
		return nil, err
	}
	var data []byte
	var fds []int
	defer func() {
		for _, fd := range fds {
			_ = syscall.Close(fd)
		}
	}()
	buf, oob := make([]byte, 4096), make([]byte, syscall.CmsgSpace(4))
	for bytes.Count(data, []byte("\n")) < 2 { // the greeting, and the answer
		n, oobn, _, _, err := conn.(*net.UnixConn).ReadMsgUnix(buf, oob)
		if err != nil {
			return nil, errors.Join(err, context.Cause(ctx))
		}
		if n == 0 && oobn == 0 {
			return nil, errors.New("the world has hung up")
		}
		data = append(data, buf[:n]...)
		messages, err := syscall.ParseSocketControlMessage(oob[:oobn])
		if err != nil {
			return nil, err
		}
		for _, m := range messages {
			more, err := syscall.ParseUnixRights(&m)
			if err != nil {
				return nil, err
			}
			fds = append(fds, more...)
		}
	}
	var r response
	if err := json.Unmarshal(bytes.SplitN(data, []byte("\n"), 3)[1], &r); err != nil {
		return nil, err
	}
	if r.Error != "" {
		return nil, errors.New(r.Error)
	}
	if len(fds) != 1 {
		return nil, fmt.Errorf("the world gave %d sockets", len(fds))
	}
	// The world has let go of the socket when it hangs up: from then on it is the caller's alone.
	if err := conn.(*net.UnixConn).CloseWrite(); err != nil {
		return nil, err
	}
	if _, err := io.Copy(io.Discard, conn); err != nil {
		return nil, errors.Join(err, context.Cause(ctx))
	}
	f := os.NewFile(uintptr(fds[0]), "listener")
	fds = nil
	l, err := net.FileListener(f)
	return l, errors.Join(err, f.Close())
}

// bind makes a listener in the world and hands it over with the answer.
func (s *server) bind(conn net.Conn, at netip.AddrPort) error {
	if !s.layout.A.Contains(at.Addr()) && !s.layout.B.Contains(at.Addr()) && !s.layout.V6.Contains(at.Addr()) && at.Addr() != s.layout.Metadata {
		return fmt.Errorf("%s is not of the world", at.Addr())
	}
	var l net.Listener
	err := s.ns.run(func() (err error) {
		l, err = anywhere.Listen(context.Background(), "tcp", at.String())
		return err
	})
	if err != nil {
		return err
	}
	defer func() { _ = l.Close() }()
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	line, err := json.Marshal(response{Addr: &at})
	if err != nil {
		return err
	}
	_, _, err = conn.(*net.UnixConn).WriteMsgUnix(append(line, '\n'), syscall.UnixRights(int(f.Fd())), nil)
	return err
}

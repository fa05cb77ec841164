package docker

import (
	"context"
	"fmt"
	"io"

	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/client"

	"github.com/bottle-run/bottle/runtime"
	"github.com/bottle-run/bottle/runtime/internal/handshake"
)

// conversation is a handshake with a container's first process, or none.
type conversation struct {
	e    *engine
	id   string
	with *runtime.Handshake
	conn *client.HijackedResponse
}

// attach connects to the streams of a container that has not been started.
func (c *conversation) attach(ctx context.Context) error {
	if c.with == nil {
		return nil
	}
	res, err := detached(ctx, func(ctx context.Context) (client.ContainerAttachResult, error) {
		return c.e.cli.ContainerAttach(ctx, c.id, client.ContainerAttachOptions{Stream: true, Stdin: true, Stderr: true})
	}, func(_ context.Context, res client.ContainerAttachResult) error {
		res.Close()
		return nil
	})
	if err != nil {
		return fmt.Errorf("attach to its process: %w", err)
	}
	c.conn = &res.HijackedResponse
	return nil
}

// have has the handshake with a container that has been started.
func (c *conversation) have(ctx context.Context) error {
	if c.with == nil {
		return nil
	}
	attached := handshake.Attached{
		Errors: func(w io.Writer) error {
			_, err := stdcopy.StdCopy(io.Discard, w, c.conn.Reader)
			return err
		},
		Log: func(ctx context.Context, w io.Writer) error {
			stream, err := c.e.cli.ContainerLogs(ctx, c.id, client.ContainerLogsOptions{ShowStderr: true})
			if err != nil {
				return err
			}
			defer stream.Close() //nolint:errcheck // only read
			_, err = stdcopy.StdCopy(io.Discard, w, stream)
			return err
		},
		Ended: func(ctx context.Context) (runtime.ExitStatus, error) { return c.e.ended(ctx, c.id) },
	}
	return handshake.Do(ctx, c.with, attached.Process(ctx, inputOf{c.conn}))
}

// close lets go of the streams.
func (c *conversation) close() {
	if c.conn != nil {
		c.conn.Close()
	}
}

// inputOf is the input's side of a connection.
type inputOf struct{ *client.HijackedResponse }

func (i inputOf) Write(p []byte) (int, error) { return i.Conn.Write(p) }

// Close ends the input alone.
func (i inputOf) Close() error { return i.CloseWrite() }

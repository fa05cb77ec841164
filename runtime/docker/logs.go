package docker

import (
	"context"
	"fmt"
	"io"
	"strconv"

	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/client"

	"github.com/bottle-run/bottle/runtime"
	"github.com/bottle-run/bottle/runtime/internal/logstamp"
)

// Logs writes what a container's process wrote.
func (e *engine) Logs(ctx context.Context, name string, opts runtime.LogOptions) error {
	const op = "read logs of container"
	c, err := e.own(ctx, name)
	if err != nil {
		return fail(ctx, op, name, err)
	}
	options := client.ContainerLogsOptions{ShowStdout: true, ShowStderr: true, Follow: opts.Follow}
	if opts.Tail > 0 {
		options.Tail = strconv.Itoa(opts.Tail)
	}
	if !opts.Since.IsZero() {
		options.Since = fmt.Sprintf("%d.%09d", opts.Since.Unix(), opts.Since.Nanosecond())
	}
	// Without frames a stamp cannot be told from what the process wrote.
	options.Timestamps = opts.Stamp != nil && !c.Config.Tty
	stream, err := e.cli.ContainerLogs(ctx, c.ID, options)
	if err != nil {
		return fail(ctx, op, name, err)
	}
	defer stream.Close() //nolint:errcheck // only read
	stdout, stderr := orDiscard(opts.Stdout), orDiscard(opts.Stderr)
	if options.Timestamps {
		stdout, stderr = logstamp.Writer(stdout, opts.Stamp), logstamp.Writer(stderr, opts.Stamp)
	}
	if c.Config.Tty {
		_, err = io.Copy(stdout, stream)
	} else {
		_, err = stdcopy.StdCopy(stdout, stderr, stream)
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return fail(ctx, op, name, err)
}

func orDiscard(w io.Writer) io.Writer {
	if w == nil {
		return io.Discard
	}
	return w
}

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os/signal"
	"sync"
	"syscall"

	"github.com/bottle-run/bottle/sidecar/control"
	"github.com/bottle-run/bottle/sidecar/delivery"
	"github.com/bottle-run/bottle/sidecar/supervise"
)

// exitStale ends a decision about something that is not so any more.
const exitStale = 5

// maxDecision bounds what a decision is read from, in bytes.
const maxDecision = 1 << 20

func init() {
	commands["supervise"] = command{"[--state DIR] [--restart] [--stdin] [--run DIR]", serveSupervise}
	commands["proposals list"] = command{"[--run DIR]", proposals(http.MethodGet, 0, "")}
	commands["proposals watch"] = command{"[--run DIR]", proposals(http.MethodGet, 0, "watch")}
	commands["proposals show"] = command{"[--run DIR] ID", proposals(http.MethodGet, 1, "")}
	for _, verb := range []string{"preview", "approve", "finish", "deny"} {
		commands["proposals "+verb] = command{"[--run DIR] ID < FILE", proposals(http.MethodPost, 1, verb)}
	}
}

func serveSupervise(c *call) error {
	state := c.flags.String("state", "", "`DIR` in which proposals outlive the process; default: they do not")
	restart := c.flags.Bool("restart", false, "start the server again when it is killed or crashes")
	takesFirst := c.takesFirst()
	if err := c.parse(0); err != nil {
		return err
	}
	if *restart {
		var first []string
		if *takesFirst {
			first = []string{delivery.StdinFlag}
		}
		return c.keep(first, "supervise", "--state", *state, "--run", *c.dir)
	}
	return c.serve("supervise", func(config, _ string, log *slog.Logger, open opener) sidecar {
		return supervise.New(supervise.Options{Config: config, State: *state, Log: log, Audit: open})
	})
}

// Control adds what an operator may do, for a sidecar that has such.
func (p *proxy) Control(mux *http.ServeMux, lock sync.Locker) {
	if e, ok := p.sidecar.(control.Extended); ok {
		e.Control(mux, lock)
	}
}

// restorable reports whether the sidecar is ready before anything is put.
func (p *proxy) restorable() bool {
	r, ok := p.sidecar.(interface{ Restorable() bool })
	return ok && r.Restorable()
}

// proposals makes a command that asks the supervise sidecar about proposals: with an ID,
// and with JSON on its input for what is posted.
func proposals(method string, args int, verb string) func(*call) error {
	return func(c *call) error {
		if err := c.parse(args); err != nil {
			return err
		}
		path := "/proposals"
		if args > 0 {
			path += "/" + url.PathEscape(c.args[0])
		}
		if verb != "" {
			path += "/" + verb
		}
		client, ctx, cancel := c.ask()
		defer cancel()
		if verb == "watch" {
			var stop context.CancelFunc
			ctx, stop = signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
			defer stop()
		}
		var body io.Reader
		if method == http.MethodPost {
			data, err := io.ReadAll(io.LimitReader(c.stdin, maxDecision+1))
			if err != nil {
				return fmt.Errorf("reading the decision: %w", err)
			}
			if len(data) > maxDecision {
				return fmt.Errorf("reading the decision: it has more than %d bytes", maxDecision)
			}
			body = bytes.NewReader(data)
		}
		err := client.Ask(ctx, method, path, body, c.stdout)
		var refused *control.RefusedError
		if errors.As(err, &refused) && refused.Status == http.StatusPreconditionFailed {
			return &exitError{exitStale, err}
		}
		return err
	}
}

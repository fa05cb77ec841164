package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/bottle-run/bottle/sidecar/audit"
	"github.com/bottle-run/bottle/sidecar/control"
	"github.com/bottle-run/bottle/sidecar/egressproxy"
	"github.com/bottle-run/bottle/sidecar/firewall"
)

// grace is how long requests may take to end when the sidecar is asked to.
const grace = 3 * time.Second

// memory is where the collector begins to work harder, in bytes.
const memory = 64 << 20

// sidecar is what is served.
type sidecar interface {
	control.Sidecar
	Listen() string
	Serve(net.Listener) error
	Shutdown(context.Context) error
}

// opener opens the audit log for an agent.
type opener func(agent string) *audit.Log

func serveFirewall(c *call) error {
	return c.serve("firewall", func(config, secrets string, log *slog.Logger, open opener) (sidecar, error) {
		return firewall.New(config, secrets, log, open)
	})
}

func serveEgressProxy(c *call) error {
	return c.serve("egress-proxy", func(config, secrets string, log *slog.Logger, open opener) (sidecar, error) {
		return egressproxy.New(config, secrets, log, open)
	})
}

func (c *call) serve(name string, open func(config, secrets string, log *slog.Logger, open opener) (sidecar, error)) error {
	config := c.flags.String("config", "", "configuration file")
	auditFile := c.flags.String("audit", "", "file to write the audit log to, instead of standard output")
	if err := c.parse(0); err != nil {
		return err
	}
	if *config == "" {
		return &exitError{exitUsage, errors.New("--config is missing")}
	}
	debug.SetMemoryLimit(memory)
	log := slog.New(slog.NewJSONHandler(c.stderr, nil)).With("sidecar", name)
	var out io.Writer = c.stdout
	if *auditFile != "" {
		f, err := os.OpenFile(*auditFile, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			return fmt.Errorf("opening the audit log: %w", err)
		}
		defer f.Close()
		out = f
	}
	s, err := open(*config, control.SecretsPath(*c.dir), log, func(agent string) *audit.Log { return audit.New(out, name, agent) })
	if err != nil {
		return err
	}
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGTERM, syscall.SIGINT)
	address := s.Listen()
	if address == "" {
		address = ":8888"
	}
	ln, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("opening the proxy: %w", err)
	}
	cl, err := control.Listen(*c.dir)
	if err != nil {
		ln.Close()
		return err
	}
	ended := make(chan error, 2)
	go func() { ended <- s.Serve(ln) }()
	go func() { ended <- control.Serve(cl, s) }()
	log.Info("started", "listen", ln.Addr().String(), "version", version)
	debug.FreeOSMemory() // what reading the rules took
	if err := s.Health(); err != nil {
		log.Info("not ready", "reason", err.Error())
	}
	for {
		select {
		case err := <-ended:
			log.Error("ended", "error", errString(err))
			return fmt.Errorf("serving: %w", err)
		case sig := <-signals:
			if sig != syscall.SIGHUP {
				log.Info("stopping", "signal", sig.String())
				ctx, cancel := context.WithTimeout(context.Background(), grace)
				defer cancel()
				cl.Close()
				return s.Shutdown(ctx)
			}
			_ = s.Reload() // which logs how it went
		}
	}
}

func errString(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

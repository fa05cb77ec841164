package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/bottle-run/bottle/sidecar/audit"
	"github.com/bottle-run/bottle/sidecar/control"
	"github.com/bottle-run/bottle/sidecar/delivery"
	"github.com/bottle-run/bottle/sidecar/egressproxy"
	"github.com/bottle-run/bottle/sidecar/firewall"
)

// grace is how long requests may take to end when the sidecar is asked to.
const grace = 3 * time.Second

// memory is where the collector begins to work harder, in bytes.
const memory = 64 << 20

// defaultAddress is where the proxy listens unless the configuration says otherwise.
const defaultAddress = ":8888"

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
	return c.serve("firewall", func(config, secrets string, log *slog.Logger, open opener) sidecar {
		return firewall.New(config, secrets, log, open)
	})
}

func serveEgressProxy(c *call) error {
	return c.serve("egress-proxy", func(config, secrets string, log *slog.Logger, open opener) sidecar {
		return egressproxy.New(config, secrets, log, open)
	})
}

// takesFirst defines the flag of a sidecar whose first document comes on its standard input.
func (c *call) takesFirst() *bool {
	if c.first == nil {
		c.first = c.flags.Bool(strings.TrimLeft(delivery.StdinFlag, "-"), false, "take the first document from standard input, tell in the log whether the sidecar is ready, and end if it is not")
	}
	return c.first
}

// serve runs a sidecar. It has nothing but its control socket until there is a configuration
// that it can work with, put or on its standard input: until then its proxy refuses
// connections.
func (c *call) serve(name string, open func(config, secrets string, log *slog.Logger, open opener) sidecar) error {
	takesFirst := c.takesFirst()
	if err := c.parse(0); err != nil {
		return err
	}
	debug.SetMemoryLimit(memory)
	log := slog.New(slog.NewJSONHandler(c.stderr, nil)).With("sidecar", name)
	s := &proxy{
		sidecar: open(delivery.In(*c.dir, delivery.Config), delivery.In(*c.dir, delivery.Secrets), log, func(agent string) *audit.Log {
			return audit.New(c.stdout, name, agent)
		}),
		log: log, ended: make(chan error, 2),
	}
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGTERM, syscall.SIGINT)
	ln, err := control.Listen(*c.dir)
	if err != nil {
		return err
	}
	server := control.NewServer(*c.dir, s)
	go func() { s.ended <- server.Serve(ln) }()
	log.Info("started", "version", version)
	if s.restorable() {
		_ = server.Reload() // which logs how it went
	}
	var first chan error
	if *takesFirst {
		first = make(chan error, 1)
		go func() { first <- server.Put(c.stdin) }()
	}
	for {
		select {
		case err := <-first:
			if err == nil {
				err = s.Health()
			}
			delivery.Say(log, err)
			if err != nil {
				return &exitError{exitNotReady, fmt.Errorf("not ready: %w", err)}
			}
			first = nil
		case err := <-s.ended:
			if err == nil {
				err = errors.New("it stopped by itself")
			}
			log.Error("ended", "error", err.Error())
			return fmt.Errorf("serving: %w", err)
		case sig := <-signals:
			if sig != syscall.SIGHUP {
				log.Info("stopping", "signal", sig.String())
				ctx, cancel := context.WithTimeout(context.Background(), grace)
				defer cancel()
				ln.Close()
				return s.Shutdown(ctx)
			}
			_ = server.Reload() // which logs how it went
		}
	}
}

// proxy is a sidecar whose proxy is opened when it has its first configuration.
type proxy struct {
	sidecar
	log   *slog.Logger
	ended chan error

	mu   sync.Mutex
	open bool
}

// errClosed is the state of a sidecar whose address could not be had.
var errClosed = errors.New("the proxy is not open")

// Reload reads the files, and opens the proxy the first time.
func (p *proxy) Reload() error {
	if err := p.sidecar.Reload(); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.open {
		return nil
	}
	address := p.Listen()
	if address == "" {
		address = defaultAddress
	}
	ln, err := net.Listen("tcp", address)
	if err != nil {
		err = fmt.Errorf("opening the proxy: %w", err)
		p.log.Error("not open", "error", err.Error())
		return err
	}
	p.open = true
	go func() { p.ended <- p.Serve(ln) }()
	p.log.Info("listening", "address", ln.Addr().String())
	debug.FreeOSMemory() // what reading the rules took
	return nil
}

// Health is nil if requests are served.
func (p *proxy) Health() error {
	if err := p.sidecar.Health(); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.open {
		return errClosed
	}
	return nil
}

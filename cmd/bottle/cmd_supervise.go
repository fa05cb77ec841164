package main

import (
	"bytes"
	"io"
	"sync"

	"github.com/urfave/cli/v2"

	"github.com/bottle-run/bottle/core/supervise/console"
)

func newSuperviseCommand(f *factory, do func() error) *cli.Command {
	return &cli.Command{
		Name:  "supervise",
		Usage: "answer what agents propose, in a terminal",
		Description: "Shows the proposals of all bottles on the engine as they come, with what would become possible,\n" +
			"and the requests that are being denied. $VISUAL or $EDITOR edits a proposal. A manifest named with\n" +
			"--file is written to in place of the one that a bottle was launched from. For scripts: bottle proposals.\n\n" +
			"Example: bottle supervise",
		Action: func(c *cli.Context) error {
			if err := arity(c, 0, 0); err != nil {
				return err
			}
			if err := f.noCommand("supervise"); err != nil {
				return err
			}
			if do != nil {
				return do()
			}
			return f.supervise()
		},
	}
}

// supervise is bottle supervise.
func (f *factory) supervise() error {
	switch {
	case f.globals.JSON:
		return usageErrorf("bottle supervise is for a human: bottle proposals has --json")
	case f.io.Terminal == nil:
		return usageErrorf("bottle supervise needs a terminal as its standard input and output: use bottle proposals list, show, approve and deny")
	}
	host, err := f.host()
	if err != nil {
		return err
	}
	// What is said meanwhile would stand in the middle of the screen.
	said := &held{to: f.io.Stderr}
	f.io.Stderr = said
	defer func() { f.io.Stderr = said.release() }()
	sig, rt, release, err := f.engine()
	if err != nil {
		return err
	}
	defer release()
	return console.Run(sig.work, console.Options{
		Runtime: rt, Host: host, Manifest: f.globals.File, By: operatorName(), Input: f.io.Terminal, Output: f.io.Stdout,
	})
}

// maxHeld bounds what is held back, in bytes: of more the beginning is kept.
const maxHeld = 64 << 10

// held keeps what is written until it is released.
type held struct {
	mu       sync.Mutex
	to       io.Writer
	buffer   bytes.Buffer
	released bool
}

func (h *held) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.released {
		return h.to.Write(p)
	}
	if room := maxHeld - h.buffer.Len(); room > 0 {
		h.buffer.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}

// release writes what was held, and returns where it went.
func (h *held) release() io.Writer {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.released = true
	_, _ = h.to.Write(h.buffer.Bytes()) // there is nowhere to say it
	return h.to
}

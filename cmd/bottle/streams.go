package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"

	"github.com/bottle-run/bottle/core"
)

// streams are the program's standard files. The terminal fields are nil where
// there is none.
type streams struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	// Terminal is what the user sits at: standard input, if both it and standard
	// output are one.
	Terminal *os.File
	// Screen reports that standard error is a terminal that can be drawn on.
	Screen bool
}

func systemIO() *streams {
	s := &streams{Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr}
	if isTerminal(os.Stdin) && isTerminal(os.Stdout) {
		s.Terminal = os.Stdin
	}
	s.Screen = isTerminal(os.Stderr) && os.Getenv("TERM") != "dumb"
	return s
}

func isTerminal(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }

// fail tells about an error.
func (s *streams) fail(err error, kind string, code int, asJSON bool) {
	if asJSON {
		_ = json.NewEncoder(s.Stderr).Encode(map[string]any{"error": err.Error(), "kind": kind, "code": code})
		return
	}
	text := strings.TrimRight(err.Error(), "\n")
	var launch *core.LaunchError
	if kind == string(core.KindInterrupted) && errors.As(err, &launch) && launch.Teardown == nil {
		text += ": everything was removed"
	}
	_, _ = fmt.Fprintf(s.Stderr, "bottle: %s\n", text)
}

// json writes a value as one line.
func (s *streams) json(v any) error { return json.NewEncoder(s.Stdout).Encode(v) }

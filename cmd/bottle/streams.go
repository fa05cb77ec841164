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
	// Display reports that standard output is a terminal, Colours that it may be coloured.
	Display, Colours bool
}

func systemIO() *streams {
	s := &streams{Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr}
	if isTerminal(os.Stdin) && isTerminal(os.Stdout) {
		s.Terminal = os.Stdin
	}
	s.Screen = isTerminal(os.Stderr) && os.Getenv("TERM") != "dumb"
	s.Display = isTerminal(os.Stdout)
	s.Colours = s.Display && os.Getenv("TERM") != "dumb" && os.Getenv("NO_COLOR") == ""
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

// readInput reads a file, or standard input for "-", up to a size in bytes; what is read is
// for the error. What is longer is cut off: ask for one byte more than may be. The name is
// for further errors.
func (f *factory) readInput(what, file string, size int64) (name string, data []byte, err error) {
	if file == "-" {
		data, err = io.ReadAll(io.LimitReader(f.io.Stdin, size))
		if err != nil {
			return "", nil, fmt.Errorf("reading standard input: %w", err)
		}
		return "standard input", data, nil
	}
	in, err := os.Open(file)
	if err == nil {
		data, err = io.ReadAll(io.LimitReader(in, size))
		_ = in.Close() // it was only read
	}
	if err != nil {
		return "", nil, core.Errorf(core.KindInput, "the %s cannot be read: %w", what, err)
	}
	return file, data, nil
}

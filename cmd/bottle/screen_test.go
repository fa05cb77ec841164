package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/creack/pty"
	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/term"
)

var updateScreens = flag.Bool("update-screens", false, "write the golden screens")

// emulated is a terminal's screen: as much of one as bottle supervise uses.
type emulated struct {
	rows, cols, row, col int
	cells                [][]rune
	rest                 []byte // of a sequence that is not complete
}

func newEmulated(rows, cols int) *emulated {
	s := &emulated{}
	s.resize(rows, cols)
	return s
}

func (s *emulated) resize(rows, cols int) {
	s.rows, s.cols, s.row, s.col = rows, cols, 0, 0
	s.cells = make([][]rune, rows)
	for i := range s.cells {
		s.cells[i] = []rune(strings.Repeat(" ", cols))
	}
}

var sequence = regexp.MustCompile(`^\x1b(?:\[([?0-9;]*)([A-Za-z])|[=>]|\][^\x07\x1b]*(?:\x07|\x1b\\))`)

// write shows what a program writes.
func (s *emulated) write(p []byte) {
	s.rest = append(s.rest, p...)
	for len(s.rest) > 0 {
		if s.rest[0] == 0x1b {
			m := sequence.FindSubmatch(s.rest)
			if m == nil {
				if len(s.rest) > 64 {
					s.rest = s.rest[1:]
				}
				return // more will come
			}
			s.control(string(m[1]), string(m[2]))
			s.rest = s.rest[len(m[0]):]
			continue
		}
		if !utf8.FullRune(s.rest) {
			return
		}
		r, n := utf8.DecodeRune(s.rest)
		s.rest = s.rest[n:]
		switch r {
		case '\r':
			s.col = 0
		case '\n':
			s.row = min(s.row+1, s.rows-1)
		case '\b':
			s.col = max(0, s.col-1)
		default:
			if s.col < s.cols && r >= ' ' {
				s.cells[s.row][s.col] = r
				s.col++
			}
		}
	}
}

func (s *emulated) control(args, final string) {
	var n []int
	for a := range strings.SplitSeq(args, ";") {
		v, _ := strconv.Atoi(a) // none is 0
		n = append(n, v)
	}
	count := max(1, n[0])
	blank := func(row, from, to int) {
		for i := from; i < to; i++ {
			s.cells[row][i] = ' '
		}
	}
	switch final {
	case "A":
		s.row = max(0, s.row-count)
	case "B":
		s.row = min(s.rows-1, s.row+count)
	case "C":
		s.col = min(s.cols-1, s.col+count)
	case "D":
		s.col = max(0, s.col-count)
	case "H":
		s.row, s.col = min(s.rows, count)-1, 0
		if len(n) > 1 {
			s.col = min(s.cols, max(1, n[1])) - 1
		}
	case "K":
		switch n[0] {
		case 0:
			blank(s.row, s.col, s.cols)
		case 2:
			blank(s.row, 0, s.cols)
		}
	case "J":
		if n[0] == 0 {
			blank(s.row, s.col, s.cols)
		}
		for i := range s.cells {
			if n[0] == 2 || i > s.row {
				blank(i, 0, s.cols)
			}
		}
	}
}

func (s *emulated) String() string {
	var b strings.Builder
	for _, row := range s.cells {
		b.WriteString(strings.TrimRight(string(row), " ") + "\n")
	}
	return b.String()
}

func TestTheEmulatedScreenShowsWhatATerminalWould(t *testing.T) {
	s := newEmulated(3, 10)
	for _, p := range []string{"ab\r\nc", "d\x1b[1", "A\x1b[Kx\x1b[2;3H", "\xe2\x94", "\x80\x1b[?25l\x1b[31me"} {
		s.write([]byte(p))
	}
	if got := s.String(); got != "abx\ncd─e\n\n" {
		t.Errorf("%q", got)
	}
}

// changing is what is different each time.
var changing = regexp.MustCompile(`\b\d\d:\d\d(:\d\d)?\b`)

// cmdScreen drives a program in a terminal of 24 lines by 80: screen STATUS STEPS PROGRAM
// ARG... Each line of the file STEPS is a text, a tab, and what is done once the screen
// shows it: keys, GOLDEN NAME to compare the screen with testdata/screens/NAME.txt, RESIZE
// ROWSxCOLUMNS, or SIGNAL NAME. At its end the terminal has to be as it was.
func cmdScreen(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 {
		ts.Fatalf("usage: screen STATUS STEPS PROGRAM [ARG...]")
	}
	program, err := exec.LookPath(args[2])
	ts.Check(err)
	cmd := exec.Command(program, args[3:]...)
	cmd.Env = append(slices.Clone(ts.Value("env").(*testscript.Env).Vars), "TERM=xterm", "EDITOR="+ts.Getenv("EDITOR"), "VISUAL=")
	cmd.Dir = ts.MkAbs(".")
	terminal, tty, err := pty.Open()
	ts.Check(err)
	defer func() { _ = terminal.Close() }()
	ts.Check(pty.Setsize(terminal, &pty.Winsize{Rows: 24, Cols: 80}))
	before, err := term.GetState(int(tty.Fd()))
	ts.Check(err)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, tty, tty
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	ts.Check(cmd.Start())

	var mu sync.Mutex
	shown, raw := newEmulated(24, 80), &bytes.Buffer{}
	readAll := make(chan struct{})
	go func() {
		defer close(readAll)
		p := make([]byte, 4096)
		for {
			n, err := terminal.Read(p)
			mu.Lock()
			shown.write(p[:n])
			raw.Write(p[:n])
			mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	look := func() string {
		mu.Lock()
		defer mu.Unlock()
		return shown.String()
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait() // its status is looked at below
	}()
	fail := func(format string, a ...any) {
		_ = cmd.Process.Kill()
		ts.Fatalf("%s\nthe screen:\n%s", fmt.Sprintf(format, a...), look())
	}
	for line := range strings.SplitSeq(strings.TrimRight(ts.ReadFile(args[1]), "\n"), "\n") {
		text, do, _ := strings.Cut(line, "\t")
		for deadline := time.Now().Add(patience); !strings.Contains(look(), text); time.Sleep(20 * time.Millisecond) {
			select {
			case <-ended:
				fail("the program has ended before the screen showed %q", text)
			default:
			}
			if time.Now().After(deadline) {
				fail("the screen never showed %q", text)
			}
		}
		word, rest, _ := strings.Cut(do, " ")
		switch word {
		case "GOLDEN":
			compareScreen(ts, rest, look())
		case "RESIZE":
			var size pty.Winsize
			_, err := fmt.Sscanf(rest, "%dx%d", &size.Rows, &size.Cols)
			ts.Check(err)
			mu.Lock()
			shown.resize(int(size.Rows), int(size.Cols))
			mu.Unlock()
			ts.Check(pty.Setsize(terminal, &size))
		case "SIGNAL":
			ts.Check(cmd.Process.Signal(map[string]os.Signal{"TERM": syscall.SIGTERM, "HUP": syscall.SIGHUP}[rest]))
		default:
			keys, err := strconv.Unquote(`"` + do + `"`)
			ts.Check(err)
			_, err = terminal.WriteString(keys)
			ts.Check(err)
		}
	}
	select {
	case <-ended:
	case <-time.After(patience):
		fail("the program does not end")
	}
	after, err := term.GetState(int(tty.Fd()))
	ts.Check(err)
	ts.Check(tty.Close())
	<-readAll // the last process that had it open is gone
	if !reflect.DeepEqual(after, before) {
		ts.Fatalf("the terminal is not as it was: %+v, and was %+v", after, before)
	}
	mu.Lock()
	defer mu.Unlock()
	if in, out := bytes.LastIndex(raw.Bytes(), []byte("\x1b[?1049h")), bytes.LastIndex(raw.Bytes(), []byte("\x1b[?1049l")); in > out {
		ts.Fatalf("the terminal still shows the other screen")
	}
	_, _ = ts.Stdout().Write(raw.Bytes())
	if got := cmd.ProcessState.ExitCode(); strconv.Itoa(got) != args[0] {
		ts.Fatalf("exit status %d, want %s:\n%s", got, args[0], raw)
	}
}

// screensDir is where golden screens are, wherever a script runs.
var screensDir, _ = filepath.Abs("testdata/screens")

func compareScreen(ts *testscript.TestScript, name, got string) {
	got = changing.ReplaceAllStringFunc(got, func(s string) string { return "00:00:00"[:len(s)] })
	file := filepath.Join(screensDir, name+".txt")
	if *updateScreens {
		ts.Check(os.WriteFile(file, []byte(got), 0o644))
	}
	want, err := os.ReadFile(file)
	ts.Check(err)
	if got != string(want) {
		ts.Fatalf("the screen is\n%s\nand should be, by %s:\n%s", got, file, want)
	}
}

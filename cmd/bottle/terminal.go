package main

import (
	"os"
	"os/signal"
	"sync"
	"syscall"

	"golang.org/x/term"

	"github.com/bottle-run/bottle/runtime"
)

// rawTerminal puts a terminal into raw mode, so that keys reach the program in
// the bottle as they are pressed. restore puts it back; it may be called more than
// once.
func rawTerminal(f *os.File) (restore func(), err error) {
	state, err := term.MakeRaw(int(f.Fd()))
	if err != nil {
		return nil, err
	}
	var once sync.Once
	return func() { once.Do(func() { _ = term.Restore(int(f.Fd()), state) }) }, nil
}

const (
	// terminalReset takes back what a program that was cut off may have asked of a
	// terminal: another screen, a hidden cursor, reports of the mouse and of pasting, colours.
	terminalReset = "\x1b[?1049l\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1006l\x1b[?2004l" + terminalDone
	// terminalDone is what is right after any program: a cursor, and no colours.
	terminalDone = "\x1b[?25h\x1b[0m"
	// titleSave and titleBack put the window's title aside, and back.
	titleSave, titleBack = "\x1b[22;2t", "\x1b[23;2t"
)

// terminalSize is the terminal's size now; zero if it cannot be told.
func terminalSize(f *os.File) runtime.Size {
	cols, rows, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return runtime.Size{}
	}
	return runtime.Size{Cols: uint16(min(cols, 1<<16-1)), Rows: uint16(min(rows, 1<<16-1))}
}

// watchSize sends the terminal's size whenever it changes. A size that nobody took
// is replaced by the next one.
func watchSize(f *os.File) (sizes <-chan runtime.Size, stop func()) {
	out := make(chan runtime.Size, 1)
	changed := make(chan os.Signal, 1)
	done := make(chan struct{})
	signal.Notify(changed, syscall.SIGWINCH)
	go func() {
		for {
			select {
			case <-done:
				return
			case <-changed:
				select {
				case <-out:
				default:
				}
				out <- terminalSize(f)
			}
		}
	}()
	return out, func() { signal.Stop(changed); close(done) }
}

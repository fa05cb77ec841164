package probe

import (
	"context"
	"encoding/json"
	"os"
	"os/signal"
	"syscall"
	"time"
	"unsafe"
)

func init() {
	register(map[string]command{
		// tty: the terminal's size.
		"tty": func(_ context.Context, c *Call) int { return c.json(terminal()) },
		// tty-settled: the same, when it has stayed the same for a while: an engine
		// may set it after the start.
		"tty-settled": func(_ context.Context, c *Call) int {
			changes := make(chan os.Signal, 16)
			signal.Notify(changes, syscall.SIGWINCH)
			for {
				select {
				case <-changes:
				case <-time.After(2 * time.Second):
					return c.json(terminal())
				}
			}
		},
		// winch: the size, and again at each change, for ever.
		"winch": func(_ context.Context, c *Call) int {
			changes := make(chan os.Signal, 16)
			signal.Notify(changes, syscall.SIGWINCH)
			for out := json.NewEncoder(c.Stdout); ; <-changes {
				if err := out.Encode(terminal()); err != nil {
					return c.done(err)
				}
			}
		},
	})
}

func terminal() TTY {
	t := TTY{}
	for fd, is := range []*bool{&t.Stdin, &t.Stdout, &t.Stderr} {
		var size struct{ rows, cols, x, y uint16 }
		_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), syscall.TIOCGWINSZ, uintptr(unsafe.Pointer(&size)))
		if *is = errno == 0; *is {
			t.Cols, t.Rows = int(size.cols), int(size.rows)
		}
	}
	return t
}

package probe

import (
	"context"
	"encoding/json"
	"os"
	"os/signal"
	"syscall"
	"unsafe"
)

func init() {
	register(map[string]command{
		// tty: the terminal's size.
		"tty": func(_ context.Context, c *Call) int { return c.json(terminal()) },
		// winch N: the size, and again at each of N changes.
		"winch": func(_ context.Context, c *Call) int {
			changes := make(chan os.Signal, 16)
			signal.Notify(changes, syscall.SIGWINCH)
			out := json.NewEncoder(c.Stdout)
			last := terminal()
			if err := out.Encode(last); err != nil {
				return c.done(err)
			}
			for n := atoi(c.arg(0)); n > 0; {
				<-changes
				if now := terminal(); now != last {
					if err := out.Encode(now); err != nil {
						return c.done(err)
					}
					last = now
					n--
				}
			}
			return 0
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

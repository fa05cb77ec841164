// Package dump lists what the kernel tells by netlink. Such a list is cut into messages, and
// when something changes between them (another container comes or goes) the kernel says that
// the list may lack entries, or has one twice. Nothing is decided by such a list: it is asked
// for again.
package dump

import (
	"errors"
	"fmt"
	"time"

	"github.com/vishvananda/netlink"
)

const (
	// attempts is how often a list is asked for before the last error is returned.
	attempts = 50
	// pause grows from attempt to attempt, to longest.
	pause   = time.Millisecond
	longest = 20 * time.Millisecond
)

// Whole calls list until it was not interrupted, and returns what it did then. If the kernel
// does not come to rest the error is [netlink.ErrDumpInterrupted], and there is no list.
func Whole[T any](list func() ([]T, error)) ([]T, error) {
	wait := pause
	for n := 1; ; n++ {
		got, err := list()
		switch {
		case !errors.Is(err, netlink.ErrDumpInterrupted):
			return got, err
		case n == attempts:
			return nil, fmt.Errorf("asked %d times: %w", n, err)
		}
		time.Sleep(wait)
		wait = min(2*wait, longest)
	}
}

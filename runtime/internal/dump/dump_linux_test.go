package dump_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/bottle-run/bottle/runtime/internal/dump"
)

// lister is interrupted so many times, each time with another part of the list.
func lister(interrupted int, then error) (list func() ([]int, error), calls *int) {
	calls = new(int)
	return func() ([]int, error) {
		*calls++
		if *calls <= interrupted {
			return []int{*calls}, fmt.Errorf("list: %w", netlink.ErrDumpInterrupted)
		}
		return []int{1, 2, 3}, then
	}, calls
}

func TestAnInterruptedListIsAskedForAgain(t *testing.T) {
	for _, interrupted := range []int{0, 1, 7} {
		list, calls := lister(interrupted, nil)
		got, err := dump.Whole(list)
		if err != nil || !slices.Equal(got, []int{1, 2, 3}) || *calls != interrupted+1 {
			t.Errorf("interrupted %d times: %v, %v after %d calls", interrupted, got, err, *calls)
		}
	}
}

func TestAListThatIsNeverWholeIsNoList(t *testing.T) {
	list, calls := lister(1<<30, nil)
	got, err := dump.Whole(list)
	if !errors.Is(err, netlink.ErrDumpInterrupted) || got != nil || *calls < 2 || *calls > 1000 {
		t.Errorf("%v, %v after %d calls", got, err, *calls)
	}
}

func TestAnotherErrorIsReturnedAtOnce(t *testing.T) {
	no := errors.New("no")
	list, calls := lister(1, no)
	if _, err := dump.Whole(list); !errors.Is(err, no) || *calls != 2 {
		t.Errorf("%v after %d calls", err, *calls)
	}
}

func TestTheKernelsOwnListsAreWhole(t *testing.T) {
	links, err := dump.Whole(netlink.LinkList)
	if err != nil || !slices.ContainsFunc(links, func(l netlink.Link) bool { return l.Attrs().Name == "lo" }) {
		t.Errorf("%v, %v", links, err)
	}
}

package atonce

import (
	"fmt"
	"sync/atomic"
	"testing"
)

func TestAllAreCalledSomeAtATimeAndTheFirstErrorIsByNumber(t *testing.T) {
	var now, most, calls atomic.Int64
	err := Do(200, func(i int) error {
		calls.Add(1)
		n := now.Add(1)
		defer now.Add(-1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		if i >= 7 {
			return fmt.Errorf("%d", i)
		}
		return nil
	})
	if err == nil || err.Error() != "7" || calls.Load() != 200 || most.Load() > limit {
		t.Errorf("%v after %d calls, %d at a time", err, calls.Load(), most.Load())
	}
	if err := Do(0, nil); err != nil {
		t.Error(err)
	}
}

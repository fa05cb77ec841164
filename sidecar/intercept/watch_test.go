package intercept

import (
	"testing"
	"time"
)

// TestWatch: when stop has returned nothing is ended, however close it was: what would be
// ended belongs to a handler that returns then.
func TestWatch(t *testing.T) {
	for i := range 300 {
		var gone bool // guarded by what stop promises: the race detector sees if it is not kept
		w := newWatch(time.Duration(i%5)*100*time.Microsecond, func() {
			if gone {
				t.Error("ended after it was stopped")
			}
		})
		time.Sleep(time.Duration(i%7) * 70 * time.Microsecond)
		w.moved()
		w.stop()
		gone = true
	}
	ended := make(chan struct{})
	w := newWatch(time.Millisecond, func() { close(ended) })
	<-ended
	if w.stop(); !w.fired.Load() {
		t.Error("it does not say that it fired")
	}
}

package containerd

import (
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/bottle-run/bottle/runtime"
)

// A shim opens the input in a thread of its own, which may come long after the process
// has been started, and it waits for a writer there.
func TestInputWaitsForAShimThatOpensItLate(t *testing.T) {
	e := &Engine{run: t.TempDir()}
	spec := runtime.ExecSpec{Stdin: strings.NewReader("all of it")}
	s, err := e.openStreams("late", spec)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	ended := make(chan struct{})
	s.start(spec, func() { close(ended) })
	select {
	case <-ended:
		t.Fatal("the input ended before it was opened")
	case <-time.After(50 * time.Millisecond):
	}
	got := make(chan string, 1)
	go func() {
		f, err := os.Open(s.stdin)
		if err != nil {
			got <- err.Error()
			return
		}
		defer func() { _ = f.Close() }()
		text, err := io.ReadAll(f)
		if err != nil {
			text = []byte(err.Error())
		}
		got <- string(text)
	}()
	select {
	case text := <-got:
		if text != "all of it" {
			t.Errorf("the process reads %q", text)
		}
	case <-time.After(time.Minute):
		t.Error("the process waits for its input")
	}
	<-ended
}

// A process that ends without a look at its input leaves nothing that waits.
func TestInputThatIsNeverOpenedEndsWithTheStreams(t *testing.T) {
	e := &Engine{run: t.TempDir()}
	spec := runtime.ExecSpec{Stdin: strings.NewReader("all of it")}
	s, err := e.openStreams("never", spec)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	s.start(spec, func() { close(ended) })
	s.close()
	select {
	case <-ended:
	case <-time.After(time.Minute):
		t.Error("something waits for the shim")
	}
}

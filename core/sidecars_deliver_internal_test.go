package core

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/bottle-run/bottle/runtime"
)

func TestWhyASidecarIsNotReadyIsSaidInItsWords(t *testing.T) {
	engine := func(err error) error {
		return &runtime.Error{Engine: "fake", Op: "run container", Object: "bottle-coder.firewall", Err: err}
	}
	for want, err := range map[string]error{
		"the egress proxy is not ready: allow[0].host: bad; the last that it said:\n  one\n  two":                              engine(&notReadyError{"allow[0].host: bad"}),
		"the egress proxy is not ready: it has ended with status 3; the last that it said:\n  one\n  two":                      engine(runtime.WithKind(errdefs.ErrFailedPrecondition, &runtime.EndedError{Status: runtime.ExitStatus{Code: 3}})),
		"the egress proxy is not ready: it has not said within 1m0s whether it is ready; the last that it said:\n  one\n  two": engine(errSilent),
	} {
		got := notTaken(RoleEgressProxy, err, []string{"one", "two"})
		if got.Error() != want || KindOf(got) != KindLaunch {
			t.Errorf("got %q (%s), want %q", got, KindOf(got), want)
		}
	}
	other := engine(errdefs.ErrUnavailable)
	if got := notTaken(RoleFirewall, other, nil); !errors.Is(got, other) || got.Error() != other.Error() {
		t.Errorf("another error: %v", got)
	}
}

func TestAReaderTellsOnceThatAllHasBeenRead(t *testing.T) {
	told := 0
	g := &given{r: strings.NewReader("all of it"), all: func() { told++ }}
	for range 2 {
		text, err := io.ReadAll(g)
		if err != nil || told != 1 {
			t.Errorf("%q, %v, told %d times", text, err, told)
		}
	}
	g = &given{r: io.MultiReader(strings.NewReader("half"), &failingReader{}), all: func() { told++ }}
	if _, err := io.ReadAll(g); err == nil || told != 1 {
		t.Errorf("a reader that fails: %v, told %d times", err, told)
	}
}

type failingReader struct{}

func (*failingReader) Read([]byte) (int, error) { return 0, fmt.Errorf("it fails") }

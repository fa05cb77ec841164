package podman

import (
	"context"
	"strings"
	"time"
)

// listTries bounds how often a list is asked for again.
const listTries = 20

// list asks for a list. The service looks at each object after it has read their names, and
// fails as a whole if one has gone meanwhile: then it is asked again.
func (e *engine) list(ctx context.Context, c call, out any) error {
	return untilWhole(ctx, func() error { return e.ask(ctx, c, out) })
}

func untilWhole(ctx context.Context, ask func() error) error {
	for try := 1; ; try++ {
		err := ask()
		if err == nil || try == listTries || !goneMeanwhile(err) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// goneMeanwhile reports whether a list failed because something in it has gone.
func goneMeanwhile(err error) bool {
	return isNotFound(err) || strings.Contains(err.Error(), "container not known")
}

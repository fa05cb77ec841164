package podman

import (
	"context"
	"errors"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/bottle-run/bottle/runtime"
)

func TestAListInWhichSomethingHasGoneIsAskedForAgain(t *testing.T) {
	for name, gone := range map[string]error{
		"an image":               runtime.Errorf(errdefs.ErrNotFound, "reading image: image not known"),
		"a container of a build": errors.New("determining buildah container for container fc00: container not known"),
	} {
		tries := 0
		err := untilWhole(t.Context(), func() error {
			if tries++; tries < 3 {
				return gone
			}
			return nil
		})
		if err != nil || tries != 3 {
			t.Errorf("%s: %v after %d tries", name, err, tries)
		}
		tries = 0
		if err := untilWhole(t.Context(), func() error { tries++; return gone }); !errors.Is(err, gone) || tries != listTries {
			t.Errorf("%s, for ever: %v after %d tries", name, err, tries)
		}
	}
	tries, other := 0, errors.New("other")
	if err := untilWhole(t.Context(), func() error { tries++; return other }); !errors.Is(err, other) || tries != 1 {
		t.Errorf("another error: %v after %d tries", err, tries)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	gone := runtime.Errorf(errdefs.ErrNotFound, "gone")
	if err := untilWhole(ctx, func() error { return gone }); !errors.Is(err, gone) {
		t.Errorf("a context that has ended: %v", err)
	}
}

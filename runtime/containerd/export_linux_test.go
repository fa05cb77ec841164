package containerd

import (
	"testing"

	"github.com/bottle-run/bottle/runtime"
)

// OpenForTest opens the engine that the environment names.
func OpenForTest(t *testing.T) runtime.Runtime {
	t.Helper()
	rt, err := Driver{}.Open(t.Context(), runtime.Options{Host: needEngine(t)})
	if err != nil {
		t.Fatal(err)
	}
	return rt
}

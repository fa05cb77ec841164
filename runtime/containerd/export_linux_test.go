package containerd

import (
	"os"
	"testing"

	"github.com/bottle-run/bottle/runtime"
)

// OpenForTest opens the engine that the environment names.
func OpenForTest(t *testing.T) runtime.Runtime {
	t.Helper()
	host := needEngine(t)
	if wrapper := os.Getenv("BOTTLE_TEST_RUNSC"); wrapper != "" {
		t.Setenv(ociVariable+"RUNSC", wrapper)
	}
	rt, err := Driver{}.Open(t.Context(), runtime.Options{Host: host})
	if err != nil {
		t.Fatal(err)
	}
	return rt
}

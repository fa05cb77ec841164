package podman_test

import (
	"os"
	"testing"

	"github.com/bottle-run/bottle/runtime"
	"github.com/bottle-run/bottle/runtime/conformance"
	"github.com/bottle-run/bottle/runtime/internal/clitest"
	"github.com/bottle-run/bottle/runtime/podman"
)

func TestConformance(t *testing.T) {
	conformance.RunT(t, openEngine, conformance.Options{Foreign: clitest.Foreign("podman")})
}

// openEngine connects to the Podman that hack/engines prepared, as the user this
// test runs as, and never to a developer's own.
func openEngine(t *testing.T) runtime.Runtime {
	t.Helper()
	if os.Getenv("BOTTLE_TEST_PODMAN_USER") == "" {
		const how = `BOTTLE_TEST_PODMAN_USER is not set: run the tests with go test -exec "hack/engines as podman --" ./runtime/podman`
		if os.Getenv("CI") != "" || os.Getenv("BOTTLE_REQUIRE_ENGINES") != "" {
			t.Fatal(how)
		}
		t.Skip("NOT TESTED AGAINST PODMAN: " + how)
	}
	rt, err := podman.Driver{}.Open(t.Context(), runtime.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return runtime.Checked(rt)
}

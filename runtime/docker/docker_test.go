package docker_test

import (
	"os"
	"testing"

	"github.com/bottle-run/bottle/runtime"
	"github.com/bottle-run/bottle/runtime/conformance"
	"github.com/bottle-run/bottle/runtime/docker"
	"github.com/bottle-run/bottle/runtime/internal/clitest"
)

func TestConformance(t *testing.T) {
	conformance.RunT(t, openEngine, conformance.Options{Foreign: clitest.Foreign("docker", "-H", os.Getenv("BOTTLE_TEST_DOCKER_HOST"))})
}

// openEngine connects to the daemon that hack/engines started.
func openEngine(t *testing.T) runtime.Runtime {
	t.Helper()
	host := os.Getenv("BOTTLE_TEST_DOCKER_HOST")
	if host == "" {
		const how = "BOTTLE_TEST_DOCKER_HOST is not set: run the tests through hack/engines as docker -- go test ./runtime/docker/"
		if os.Getenv("CI") != "" || os.Getenv("BOTTLE_REQUIRE_ENGINES") != "" {
			t.Fatal(how)
		}
		t.Skip("NOT TESTED AGAINST DOCKER: " + how)
	}
	rt, err := docker.Driver{}.Open(t.Context(), runtime.Options{Host: host})
	if err != nil {
		t.Fatal(err)
	}
	return runtime.Checked(rt)
}

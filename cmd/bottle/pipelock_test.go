package main

import (
	"os"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/bottle-run/bottle/core/sidecarimage"
	"github.com/bottle-run/bottle/runtime"
)

// pipelockImage holds the stand-in for pipelock.
const pipelockImage = "localhost/bottle-e2e/pipelock:1"

// TestPipelock runs the end-to-end tests of a firewall by image, on the engine that
// BOTTLE_TEST_ENGINE names: a stand-in that reads the YAML that is rendered for it.
func TestPipelock(t *testing.T) {
	e := openEngine(t)
	if os.Getenv(sidecarimage.Variable) == "" {
		t.Fatalf("%s has to name a static bottle-sidecar", sidecarimage.Variable)
	}
	before, err := e.rt.Inventory(t.Context())
	check(t, err)
	outside := openOutside(t)
	e.loadBase(t, testProgram(t, "fetch"))
	e.loadSidecars(t)
	e.load(t, pipelockImage, v1.Config{
		Entrypoint: []string{"/pipelock"}, Labels: map[string]string{runtime.LabelManaged: "true"},
	}, map[string][]byte{"pipelock": testProgram(t, "pipelock")})
	t.Run("scripts", func(t *testing.T) {
		commands := scriptCommands(e)
		commands["requests"], commands["sidecarlog"] = outside.cmdRequests, e.cmdSidecarLog
		testscript.Run(t, testscript.Params{
			Dir: "testdata/script/pipelock", Cmds: commands, RequireExplicitExec: true,
			Setup: func(env *testscript.Env) error {
				for name, value := range outside.env() {
					env.Setenv(name, value)
				}
				env.Setenv("PIPELOCK", pipelockImage)
				env.Setenv("BAD", badImage)
				env.Setenv(sidecarimage.Variable, os.Getenv(sidecarimage.Variable))
				return e.setup(env)
			},
		})
	})
	if t.Failed() {
		e.removeBottles(t)
	}
	e.removeImages(t)
	e.removeSidecarImages(t)
	e.nothingMoreThan(t, before)
}

package main

import (
	"maps"
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/bottle-run/bottle/core/sidecarimage"
)

// TestGit runs the end-to-end tests of the git gate, on the engine that BOTTLE_TEST_ENGINE
// names: real git in the agent, and real servers in a namespace of their own.
func TestGit(t *testing.T) {
	e := openEngine(t)
	if os.Getenv(sidecarimage.Variable) == "" {
		t.Fatalf("%s has to name a static bottle-sidecar: make build, and then %s=$PWD/bin/bottle-sidecar", sidecarimage.Variable, sidecarimage.Variable)
	}
	before, err := e.rt.Inventory(t.Context())
	check(t, err)
	u := openUpstreams(t)
	e.operators = append(e.operators, u.keyFile)
	e.loadGit(t)
	t.Run("scripts", func(t *testing.T) {
		commands := scriptCommands(e)
		maps.Copy(commands, map[string]func(*testscript.TestScript, bool, []string){
			"killcontainer": e.cmdKill, "leaks": e.cmdLeaks, "killduring": e.cmdKillDuring, "sidecarlog": e.cmdSidecarLog,
			"repo": u.cmdRepo, "upstream": u.cmdUpstream, "remember": u.cmdRemember, "unchanged": u.cmdUnchanged,
		})
		testscript.Run(t, testscript.Params{
			Dir: "testdata/script/git", Cmds: commands, RequireExplicitExec: true,
			Setup: func(env *testscript.Env) error {
				for name, value := range u.env() {
					env.Setenv(name, value)
				}
				env.Setenv(sidecarimage.Variable, os.Getenv(sidecarimage.Variable))
				for name, content := range map[string][]byte{"corp.pem": u.roots, "known_hosts": u.knownHosts} {
					if err := os.WriteFile(filepath.Join(env.WorkDir, name), content, 0o600); err != nil {
						return err
					}
				}
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

// cmdRepo makes repositories: repo NAME...
func (u *upstreams) cmdRepo(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: repo NAME...")
	}
	for _, name := range args {
		ts.Check(u.repo(name))
	}
}

// cmdUpstream runs git in a repository of the upstreams', its output is stdout: upstream
// NAME ARG...
func (u *upstreams) cmdUpstream(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: upstream NAME ARG...")
	}
	out, err := hostGit(filepath.Join(u.dir, args[0]+".git"), args[1:]...)
	if (err != nil) != neg {
		ts.Fatalf("%v: %s", err, out)
	}
	_, _ = ts.Stdout().Write([]byte(out))
}

// cmdRemember remembers all that repositories hold: remember NAME...
func (u *upstreams) cmdRemember(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: remember NAME...")
	}
	for _, name := range args {
		state, err := u.state(name)
		ts.Check(err)
		u.mu.Lock()
		u.remembered[name] = state
		u.mu.Unlock()
	}
}

// cmdUnchanged checks that repositories hold what they held when they were remembered, to
// the object: unchanged NAME...
func (u *upstreams) cmdUnchanged(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: unchanged NAME...")
	}
	for _, name := range args {
		state, err := u.state(name)
		ts.Check(err)
		u.mu.Lock()
		before, ok := u.remembered[name]
		u.mu.Unlock()
		if !ok {
			ts.Fatalf("%s is not remembered", name)
		}
		if state != before {
			ts.Fatalf("%s has changed from\n%s\nto\n%s", name, before, state)
		}
	}
}

package core_test

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/bottle-run/bottle/core"
	"github.com/bottle-run/bottle/runtime/faulty"
)

// fullText is a bottle with everything.
const fullText = `
bottles:
  dev:
    image: img
    workspace: src
    forward: [CANARY]
    egress:
      allow: [a.test]
      routes: [{host: api.test, credential: {token: TOKEN}}]
    git: {project: {url: "https://code.test/project.git", credential: {token: TOKEN}}}
    supervise: true
agents:
  coder:
    bottle: dev
    prompt: Do it.
    gitconfig: {user.name: Coder}
    files: [{content: "{}", target: /workspace/.mcp.json}, {content: x, target: ~/.deep/er/file}]
`

func fullBench(t *testing.T) (*bench, *sidecars) {
	t.Helper()
	b, s := sealedBench(t)
	b.write("src/main.go", "package main\n")
	b.write("src/dir/file", "text\n")
	return b, s
}

// TestEveryOrderOfCompletionLeadsToTheSameBottle delays calls at random, so that they end in
// ever other orders. Whatever the order is: the bottle is the same.
func TestEveryOrderOfCompletionLeadsToTheSameBottle(t *testing.T) {
	var first string
	for seed := range uint64(30) {
		b, s := fullBench(t)
		rt := faulty.New(b.rt, delays(seed, ""))
		b.rt = rt
		bottle, err := b.launchSealed(t.Context(), fullText)
		must(t, err)
		got := describe(t, b, s, bottle)
		if first == "" {
			first = got
		}
		if got != first {
			t.Fatalf("seed %d: a different bottle:\n%s\nthe first was\n%s", seed, got, first)
		}
		rt.SetPlan(delays(seed+1, ""))
		must(t, bottle.Close(t.Context()))
		b.empty()
	}
	if strings.Count(first, "container ") != 5 || strings.Count(first, "ready ") != 4 || !strings.Contains(first, "supervise:9100") {
		t.Errorf("this is no full bottle:\n%s", first)
	}
}

// TestAFailureInAnyOrderLeavesNothing lets each call of a launch fail while the others are
// delayed, in several orders. Calls are counted by their method: a launch has as many of each in
// every order.
func TestAFailureInAnyOrderLeavesNothing(t *testing.T) {
	b, _ := fullBench(t)
	rt := faulty.New(b.rt, faulty.Plan{})
	b.rt = rt
	bottle, err := b.launchSealed(t.Context(), fullText)
	must(t, err)
	launch := rt.Calls()
	must(t, bottle.Close(t.Context()))

	nth, failed := map[string]int{}, map[string]int{}
	for _, c := range launch {
		nth[c.Method]++
		for seed := range uint64(2) {
			if failsInSomeOrder(t, c.Method, nth[c.Method], seed) {
				failed[c.Method]++
			}
		}
	}
	// Others may fail by themselves, or only tidy up.
	for _, method := range []string{"CreateNetwork", "LoadImage", "Run", "Exec", "CopyTo"} {
		if failed[method] == 0 {
			t.Errorf("no launch failed of %s, only of %v", method, failed)
		}
	}
}

// failsInSomeOrder launches with a fault at the n-th call of a method. It reports whether the
// launch failed.
func failsInSomeOrder(t *testing.T, method string, n int, seed uint64) bool {
	t.Helper()
	name := fmt.Sprintf("%s@%d", method, n)
	b, _ := fullBench(t)
	rt := faulty.New(b.rt, delays(seed, name+" = do, fail\n"))
	b.rt = rt
	bottle, err := b.launchSealed(t.Context(), fullText)
	rt.SetPlan(faulty.Plan{})
	faults := slices.DeleteFunc(rt.Calls(), func(c faulty.Call) bool { return !c.Acted })
	switch {
	case err != nil && !errors.Is(err, faulty.ErrFault):
		t.Errorf("%s, seed %d: the error is another: %v", name, seed, err)
	case err == nil && len(faults) > 0 && !b.noted(faults[0]):
		t.Errorf("%s, seed %d: it failed, and the launch did not", name, seed)
	}
	if err == nil {
		must(t, bottle.Close(t.Context()))
	}
	b.empty()
	return err != nil
}

// delays are rules that hold every third call or so back for a moment.
func delays(seed uint64, first string) faulty.Plan {
	r := rand.New(rand.NewPCG(seed, 0))
	text := strings.Builder{}
	text.WriteString(first)
	for k := range 80 {
		if r.IntN(3) == 0 {
			fmt.Fprintf(&text, "*@%d = delay %dus\n", k+1, 100+r.IntN(2000))
		}
	}
	return faulty.MustParse(text.String())
}

// describe tells all of a bottle that does not differ from launch to launch.
func describe(t *testing.T, b *bench, s *sidecars, bottle *core.Bottle) string {
	t.Helper()
	var lines []string
	add := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	for _, role := range []string{"", ".firewall", ".egress-proxy", ".git-gate", ".supervise"} {
		state, err := b.Snapshot("bottle-coder" + role)
		must(t, err)
		spec := state.Spec
		// What a restart would need holds certificates.
		maps.DeleteFunc(spec.Labels, func(name, _ string) bool {
			return name == core.LabelLaunch || name == core.LabelSeal || strings.HasPrefix(name, "dev.bottle.restart")
		})
		spec.Image, spec.Files = "", nil
		for i := range spec.Networks {
			spec.Networks[i].Network = ""
		}
		add("container %s %v %+v", state.Container.Name, state.Args, spec)
	}
	for role, doc := range s.put {
		names := []string{}
		for _, secret := range doc.Secrets {
			names = append(names, secret.Name)
		}
		slices.Sort(names)
		add("ready %s %s, %v %v, %q", role, doc.Config, doc.CACert != "", doc.FirewallCA != "", names)
	}
	for _, top := range []string{"/workspace", "/home", "/.bottle", "/etc"} {
		archive, err := bottle.CopyFrom(t.Context(), top)
		must(t, err)
		for r := tar.NewReader(archive); ; {
			h, err := r.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			must(t, err)
			content, err := io.ReadAll(r)
			must(t, err)
			if strings.Contains(string(content), "CERTIFICATE") || strings.Contains(h.Name, "trust") || strings.HasSuffix(h.Name, "/inside") || strings.HasSuffix(h.Name, ".bottle/workspace") {
				content = nil // a new one each time
			}
			add("file %s/%s %o %d:%d %q", top, h.Name, h.Mode, h.Uid, h.Gid, content)
		}
		must(t, archive.Close())
	}
	slices.Sort(lines)
	// Subnets are given in the order of the networks, a root's name is its hash, and each launch
	// has a workspace of its own.
	text := strings.ReplaceAll(strings.Join(lines, "\n"), bottle.Network.Subnet.String(), "SUBNET")
	text = regexp.MustCompile(`"source":"[^"]*"`).ReplaceAllString(text, `"source":"SOURCE"`)
	return regexp.MustCompile(`certs/[0-9a-f]{8}\.0`).ReplaceAllString(text, "certs/HASH.0")
}

package core_test

import (
	"strings"
	"testing"

	"github.com/bottle-run/bottle/core"
)

func TestNamesAreFoundByTheirBeginning(t *testing.T) {
	names := []string{"coder", "coder-2", "coder-12", "web", "web"}
	for text, want := range map[string]string{"coder": "coder", "coder-2": "coder-2", "coder-1": "coder-12", "w": "web", "web": "web"} {
		if got, err := core.MatchName(names, text); err != nil || got != want {
			t.Errorf("%s: %q, %v", text, got, err)
		}
	}
	for text, want := range map[string]core.Kind{"c": core.KindInput, "coder-": core.KindInput, "": core.KindNotFound, "x": core.KindNotFound, "ode": core.KindNotFound} {
		if _, err := core.MatchName(names, text); core.KindOf(err) != want {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestABottleIsOpenedByTheBeginningOfItsName(t *testing.T) {
	b := newBench(t, nil)
	for _, name := range []string{"robot", "rover"} {
		_, err := b.launch(t.Context(), small, core.Wishes{Name: name})
		must(t, err)
	}
	if _, err := core.OpenMatching(t.Context(), b.rt, "ro", nil); core.KindOf(err) != core.KindInput || !strings.Contains(err.Error(), "robot, rover") {
		t.Errorf("got %v", err)
	}
	if _, err := core.OpenMatching(t.Context(), b.rt, "x", nil); core.KindOf(err) != core.KindNotFound || !strings.Contains(err.Error(), "there is robot, rover") {
		t.Errorf("got %v", err)
	}
	if _, err := core.OpenMatching(t.Context(), b.rt, "robto", nil); err == nil || !strings.Contains(err.Error(), `did you mean "robot"? There is robot, rover`) {
		t.Errorf("got %v", err)
	}
	for text, want := range map[string]string{"rob": "robot", "rover": "rover"} {
		bottle, err := core.OpenMatching(t.Context(), b.rt, text, nil)
		must(t, err)
		if bottle.Name != want {
			t.Errorf("%s opened %s", text, bottle.Name)
		}
		must(t, bottle.Close(t.Context()))
	}
	b.empty()
}

package core_test

import (
	"testing"

	"github.com/bottle-run/bottle/core"
	"github.com/bottle-run/bottle/runtime"
)

func TestWhatABottleUsesIsReadOfEachContainerThatRuns(t *testing.T) {
	b, _ := sealedBench(t)
	bottle, err := b.launchSealed(t.Context(), sealedText)
	must(t, err)
	var m core.Meter
	first, err := m.Read(t.Context(), bottle)
	must(t, err)
	if len(first) != 3 || first[0].Role != core.RoleAgent || first[0].Bottle != "coder" || first[0].CPU != 0 || first[0].PIDs != 1 || first[0].Memory != 4096 {
		t.Errorf("%+v", first)
	}
	must(t, b.rt.Kill(t.Context(), "bottle-coder.firewall", "SIGKILL"))
	second, err := m.Read(t.Context(), bottle)
	must(t, err)
	if len(second) != 2 || second[0].CPU <= 0 || second[0].CPUTime <= first[0].CPUTime {
		t.Errorf("%+v", second)
	}
	b.SetInfo(func(i *runtime.Info) { i.Missing[runtime.FeatureStats] = "no figures here" })
	if _, err := m.Read(t.Context(), bottle); core.KindOf(err) != core.KindUnsupported {
		t.Errorf("got %v", err)
	}
	must(t, bottle.Close(t.Context()))
	b.empty()
}

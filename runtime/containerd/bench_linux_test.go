package containerd

import (
	"fmt"
	"testing"
	"time"

	"github.com/bottle-run/bottle/runtime"
)

// The primitives one by one; hack/bench compares them with other engines.

func BenchmarkNetwork(b *testing.B) {
	e := testEngine(b)
	for i := 0; b.Loop(); i++ {
		name := fmt.Sprintf("ctd-bench-%d", i)
		if _, err := e.CreateNetwork(b.Context(), runtime.NetworkSpec{Name: name, Internal: true}); err != nil {
			b.Fatal(err)
		}
		if err := e.RemoveNetwork(b.Context(), name); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRunAndRemove(b *testing.B) {
	e := testEngine(b)
	if _, err := e.CreateNetwork(b.Context(), runtime.NetworkSpec{Name: "ctd-bench", Internal: true}); err != nil {
		b.Fatal(err)
	}
	defer func() {
		if err := e.RemoveNetwork(b.Context(), "ctd-bench"); err != nil {
			b.Error(err)
		}
	}()
	var running time.Duration
	n := 0
	for ; b.Loop(); n++ {
		start := time.Now()
		c, err := runtime.Checked(e).Run(b.Context(), runtime.ContainerSpec{
			Name: fmt.Sprintf("ctd-bench-%d", n), Image: testImage, Networks: []runtime.NetworkAttachment{{Network: "ctd-bench"}},
		})
		if err != nil {
			b.Fatal(err)
		}
		running += time.Since(start)
		if err := e.RemoveContainer(b.Context(), c.ID); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(running.Milliseconds())/float64(n), "run-ms/op")
}

func BenchmarkExec(b *testing.B) {
	e := testEngine(b)
	c, err := runtime.Checked(e).Run(b.Context(), runtime.ContainerSpec{Name: "ctd-bench-exec", Image: testImage})
	if err != nil {
		b.Fatal(err)
	}
	defer func() {
		if err := e.RemoveContainer(b.Context(), c.ID); err != nil {
			b.Error(err)
		}
	}()
	for b.Loop() {
		if _, err := e.Exec(b.Context(), c.ID, runtime.ExecSpec{Command: []string{"true"}}); err != nil {
			b.Fatal(err)
		}
	}
}

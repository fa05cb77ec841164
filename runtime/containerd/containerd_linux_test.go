package containerd_test

import (
	"testing"

	"github.com/bottle-run/bottle/runtime"
	"github.com/bottle-run/bottle/runtime/conformance"
	"github.com/bottle-run/bottle/runtime/containerd"
)

func TestConformance(t *testing.T) {
	conformance.RunT(t, func(t *testing.T) runtime.Runtime { return containerd.OpenForTest(t) })
}

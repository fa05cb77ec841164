package conformance

import (
	"context"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/bottle-run/bottle/runtime"
)

// EnvReport names a file for the report of a run under go test; its extension
// chooses the form, as in [Report.WriteFile].
const EnvReport = "BOTTLE_CONFORMANCE_REPORT"

// EnvRun holds a regular expression that selects tests under go test, as
// [Options.Filter] does: what the tests left out would need (a world) is then not
// needed.
const EnvRun = "BOTTLE_CONFORMANCE_RUN"

// RunT runs the suite under go test, each test as a subtest of its name. open
// connects to the engine, and options are the run's, at most one; the connection is closed at the end. `-run` selects
// tests; `-short` changes nothing, since no core test is ever left out.
func RunT(t *testing.T, open func(t *testing.T) runtime.Runtime, options ...Options) {
	t.Helper()
	rt := open(t)
	t.Cleanup(func() {
		if err := rt.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	// What a cancelled t.Context would cut off is the cleaning up.
	ctx := context.WithoutCancel(t.Context())
	var current *testing.T
	var opts Options
	for _, o := range options {
		opts = o
	}
	opts.Logf = func(format string, args ...any) {
		if current != nil {
			current.Logf(format, args...)
		}
	}
	if expr := os.Getenv(EnvRun); expr != "" {
		var err error
		if opts.Filter, err = regexp.Compile(expr); err != nil {
			t.Fatalf("%s: %v", EnvRun, err)
		}
	}
	s, err := begin(ctx, runtime.Checked(rt), opts)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.end(ctx); err != nil {
			t.Error(err)
		}
		t.Log(s.report.Summary())
		for _, w := range s.report.Warnings {
			t.Log("warning:", w)
		}
		if file := os.Getenv(EnvReport); file != "" {
			if err := s.report.WriteFile(file); err != nil {
				t.Error(err)
			}
		}
	}()
	for tests := s.tests; len(tests) > 0; {
		group := tests[0].Group()
		n := slices.IndexFunc(tests, func(t Test) bool { return t.Group() != group })
		if n < 0 {
			n = len(tests)
		}
		t.Run(group, func(t *testing.T) {
			for _, test := range tests[:n] {
				t.Run(strings.TrimPrefix(test.Name, group+"/"), func(t *testing.T) {
					current = t
					defer func() { current = nil }()
					runOne(ctx, t, s, test)
				})
			}
		})
		tests = tests[n:]
	}
}

func runOne(ctx context.Context, t *testing.T, s *suite, test Test) {
	t.Helper()
	switch r := s.run(ctx, test); r.Status {
	case Failed:
		t.Errorf("%s\n%s", test.Doc, r.Message)
	case Absent:
		t.Logf("absent, and refused as it must be: %s", r.Reason)
	case Exempt:
		t.Skip("needs a kernel, and the engine is simulated")
	case Passed:
	}
}

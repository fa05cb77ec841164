package conformance

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/bottle-run/bottle/runtime"
)

// Test is one promise and how to prove it.
type Test struct {
	// Name is "group/what-is-promised".
	Name string
	// Doc is the promise in a sentence.
	Doc string
	// Features make it an extended test: see the package's documentation.
	Features []runtime.Feature
	// Kernel marks a test that needs real processes or networks. An engine that
	// is simulated is exempt from it, and from nothing else.
	Kernel bool
	// World marks a test that needs the outside world of package world.
	World bool
	// Timeout bounds the test; 0 means DefaultTimeout.
	Timeout time.Duration
	// Run returns what was expected and what was seen, if they differ.
	Run func(ctx context.Context, e *Env) error
}

// DefaultTimeout bounds a test that names no timeout of its own.
const DefaultTimeout = 2 * time.Minute

// Core reports whether the test is one that every engine has to pass.
func (t Test) Core() bool { return len(t.Features) == 0 }

// Group is the part of the name before the slash.
func (t Test) Group() string {
	group, _, _ := strings.Cut(t.Name, "/")
	return group
}

// All returns every test, in the order in which they are run.
func All() []Test {
	return slices.Concat(
		infoTests, networkTests, addressTests, sealingTests, dnsTests, hostileTests, neighbourTests, egressTests,
		runTests, handshakeTests, failureTests, processTests, hardeningTests, limitTests, stopTests,
		execTests, ttyTests, streamTests,
		copyTests, archiveTests, raceTests,
		imageTests, buildTests, pullTests,
		labelTests, errorTests, logTests,
	)
}

// failed says what was expected and what was seen.
func failed(format string, args ...any) error { return fmt.Errorf(format, args...) }

// check is failed if ok is false.
func check(ok bool, format string, args ...any) error {
	if ok {
		return nil
	}
	return failed(format, args...)
}

// first returns the first error.
func first(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// kind checks that err is of a kind: want is a predicate of errdefs.
func kind(err error, want func(error) bool, name, doing string) error {
	switch {
	case err == nil:
		return failed("%s: expected %s, but it succeeded", doing, name)
	case !want(err):
		return failed("%s: expected %s, got: %w", doing, name, err)
	}
	return nil
}

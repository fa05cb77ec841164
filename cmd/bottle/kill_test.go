package main

import (
	"bytes"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// number is a number from the environment.
func number(t *testing.T, name string, fallback int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return fallback
	}
	n, err := strconv.Atoi(text)
	check(t, err)
	return n
}

// TestKilledAtAnyMomentNothingIsLeft kills bottles with everything at moments of their life
// from the first to the last, BOTTLE_TEST_KILLS of them, and every fifth with its watchdog:
// then the next command clears up.
func TestKilledAtAnyMomentNothingIsLeft(t *testing.T) {
	s := newScene(t, "sleep 0.2")
	defer s.end()
	kills, seed := number(t, "BOTTLE_TEST_KILLS", 5), number(t, "BOTTLE_TEST_SEED", 1)
	t.Logf("BOTTLE_TEST_KILLS=%d BOTTLE_TEST_SEED=%d", kills, seed)
	random := rand.New(rand.NewPCG(uint64(seed), 0))
	// What an engine sets up once, and keeps, and how long a whole life is.
	life := time.Hour
	for range 3 {
		begun := time.Now()
		out, err := s.bottle("run", "e2e-life").CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		life = min(life, time.Since(begun))
	}
	t.Logf("a life takes %v", life)
	s.mark()
	var times []time.Duration
	for i := range kills {
		// Evenly spread, and random within each part.
		moment := time.Duration((float64(i) + random.Float64()) / float64(kills) * float64(life))
		both := i%5 == 4
		cmd := s.bottle("run", "e2e-life")
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		check(t, cmd.Start())
		time.Sleep(moment)
		dog := 0
		if both {
			dog = watchdogOf(cmd.Process.Pid)
		}
		if dog != 0 {
			check(t, syscall.Kill(dog, syscall.SIGKILL))
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if dog != 0 {
			if said, err := s.bottle("ps").CombinedOutput(); err != nil {
				t.Errorf("bottle ps after both were killed: %v: %s", err, said)
			}
		}
		took, left := s.nothingLeft(killedTime())
		times = append(times, took)
		lines := strings.Split(strings.TrimSpace(out.String()), "\n")
		t.Logf("kill %d after %v, with its watchdog: %v, last said %q: nothing left after %v", i, moment.Round(time.Millisecond), dog != 0, lines[len(lines)-1], took.Round(time.Millisecond))
		if len(left) > 0 {
			t.Errorf("killed after %v (with its watchdog: %v), after\n%s\nthis is left:\n%s", moment, dog != 0, out.String(), strings.Join(left, "\n"))
			s.mark() // what is left is this one's
		}
	}
	slices.Sort(times)
	t.Logf("%d kills; nothing left after, median %v, at most %v", kills, times[len(times)/2].Round(time.Millisecond), times[len(times)-1].Round(time.Millisecond))
}

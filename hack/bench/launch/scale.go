package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/bottle-run/bottle/runtime"
)

// scale brings many full bottles up, one after the other, and leaves them; what is asked
// about all of them is timed while they are there.
type scale struct {
	w        *world
	o        options
	bottles  int
	networks int // in all
}

func (s *scale) bottle(args ...string) (time.Duration, error) {
	words := []string{"--runtime", s.o.runtime, "-f", s.w.manifest}
	if s.o.host != "" {
		words = append(words, "--host", s.o.host)
	}
	cmd := exec.Command(s.o.bottle, append(words, args...)...)
	cmd.Env, cmd.Dir = append(os.Environ(), s.w.secrets()...), s.w.dir
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	begun := time.Now()
	err := cmd.Run()
	if err != nil {
		err = fmt.Errorf("bottle %s: %w: %s", args[0], err, said.String())
	}
	return time.Since(begun), err
}

func (s *scale) name(i int) string { return fmt.Sprintf("%s-%d", s.w.prefix, i) }

func (s *scale) extra(i int) string { return fmt.Sprintf("bottle-%s-extra-%d", s.w.prefix, i) }

// up prints a table of how long it took.
func (s *scale) up(ctx context.Context) error {
	// Once for the image, which is not counted.
	if _, err := s.bottle("run", "--name", s.name(0), "bench", "--", "/bin/busybox", "true"); err != nil {
		return err
	}
	var took []time.Duration
	for i := range s.bottles {
		d, err := s.bottle("run", "--detach", "--name", s.name(i+1), "bench")
		if err != nil {
			return fmt.Errorf("bottle %d: %w", i+1, err)
		}
		took = append(took, d)
	}
	for i := 2 * s.bottles; i < s.networks; i++ {
		if _, err := s.w.rt.CreateNetwork(ctx, runtime.NetworkSpec{Name: s.extra(i), Internal: i%2 == 0}); err != nil {
			return fmt.Errorf("network %d: %w", i+1, err)
		}
	}
	containers, err := s.w.rt.ListContainers(ctx, runtime.Filter{})
	if err != nil {
		return err
	}
	networks, err := s.w.rt.ListNetworks(ctx, runtime.Filter{})
	if err != nil {
		return err
	}
	const some = 5
	first, last := median(took[:min(some, len(took))]), median(took[max(0, len(took)-some):])
	fmt.Printf("### %s\n\nLoad average %s; %d bottles, %d containers, %d networks.\n\n", s.o.runtime, load(), s.bottles, len(containers), len(networks))
	fmt.Printf("| | ms |\n|---|---:|\n")
	fmt.Printf("| a launch, median of the first %d | %.0f |\n| a launch, median of the last %d | %.0f |\n", some, ms(first), some, ms(last))
	for _, c := range [][]string{{"ps"}, {"prune", "--dry-run"}, {"doctor"}} {
		var runs []time.Duration
		for range 5 {
			d, err := s.bottle(c...)
			var status *exec.ExitError
			if err != nil && (c[0] != "doctor" || !errors.As(err, &status)) { // which has an opinion about the machine
				return err
			}
			runs = append(runs, d)
		}
		fmt.Printf("| `bottle %s` | %.0f |\n", strings.Join(c, " "), ms(median(runs)))
	}
	fmt.Printf("\nThe last against the first: %.2f (goal 1.5).\n", float64(last)/float64(first))
	return nil
}

// memory prints the proportional memory of the sidecars. It is for root: nobody else may
// see that of other users.
func (s *scale) memory() error {
	files, err := filepath.Glob("/proc/[0-9]*/exe")
	if err != nil {
		return err
	}
	var total, n int64
	for _, exe := range files {
		program, err := os.Readlink(exe)
		if err != nil || program != "/bottle-sidecar" {
			continue
		}
		rollup, err := os.ReadFile(filepath.Join(filepath.Dir(exe), "smaps_rollup"))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(rollup)) {
			if fields := strings.Fields(line); len(fields) == 3 && fields[0] == "Pss:" {
				kib, err := strconv.ParseInt(fields[1], 10, 64)
				if err != nil {
					return err
				}
				total, n = total+kib, n+1
			}
		}
	}
	if n == 0 {
		return errors.New("no sidecar runs")
	}
	fmt.Printf("Proportional memory (PSS) of the sidecars of a bottle, idle: %.1f MB (goal 60); %d processes.\n\n", float64(total)*1024/1e6/float64(s.bottles), n)
	return nil
}

// down removes everything.
func (s *scale) down(ctx context.Context) error {
	names := []string{"rm"}
	for i := range s.bottles {
		names = append(names, s.name(i+1))
	}
	d, err := s.bottle(names...)
	if err != nil {
		return err
	}
	fmt.Printf("`bottle rm` of all: %.0f ms, %.0f ms each.\n\n", ms(d), ms(d)/float64(s.bottles))
	return s.w.sweep(ctx)
}

package conformance

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// snapshot is what there is, by kind: "engine: containers", "host: links".
type snapshot map[string][]string

const (
	onEngine = "engine: "
	onHost   = "host: "
	inTemp   = "process: " // the process's own, on however busy a host
)

// patience is how long something may take, on however busy a machine, that happens at once on
// one that is not: a test that waits for so long fails.
const patience = 30 * time.Second

func (s *suite) snapshot(ctx context.Context) (snapshot, error) {
	inventory, err := s.rt.Inventory(ctx)
	if err != nil {
		return nil, fmt.Errorf("take inventory: %w", err)
	}
	all := snapshot{}
	for kind, names := range inventory {
		all[onEngine+kind] = names
	}
	if s.temp != "" {
		all[inTemp+"temporary files"] = list(s.temp)
	}
	if s.info.Simulated {
		return all, nil
	}
	children, err := childProcesses()
	if err != nil {
		return nil, err
	}
	all[inTemp+"child processes"] = children
	host, err := hostSnapshot(s.stateDirs())
	if err != nil {
		return nil, fmt.Errorf("look at the host: %w", err)
	}
	for kind, names := range host {
		all[onHost+kind] = names
	}
	return all, nil
}

// Host lists by kind what an engine could leave on this host, as far as this process may
// see it: links, mounts, namespaces, firewall rules, and files below the given directories
// that bear the product's name. Two such lists are compared.
func Host(dirs ...string) (map[string][]string, error) { return hostSnapshot(dirs) }

// host is the part of the snapshot that others may change.
func (s snapshot) host() snapshot {
	part := snapshot{}
	for kind, names := range s {
		if strings.HasPrefix(kind, onHost) {
			part[kind] = names
		}
	}
	return part
}

// without is the rest of the snapshot.
func (s snapshot) without(host snapshot) snapshot {
	part := maps.Clone(s)
	for kind := range host {
		delete(part, kind)
	}
	return part
}

func list(dir string) []string {
	entries, _ := os.ReadDir(dir)
	names := []string{}
	for _, e := range entries {
		names = append(names, filepath.Join(dir, e.Name()))
	}
	return names
}

// difference lists what is in one snapshot and not in the other.
func difference(before, after snapshot) []string {
	var lines []string
	for _, kind := range slices.Sorted(maps.Keys(merged(before, after))) {
		added, gone := compare(before[kind], after[kind])
		for _, name := range added {
			lines = append(lines, kind+": left behind: "+name)
		}
		for _, name := range gone {
			lines = append(lines, kind+": gone, though it was there before: "+name)
		}
	}
	return lines
}

func merged(a, b snapshot) snapshot {
	all := maps.Clone(a)
	maps.Copy(all, b)
	return all
}

// compare compares two lists as multisets.
func compare(before, after []string) (added, gone []string) {
	count := map[string]int{}
	for _, n := range before {
		count[n]++
	}
	for _, n := range after {
		if count[n]--; count[n] < 0 {
			added = append(added, n)
		}
	}
	for _, n := range slices.Sorted(maps.Keys(count)) {
		for range count[n] {
			gone = append(gone, n)
		}
	}
	return added, gone
}

// leftovers compares what there is with what there was before the test. What it
// finds belongs to the next test's beginning, so that it fails one test only.
func (s *suite) leftovers(ctx context.Context) error {
	var now snapshot
	var lines []string
	err := poll(ctx, s.patience, func(ctx context.Context) error {
		var err error
		if now, err = s.snapshot(ctx); err != nil {
			return err
		}
		before, after := s.before, now
		if s.opts.SharedHost {
			before, after = before.without(before.host()), after.without(after.host())
		}
		if lines = difference(before, after); len(lines) > 0 {
			return errors.New("not what it was")
		}
		return nil
	})
	if now != nil {
		s.before = now
	}
	if len(lines) > 0 {
		hint := ""
		if slices.ContainsFunc(lines, func(l string) bool { return strings.HasPrefix(l, onHost) }) {
			hint = "\n(if something else changes this host at the same time, say so: " + EnvSharedHost + "=1)"
		}
		return fmt.Errorf("leftovers %s after the test:\n  %s%s", s.patience, strings.Join(lines, "\n  "), hint)
	}
	return err
}

// warnAboutHost notes what has changed on a shared host since the run began.
func (s *suite) warnAboutHost(ctx context.Context) {
	var lines []string
	_ = poll(ctx, patience, func(ctx context.Context) error {
		now, err := s.snapshot(ctx)
		if err != nil {
			return err
		}
		if lines = difference(s.begun, now.host()); len(lines) > 0 {
			return errors.New("not what it was")
		}
		return nil
	})
	for _, line := range lines {
		s.report.Warnings = append(s.report.Warnings, "shared host, so nobody's fault: "+line)
	}
}

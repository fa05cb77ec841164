package containerd

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/bottle-run/bottle/runtime"
)

// Stats implements [runtime.Containers].
func (e *Engine) Stats(ctx context.Context, name string) (runtime.Stats, error) {
	s, err := e.stats(e.ctx(ctx), name)
	return s, wrap(ctx, "read figures of container", name, err)
}

func (e *Engine) stats(ctx context.Context, name string) (s runtime.Stats, err error) {
	c, _, err := e.running(ctx, name)
	if err != nil {
		return s, err
	}
	if reason := controllers().missingStats(); reason != "" {
		return s, runtime.NotImplemented(runtime.FeatureStats, reason)
	}
	if controllers().version == "1" {
		s, err = statsV1(c.ID)
	} else {
		s, err = statsV2(c.ID)
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = precondition("it does not run any more")
	}
	return s, err
}

// missingStats says why figures cannot be told, or nothing.
func (c cgroups) missingStats() string {
	for _, name := range []string{"memory", "cpu", "pids"} {
		if reason := c.missing(name); reason != "" {
			return reason
		}
	}
	return ""
}

func statsV1(id string) (s runtime.Stats, err error) {
	at := func(controller, file string) string {
		return filepath.Join(cgroupRoot, controller, cgroupParent, id, file)
	}
	var cpu, used, limit, pids uint64
	for _, f := range []struct {
		file string
		into *uint64
	}{
		{at("cpuacct", "cpuacct.usage"), &cpu}, {at("memory", "memory.usage_in_bytes"), &used},
		{at("memory", "memory.limit_in_bytes"), &limit}, {at("pids", "pids.current"), &pids},
	} {
		if *f.into, err = cgroupNumber(f.file); err != nil {
			return s, err
		}
	}
	idle, err := cgroupValue(at("memory", "memory.stat"), "total_inactive_file")
	return figures(cpu, used, idle, limit, pids), err
}

func statsV2(id string) (s runtime.Stats, err error) {
	at := func(file string) string { return filepath.Join(cgroupRoot, cgroupParent, id, file) }
	var used, limit, pids uint64
	for _, f := range []struct {
		file string
		into *uint64
	}{{at("memory.current"), &used}, {at("memory.max"), &limit}, {at("pids.current"), &pids}} {
		if *f.into, err = cgroupNumber(f.file); err != nil {
			return s, err
		}
	}
	micros, err := cgroupValue(at("cpu.stat"), "usage_usec")
	if err != nil {
		return s, err
	}
	idle, err := cgroupValue(at("memory.stat"), "inactive_file")
	return figures(micros*1000, used, idle, limit, pids), err
}

func figures(cpu, used, idle, limit, pids uint64) runtime.Stats {
	return runtime.Stats{
		CPU: time.Duration(cpu), Memory: int64(used - min(used, idle)), MemoryLimit: runtime.LimitOf(limit, 0), PIDs: int64(pids), //nolint:gosec // they are no such numbers
	}
}

// cgroupNumber reads a file that holds a number; "max" is 0.
func cgroupNumber(file string) (uint64, error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	text := strings.TrimSpace(string(content))
	if text == "max" {
		return 0, nil
	}
	return strconv.ParseUint(text, 10, 64)
}

// cgroupValue reads a number of a file of names and numbers; one that is not there is 0.
func cgroupValue(file, name string) (uint64, error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	for scan := bufio.NewScanner(bytes.NewReader(content)); scan.Scan(); {
		if fields := strings.Fields(scan.Text()); len(fields) == 2 && fields[0] == name {
			return strconv.ParseUint(fields[1], 10, 64)
		}
	}
	return 0, nil
}

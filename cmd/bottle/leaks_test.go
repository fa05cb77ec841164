package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/bottle-run/bottle/core"
	"github.com/bottle-run/bottle/runtime"
)

// needles are the forms in which a value is looked for.
func needles(value string) map[string][]byte {
	forms := map[string][]byte{
		"plain": []byte(value), "hex": []byte(hex.EncodeToString([]byte(value))), "HEX": []byte(strings.ToUpper(hex.EncodeToString([]byte(value)))),
		"query": []byte(url.QueryEscape(value)), "path": []byte(url.PathEscape(value)), "quoted": []byte(strings.Trim(strconv.Quote(value), `"`)),
	}
	// Base64 of a text that holds the value, at each of the three places where it may
	// begin, without what depends on its neighbours.
	for skip := range 3 {
		padded := append(make([]byte, skip), value...)
		padded = padded[:len(padded)/3*3]
		from := (skip*8 + 5) / 6
		if skip == 0 {
			from = 0
		}
		for name, enc := range map[string]*base64.Encoding{"base64": base64.StdEncoding, "base64url": base64.URLEncoding} {
			forms[fmt.Sprintf("%s+%d", name, skip)] = []byte(enc.EncodeToString(padded)[from:])
		}
	}
	return forms
}

// search looks for values in what it is given.
type search struct {
	forms map[string][]byte
	found []string
	// looked counts bytes, by where: a search of nothing proves nothing.
	looked map[string]int64
	// operators are files that are passed over.
	operators []string
}

func newSearch(ts *testscript.TestScript, names []string) *search {
	s := &search{forms: map[string][]byte{}, looked: map[string]int64{}}
	for _, name := range names {
		value := ts.Getenv(name)
		if len(value) < 12 {
			ts.Fatalf("%s is not set, or too short to be looked for", name)
		}
		for form, needle := range needles(value) {
			s.forms[name+" ("+form+")"] = needle
		}
	}
	return s
}

// in searches a stream, of the kind, called where.
func (s *search) in(kind, where string, r io.Reader) error {
	const window, overlap = 1 << 20, 4096
	buf := make([]byte, 0, window+overlap)
	for {
		n, err := io.ReadFull(r, buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		s.looked[kind] += int64(n)
		for form, needle := range s.forms {
			if bytes.Contains(buf, needle) {
				s.found = append(s.found, fmt.Sprintf("%s: %s in %s", kind, form, where))
			}
		}
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return nil
		}
		if err != nil {
			return err
		}
		buf = append(buf[:0], buf[max(0, len(buf)-overlap):]...)
	}
}

// files searches the files below a directory that were written since a time.
func (s *search) files(kind, root string, since time.Time) {
	_ = filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return nil // what this user may not read, or what is gone
		}
		info, err := e.Info()
		if err != nil || !info.Mode().IsRegular() || slices.Contains(s.operators, path) || info.ModTime().Before(since) {
			return nil
		}
		f, err := os.Open(path)
		if err != nil {
			return nil
		}
		defer func() { _ = f.Close() }()
		return s.in(kind, path, f)
	})
}

// commandLines searches those of every process that can be seen.
func (s *search) commandLines() {
	lists, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range lists {
		if data, err := os.ReadFile(path); err == nil {
			_ = s.in("command lines", path, bytes.NewReader(data))
		}
	}
}

// environments searches those of the sidecars' processes, where this user may read them.
func (s *search) environments() {
	lists, _ := filepath.Glob("/proc/[0-9]*/comm")
	for _, path := range lists {
		if comm, err := os.ReadFile(path); err != nil || !strings.HasPrefix(string(comm), "bottle-sidecar") {
			continue
		}
		if data, err := os.ReadFile(filepath.Join(filepath.Dir(path), "environ")); err == nil {
			_ = s.in("environments", path, bytes.NewReader(data))
		}
	}
}

// cmdLeaks looks for the values of variables, plain and encoded, wherever a bottle may
// have left them, and fails if one is there: leaks [-agent|-gone] BOTTLE VARIABLE...
// With -agent they are the agent's own, which its processes have; with -gone the bottle
// has been removed.
func (e *scriptEngine) cmdLeaks(ts *testscript.TestScript, neg bool, args []string) {
	mode := ""
	if len(args) > 0 && strings.HasPrefix(args[0], "-") {
		mode, args = args[0], args[1:]
	}
	if neg || len(args) < 2 || !slices.Contains([]string{"", "-agent", "-gone"}, mode) {
		ts.Fatalf("usage: leaks [-agent|-gone] BOTTLE VARIABLE...")
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	s := newSearch(ts, args[1:])
	s.operators = e.operators
	must := []string{"command lines", "records"}
	s.commandLines()
	s.environments()
	// The script's own directory holds neither: the values are in its environment.
	for _, dir := range []string{ts.Getenv("TMPDIR"), "/tmp", "/var/tmp", "/dev/shm"} {
		if dir == "/tmp" {
			s.temporary(dir, e.began)
			continue
		}
		s.files("temporary files", dir, e.began)
	}
	// What the engine keeps, as far as this user may read it.
	for _, name := range []string{"BOTTLE_ENGINES_DATA", "BOTTLE_ENGINES_RUN"} {
		dir := os.Getenv(name)
		if dir == "" {
			dir = map[string]string{"BOTTLE_ENGINES_DATA": "/var/lib/bottle-engines", "BOTTLE_ENGINES_RUN": "/run/bottle-engines"}[name]
		}
		s.files("the engine's files", dir, e.began)
	}
	ts.Check(e.searchRecords(ctx, s, args[0], mode == "-gone"))
	if mode != "-gone" {
		must = append(must, "logs")
		ts.Check(e.searchBottle(ctx, s, args[0], mode == "-agent"))
		if mode == "" {
			must = append(must, "the agent's files", "the agent's processes")
		}
	}
	for _, kind := range must {
		if s.looked[kind] == 0 {
			ts.Fatalf("nothing was looked at: %s", kind)
		}
	}
	ts.Logf("looked at, in bytes: %v", s.looked)
	if len(s.found) > 0 {
		ts.Fatalf("found:\n%s", strings.Join(s.found, "\n"))
	}
}

// temporary searches what is new in /tmp, but for the directories of tests: scripts lie
// there.
func (s *search) temporary(dir string, since time.Time) {
	entries, _ := os.ReadDir(dir)
	for _, entry := range entries {
		if strings.Contains(entry.Name(), "go-test-script") || strings.HasPrefix(entry.Name(), "go-build") || strings.HasPrefix(entry.Name(), "Test") {
			continue
		}
		s.files("temporary files", filepath.Join(dir, entry.Name()), since)
	}
}

// searchRecords searches all that the engine's own command line tells.
func (e *scriptEngine) searchRecords(ctx context.Context, s *search, bottle string, gone bool) error {
	list, err := e.rt.ListContainers(ctx, runtime.Filter{Labels: map[string]string{core.LabelBottle: bottle}})
	if err != nil {
		return err
	}
	if gone != (len(list) == 0) {
		return fmt.Errorf("bottle %s has %d containers", bottle, len(list))
	}
	ctr := []string{"ctr", "--address", strings.TrimPrefix(e.host, "unix://"), "--namespace", "bottle"}
	queries := map[string][][]string{
		"docker":     {{"docker", "ps", "-a", "--no-trunc"}, {"docker", "system", "df", "-v"}, {"docker", "volume", "ls"}},
		"podman":     {{"podman", "ps", "-a", "--no-trunc"}, {"podman", "volume", "ls"}},
		"containerd": {append(slices.Clone(ctr), "containers", "list"), append(slices.Clone(ctr), "snapshots", "list"), append(slices.Clone(ctr), "leases", "list")},
	}[e.name]
	images := map[string]bool{}
	for _, c := range list {
		if c, err = e.rt.InspectContainer(ctx, c.ID); err != nil {
			return err
		}
		images[c.ImageID], images[c.Image] = true, true
		switch e.name {
		case "containerd":
			queries = append(queries, append(slices.Clone(ctr), "containers", "info", c.ID))
		default:
			queries = append(queries, []string{e.name, "inspect", c.ID}, []string{e.name, "top", c.ID})
		}
	}
	delete(images, "")
	for image := range images {
		if e.name != "containerd" {
			queries = append(queries, []string{e.name, "inspect", image}, []string{e.name, "history", "--no-trunc", image})
		}
	}
	if e.name == "containerd" {
		queries = append(queries, append(slices.Clone(ctr), "images", "list"), append(slices.Clone(ctr), "content", "list"))
	}
	for _, q := range queries {
		out, err := exec.CommandContext(ctx, q[0], q[1:]...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%q: %w: %s", q, err, out)
		}
		if err := s.in("records", strings.Join(q, " "), bytes.NewReader(out)); err != nil {
			return err
		}
	}
	return nil
}

// searchBottle searches the logs of a bottle's containers and, unless the values are the
// agent's own, what the agent sees: as root it reads every file and every process.
func (e *scriptEngine) searchBottle(ctx context.Context, s *search, bottle string, own bool) error {
	list, err := e.rt.ListContainers(ctx, runtime.Filter{Labels: map[string]string{core.LabelBottle: bottle}})
	if err != nil {
		return err
	}
	for _, c := range list {
		var out bytes.Buffer
		if err := e.rt.Logs(ctx, c.ID, runtime.LogOptions{Stdout: &out, Stderr: &out}); err != nil {
			return err
		}
		if err := s.in("logs", c.Name, &out); err != nil {
			return err
		}
		if c.Labels[core.LabelRole] != core.RoleAgent || own {
			continue
		}
		for kind, command := range map[string]string{
			"the agent's files":     "find / -path /proc -prune -o -path /sys -prune -o -type f -exec cat {} + 2>/dev/null; true",
			"the agent's processes": "cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline /proc/mounts 2>/dev/null; env",
		} {
			r, w := io.Pipe()
			searched := make(chan error, 1)
			go func() { searched <- s.in(kind, kind, r) }()
			status, err := e.rt.Exec(ctx, c.ID, runtime.ExecSpec{Command: []string{"sh", "-c", command}, User: "0", Stdout: w})
			_ = w.Close()
			if err := <-searched; err != nil {
				return err
			}
			if err != nil || status.Code != 0 {
				return fmt.Errorf("search %s: status %d: %w", kind, status.Code, err)
			}
		}
	}
	return nil
}

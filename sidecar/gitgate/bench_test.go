package gitgate

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/bottle-run/bottle/sidecar/audit"
	"github.com/bottle-run/bottle/sidecar/config"
)

// asProgram makes the test binary serve a gate from the directory that it names: a process
// of its own, whose memory can be read.
const asProgram = "BOTTLE_GITGATE_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if dir := os.Getenv(asProgram); dir != "" {
		if err := program(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func program(dir string) error {
	g := New(filepath.Join(dir, "config.json"), filepath.Join(dir, "secrets"), slog.New(slog.DiscardHandler), func(agent string) *audit.Log { return audit.New(os.Stderr, "git-gate", agent) })
	if err := g.Reload(); err != nil {
		return err
	}
	SetMemoryLimit()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(ln.Addr())
	go func() {
		_, _ = bufio.NewReader(os.Stdin).ReadString('\n') // until the test is over
		_ = g.Shutdown(context.Background())
	}()
	return g.Serve(ln)
}

// spawn runs a gate as a program and returns its address and its process.
func (w *world) spawn(c config.GitGate) (addr string, cmd *exec.Cmd) {
	w.t.Helper()
	dir := w.t.TempDir()
	c.Quarantine = w.t.TempDir()
	if err := json.Unmarshal([]byte(`["127.0.0.0/8"]`), &c.Guard.AllowCIDRs); err != nil {
		w.t.Fatal(err)
	}
	data, err := json.Marshal(c)
	if err != nil {
		w.t.Fatal(err)
	}
	w.write(filepath.Join(dir, "config.json"), string(data))
	self, err := os.Executable()
	if err != nil {
		w.t.Fatal(err)
	}
	cmd = exec.Command(self)
	cmd.Env = append(os.Environ(), asProgram+"="+dir)
	in, err := cmd.StdinPipe()
	if err != nil {
		w.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		w.t.Fatal(err)
	}
	cmd.Stderr = &syncBuffer{}
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { in.Close(); _ = cmd.Wait() })
	addr, err = bufio.NewReader(out).ReadString('\n')
	if err != nil {
		w.t.Fatalf("the gate did not start: %v %s", err, cmd.Stderr)
	}
	return strings.TrimSpace(addr), cmd
}

// peak returns the largest resident memory that a process has had, in MiB.
func peak(b *testing.B, pid int) float64 {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if v, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			n, err := strconv.Atoi(strings.Fields(v)[0])
			if err != nil {
				b.Fatal(err)
			}
			return float64(n) / 1024
		}
	}
	b.Fatal("no VmHWM")
	return 0
}

// large makes a bare repository of n commits and of so many bytes that do not compress.
func (w *world) large(name string, commits, bytes int) {
	dir := filepath.Join(w.root, name+".git")
	w.git(w.root, "init", "-q", "--bare", dir)
	r, out, err := os.Pipe()
	if err != nil {
		w.t.Fatal(err)
	}
	go func() {
		defer out.Close()
		bw := bufio.NewWriterSize(out, 1<<20)
		defer func() { _ = bw.Flush() }()
		rnd := rand.NewChaCha8([32]byte{1})
		blob := make([]byte, bytes/commits)
		for i := range commits {
			_, _ = rnd.Read(blob)
			fmt.Fprintf(bw, "commit refs/heads/main\ncommitter a <a@b.c> %d +0000\ndata 2\nc\nM 100644 inline d%d/f%d\ndata %d\n", 1600000000+i, i%50, i%1000, len(blob))
			_, _ = bw.Write(blob)
			_, _ = bw.WriteString("\n")
		}
	}()
	cmd := exec.CommandContext(w.t.Context(), "git", "fast-import", "--quiet")
	cmd.Dir, cmd.Env, cmd.Stdin = dir, w.env(), r
	if text, err := cmd.CombinedOutput(); err != nil {
		w.t.Fatalf("%v %s", err, text)
	}
	r.Close()
}

// source makes a repository with commits that change texts like those of programs, of which
// so many objects come.
func (w *world) source(objects int) (dir string) {
	dir = w.t.TempDir()
	w.git(dir, "init", "-q")
	rnd := rand.New(rand.NewPCG(1, 2))
	words := strings.Fields("func return error string context if err nil for range config token key value request response header client server := != ( ) { } // the a of to is")
	text := func() string {
		var b strings.Builder
		for range 60 {
			for range 5 + rnd.IntN(6) {
				b.WriteString(words[rnd.IntN(len(words))] + " ")
			}
			b.WriteByte('\n')
		}
		return b.String()
	}
	var in strings.Builder
	for i := range objects / 4 { // a commit, two trees and a file each
		t := text()
		fmt.Fprintf(&in, "commit refs/heads/main\ncommitter a <a@b.c> %d +0000\ndata 2\nc\nM 100644 inline d%d/f%d.go\ndata %d\n%s\n", 1600000000+i, i%20, i%200, len(t), t)
	}
	w.gitIn(dir, in.String(), "fast-import", "--quiet")
	return dir
}

func median(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2]
}

// BenchmarkAgainstGitDaemon compares a clone and a push through the gate with the same without
// it: times in turns, the median of each, and the most memory that the gate had.
func BenchmarkAgainstGitDaemon(b *testing.B) {
	w := newWorld(b)
	w.large("large", 50_000, 200<<20)
	const rounds = 7
	b.Run("clone", func(b *testing.B) {
		addr, gate := w.spawn(config.GitGate{Repositories: []config.GitRepository{{Name: "large", URL: w.urls["git"] + "/large.git"}}})
		for b.Loop() {
			times := map[string][]time.Duration{}
			for range rounds {
				for way, base := range map[string]string{"direct": w.urls["git"], "gate": "git://" + addr} {
					dir := filepath.Join(b.TempDir(), "clone.git")
					begin := time.Now()
					w.git("", "clone", "-q", "--bare", base+"/large.git", dir)
					times[way] = append(times[way], time.Since(begin))
					if err := os.RemoveAll(dir); err != nil {
						b.Fatal(err)
					}
				}
			}
			report(b, times, gate)
		}
	})
	b.Run("push", func(b *testing.B) {
		dir := w.source(10_000)
		b.Logf("%s", w.git(dir, "count-objects", "-v"))
		addr, gate := w.spawn(config.GitGate{Repositories: []config.GitRepository{{Name: "target", URL: w.urls["git"] + "/target.git", Push: everything}}})
		for b.Loop() {
			times := map[string][]time.Duration{}
			for range rounds {
				for way, base := range map[string]string{"direct": w.urls["git"], "gate": "git://" + addr} {
					target := filepath.Join(w.root, "target.git")
					if err := os.RemoveAll(target); err != nil {
						b.Fatal(err)
					}
					w.git("", "init", "-q", "--bare", target)
					begin := time.Now()
					w.git(dir, "push", "-q", base+"/target.git", "main")
					times[way] = append(times[way], time.Since(begin))
				}
			}
			report(b, times, gate)
		}
	})
}

// BenchmarkLargeFiles pushes files that have to be kept whole: versions of one, each a delta of
// another, and one that does not compress.
func BenchmarkLargeFiles(b *testing.B) {
	w := newWorld(b)
	dir := b.TempDir()
	w.git(dir, "init", "-q")
	text := make([]byte, 0, 20<<20)
	rnd := rand.New(rand.NewPCG(1, 2))
	for len(text) < 19<<20 {
		text = fmt.Appendf(text, "line %x\n", rnd.Uint64())
	}
	for i := range 6 {
		w.commit(dir, "versions", string(text[:len(text)/2])+fmt.Sprintf("version %d\n", i)+string(text[len(text)/2:]), "m")
	}
	noise := make([]byte, 150<<20)
	_, _ = rand.NewChaCha8([32]byte{2}).Read(noise)
	w.commit(dir, "noise", string(noise), "m")
	w.git(dir, "repack", "-adfq")
	addr, gate := w.spawn(config.GitGate{Repositories: []config.GitRepository{{Name: "target", URL: w.urls["git"] + "/target.git", Push: everything}}})
	for b.Loop() {
		target := filepath.Join(w.root, "target.git")
		if err := os.RemoveAll(target); err != nil {
			b.Fatal(err)
		}
		w.git("", "init", "-q", "--bare", target)
		w.git(dir, "push", "-q", "git://"+addr+"/target.git", "main")
	}
	b.SetBytes(int64(len(noise) + 6*len(text)))
	b.ReportMetric(peak(b, gate.Process.Pid), "peak-MiB")
}

func report(b *testing.B, times map[string][]time.Duration, gate *exec.Cmd) {
	direct, through := median(times["direct"]), median(times["gate"])
	b.ReportMetric(direct.Seconds(), "direct-s")
	b.ReportMetric(through.Seconds(), "gate-s")
	b.ReportMetric(through.Seconds()/direct.Seconds(), "times")
	b.ReportMetric(peak(b, gate.Process.Pid), "peak-MiB")
	b.Logf("%v", times)
}

//go:build linux

package tinyinit

import (
	"bytes"
	"encoding/binary"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// logger starts the log mode and returns the ends to write to and its file.
func logger(t *testing.T) (stdout, stderr *os.File, cmd *exec.Cmd, file string) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var ends [3][2]*os.File
	for i := range ends {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		ends[i] = [2]*os.File{r, w}
	}
	cmd = exec.Command(program(t), "log", file)
	cmd.ExtraFiles = []*os.File{ends[0][0], ends[1][0], ends[2][1]}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for _, f := range cmd.ExtraFiles {
		_ = f.Close()
	}
	// It is ready when it closes its end.
	if _, err := io.ReadAll(ends[2][0]); err != nil {
		t.Fatal(err)
	}
	return ends[0][1], ends[1][1], cmd, file
}

// TestTheLoggerMakesNoFile: what removes a container may take its log away before the
// logger comes to it, and would find a directory that is not empty.
func TestTheLoggerMakesNoFile(t *testing.T) {
	dir := t.TempDir()
	if err := exec.Command(program(t), "log", filepath.Join(dir, "log")).Run(); err == nil {
		t.Error("it runs without its file")
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 0 {
		t.Errorf("it made %v, %v", entries, err)
	}
}

type logged struct {
	LogRecord
	data []byte
}

func readLog(t *testing.T, file string) []logged {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var all []logged
	for at := 0; at+LogHeader <= len(content); {
		var r logged
		if err := binary.Read(bytes.NewReader(content[at:]), binary.LittleEndian, &r.LogRecord); err != nil {
			t.Fatal(err)
		}
		if r.Kind == 0 {
			at += LogChunk - at%LogChunk
			continue
		}
		r.data = content[at+LogHeader : at+LogHeader+int(r.Size)]
		if first, last := at/LogChunk, (at+LogHeader+int(r.Size)-1)/LogChunk; first != last {
			t.Fatalf("the record at %d crosses a chunk", at)
		}
		all = append(all, r)
		at += LogHeader + int(r.Size)
	}
	return all
}

func TestLogKeepsStreamsApartAndInOrder(t *testing.T) {
	before := time.Now()
	stdout, stderr, cmd, file := logger(t)
	big := bytes.Repeat([]byte("0123456789abcdef"), 3<<16)
	for _, w := range []struct {
		to   *os.File
		data []byte
	}{{stdout, []byte("out 1\n")}, {stderr, []byte("err 1\n")}, {stdout, big}} {
		if _, err := w.to.Write(w.data); err != nil {
			t.Fatal(err)
		}
	}
	_ = stdout.Close()
	_ = stderr.Close()
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	var out, errs []byte
	for i, r := range readLog(t, file) {
		if at := time.Unix(0, int64(r.Time)); at.Before(before.Add(-time.Second)) || at.After(time.Now().Add(time.Second)) {
			t.Errorf("record %d is of %v", i, at)
		}
		switch {
		case i == 0 && r.Kind == LogStart:
			if pid := binary.LittleEndian.Uint32(r.data); int(pid) != cmd.Process.Pid {
				t.Errorf("start record names PID %d, want %d", pid, cmd.Process.Pid)
			}
		case r.Kind == LogStdout:
			out = append(out, r.data...)
		case r.Kind == LogStderr:
			errs = append(errs, r.data...)
		default:
			t.Errorf("record %d is of kind %d", i, r.Kind)
		}
	}
	if want := append([]byte("out 1\n"), big...); !bytes.Equal(out, want) {
		t.Errorf("stdout: %d bytes, want %d", len(out), len(want))
	}
	if string(errs) != "err 1\n" {
		t.Errorf("stderr: %q", errs)
	}
}

func TestLogSyncFollowsWhatWasWritten(t *testing.T) {
	stdout, stderr, cmd, file := logger(t)
	if _, err := stdout.Write([]byte("before")); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Signal(syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	_ = stderr.Close()
	deadline := time.Now().Add(10 * time.Second)
	for {
		records := readLog(t, file)
		if last := records[len(records)-1]; last.Kind == LogSync {
			if previous := records[len(records)-2]; string(previous.data) != "before" {
				t.Errorf("before the mark: %q", previous.data)
			}
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("no mark")
		}
		time.Sleep(time.Millisecond)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("on SIGTERM: %v", err)
	}
	_ = stdout.Close()
}

func TestLogHoldsItsFileLocked(t *testing.T) {
	stdout, stderr, cmd, file := logger(t)
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB); err == nil {
		t.Error("the file is not locked while the logger lives")
	}
	_ = stdout.Close()
	_ = stderr.Close()
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB); err != nil {
		t.Errorf("the file is locked after the logger's end: %v", err)
	}
}

func TestLogGivesTheOldestBack(t *testing.T) {
	stdout, stderr, cmd, file := logger(t)
	if _, err := io.CopyN(stdout, zeros{}, 80<<20); err != nil {
		t.Fatal(err)
	}
	_ = stdout.Close()
	_ = stderr.Close()
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	first, err := f.Seek(0, unix.SEEK_DATA)
	if err != nil {
		t.Fatal(err)
	}
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if kept := info.Size() - first; kept > 66<<20 || kept < 60<<20 {
		t.Errorf("%d bytes are kept, want about 64 MiB", kept)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	for i := range p {
		p[i] = 'z'
	}
	return len(p), nil
}

package main

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/bottle-run/bottle/core"
	"github.com/bottle-run/bottle/runtime"
)

// superviseBox is the container of a bottle's supervise sidecar.
func (e *scriptEngine) superviseBox(ctx context.Context, bottle string) (runtime.Container, error) {
	found, err := core.Open(ctx, e.rt, bottle, nil)
	if err != nil {
		return runtime.Container{}, err
	}
	list, err := found.Sidecars(ctx)
	if err != nil {
		return runtime.Container{}, err
	}
	for _, s := range list {
		if s.Role == core.RoleSupervise {
			return e.rt.InspectContainer(ctx, s.Container)
		}
	}
	return runtime.Container{}, errors.New("there is no supervise sidecar")
}

// inSupervise runs a script in the container of a bottle's supervise sidecar, which has no
// shell: it gets one, /busybox.
func (e *scriptEngine) inSupervise(bottle, script string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	box, err := e.superviseBox(ctx, bottle)
	if err != nil {
		return "", err
	}
	path, err := exec.LookPath("busybox")
	if err != nil {
		return "", err
	}
	program, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	err = w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "busybox", Mode: 0o755, Size: int64(len(program))})
	if err == nil {
		_, err = w.Write(program)
	}
	if err = errors.Join(err, w.Close()); err != nil {
		return "", err
	}
	if err := e.rt.CopyTo(ctx, box.ID, "/", &archive); err != nil {
		return "", err
	}
	var said bytes.Buffer
	status, err := e.rt.Exec(ctx, box.ID, runtime.ExecSpec{Command: []string{"/busybox", "sh", "-c", script}, WorkDir: "/", Stdout: &said, Stderr: &said})
	if err == nil && status.Code != 0 {
		err = fmt.Errorf("status %d: %s", status.Code, said.String())
	}
	return said.String(), err
}

// sidecarProcesses defines a command that lists the processes of the sidecars' program, the
// newest last.
const sidecarProcesses = `processes() { for p in /proc/[0-9]*; do if test "$(/busybox cat $p/comm)" = bottle-sidecar; then echo ${p#/proc/}; fi; done 2>/dev/null | /busybox sort -n; }`

// cmdNeighbour sets the variable NEIGHBOUR to where a bottle's supervise sidecar listens:
// neighbour BOTTLE.
func (e *scriptEngine) cmdNeighbour(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: neighbour BOTTLE")
	}
	box, err := e.superviseBox(context.Background(), args[0])
	ts.Check(err)
	ts.Setenv("NEIGHBOUR", net.JoinHostPort(box.Networks[0].Address.String(), "9100"))
}

// cmdMemory checks that no process of a bottle's supervise sidecar has ever needed more
// memory than so many MiB: memory BOTTLE MIB.
func (e *scriptEngine) cmdMemory(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: memory BOTTLE MIB")
	}
	most, err := strconv.Atoi(args[1])
	ts.Check(err)
	said, err := e.inSupervise(args[0], sidecarProcesses+`; for p in $(processes); do /busybox grep VmHWM /proc/$p/status; done`)
	ts.Check(err)
	seen := 0
	for line := range strings.Lines(said) {
		fields := strings.Fields(line)
		if len(fields) < 3 {
			continue
		}
		kib, err := strconv.Atoi(fields[len(fields)-2])
		ts.Check(err)
		seen = max(seen, kib)
	}
	ts.Logf("the largest process of the sidecar had %d MiB at most", seen>>10)
	if seen == 0 || seen>>10 > most {
		ts.Fatalf("the sidecar had %d MiB, and %d are bounded:\n%s", seen>>10, most, said)
	}
}

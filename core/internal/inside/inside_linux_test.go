package inside

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/creack/pty"

	"github.com/bottle-run/bottle/internal/needs"
	"github.com/bottle-run/bottle/internal/nolibc"
)

func program(t *testing.T) string {
	t.Helper()
	content, err := Program(runtime.GOARCH)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "inside")
	if err := os.WriteFile(path, content, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// run gives the exit status and what was written.
func run(t *testing.T, env []string, stdin string, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	cmd := exec.Command(program(t), args...)
	cmd.Env = env
	cmd.Stdin = strings.NewReader(stdin)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

func TestVariablesPassThroughTheFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "env")
	want := map[string]string{"A": "new", "EMPTY": "", "LINES": "x\ny=z", "UTF": "ä", "AB": "2", "BIG": strings.Repeat("x", 100_000)}
	encoded, err := EncodeEnv(want)
	if err != nil {
		t.Fatal(err)
	}
	if status, _, errs := run(t, nil, string(encoded), "put", file); status != 0 {
		t.Fatalf("put: status %d, %s", status, errs)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file: %v, %v", info.Mode(), err)
	}
	status, out, errs := run(t, []string{"A=old", "KEPT=1", "ABC=3"}, "", "env", file, "/usr/bin/env", "-0")
	if status != 0 {
		t.Fatalf("env: status %d, %s", status, errs)
	}
	got := strings.Split(strings.TrimSuffix(out, "\x00"), "\x00")
	expected := []string{"KEPT=1", "ABC=3"}
	for name, value := range want {
		expected = append(expected, name+"="+value)
	}
	slices.Sort(got)
	slices.Sort(expected)
	if !slices.Equal(got, expected) {
		t.Errorf("got %.200q\nwant %.200q", got, expected)
	}
}

func TestCommandsAreFoundAsAShellFindsThem(t *testing.T) {
	dir := t.TempDir()
	bin := filepath.Join(dir, "bin")
	if err := os.Mkdir(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{"tool": "#!/bin/sh\necho found \"$@\"\n", "lost": "#!/no/such\n", "text": "hello"} {
		if err := os.WriteFile(filepath.Join(bin, name), []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/usr/bin/true", filepath.Join(bin, "true")); err != nil {
		t.Fatal(err)
	}
	env := []string{"PATH=/nowhere::" + bin}
	for name, test := range map[string]struct {
		command []string
		status  int
		out     string
	}{
		"through PATH, arguments as they are": {[]string{"tool", "a b", "", "*"}, 0, "found a b  *\n"},
		"by its path":                         {[]string{bin + "/tool"}, 0, "found\n"},
		"with its status":                     {[]string{"/bin/sh", "-c", "exit 7"}, 7, ""},
		"not there":                           {[]string{"nosuch"}, 127, ""},
		"not there by its path":               {[]string{"/nosuch/x"}, 127, ""},
		"an empty name":                       {[]string{""}, 127, ""},
		"a directory":                         {[]string{bin}, 126, ""},
		"not a program":                       {[]string{"text"}, 126, ""},
	} {
		t.Run(name, func(t *testing.T) {
			status, out, errs := run(t, env, "", append([]string{"env", "/nosuch"}, test.command...)...)
			if status != test.status || out != test.out {
				t.Errorf("status %d, %q (%s); want %d, %q", status, out, errs, test.status, test.out)
			}
			if (status >= 125) != strings.HasPrefix(errs, "bottle: ") {
				t.Errorf("status %d with the message %q", status, errs)
			}
		})
	}
}

func TestIdleEndsWhenItIsTold(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP} {
		cmd := exec.Command(program(t), "idle")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		// Before it waits for signals one ends it by default, which is as good.
		if err := cmd.Wait(); err != nil && cmd.ProcessState.Sys().(syscall.WaitStatus).Signal() != sig {
			t.Errorf("after %v: %v", sig, err)
		}
	}
}

func TestIdleKeepsWhatItIsGivenFirst(t *testing.T) {
	file := filepath.Join(t.TempDir(), "env")
	cmd := exec.Command(program(t), "idle", file)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	said, err := cmd.StderrPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(in, "A=1\x00"); err != nil {
		t.Fatal(err)
	}
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, len(Ready)+1)
	if _, err := io.ReadFull(said, line); err != nil || string(line) != Ready+"\n" {
		t.Errorf("it says %q, %v", line, err)
	}
	content, err := os.ReadFile(file)
	if err != nil || string(content) != "A=1\x00" {
		t.Errorf("got %q, %v", content, err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file: %v, %v", info.Mode(), err)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil && cmd.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGTERM {
		t.Error(err)
	}
	if status, _, errs := run(t, nil, "x", "idle", filepath.Join(file, "below")); status != 125 || !strings.Contains(errs, "cannot be made") {
		t.Errorf("status %d, %q", status, errs)
	}
}

func TestACommandWaitsForTheSizeOfItsTerminal(t *testing.T) {
	cmd := exec.Command(program(t), "tty", "/nosuch", "/bin/sh", "-c", "stty size; exit 3")
	terminal, err := pty.Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = terminal.Close() }()
	if err := pty.Setsize(terminal, &pty.Winsize{Rows: 11, Cols: 22}); err != nil {
		t.Fatal(err)
	}
	out, _ := io.ReadAll(terminal) // it ends with EIO
	if _ = cmd.Wait(); cmd.ProcessState.ExitCode() != 3 || strings.TrimSpace(string(out)) != "11 22" {
		t.Errorf("status %d, %q", cmd.ProcessState.ExitCode(), out)
	}
	// Where there is no terminal there is nothing to wait for.
	if status, out, errs := run(t, nil, "", "tty", "/nosuch", "/bin/echo", "x"); status != 0 || out != "x\n" {
		t.Errorf("without a terminal: status %d, %q, %s", status, out, errs)
	}
}

func TestWhatIsSharedCanBeReadByAll(t *testing.T) {
	file := filepath.Join(t.TempDir(), "roots")
	if status, _, errs := run(t, nil, "hello", "share", file); status != 0 {
		t.Fatalf("status %d, %s", status, errs)
	}
	content, err := os.ReadFile(file)
	if err != nil || string(content) != "hello" {
		t.Errorf("got %q, %v", content, err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm()&0o044 != 0o044 {
		t.Errorf("the file: %v, %v", info.Mode(), err)
	}
}

func TestWhatWasPutIsGot(t *testing.T) {
	file := filepath.Join(t.TempDir(), "env")
	if status, out, errs := run(t, nil, "", "get", file); status != 0 || out != "" {
		t.Errorf("of a file that is missing: status %d, %q, %s", status, out, errs)
	}
	want := map[string]string{"A": "x\ny=z", "EMPTY": "", "BIG": strings.Repeat("x", 300_000)}
	encoded, err := EncodeEnv(want)
	if err != nil {
		t.Fatal(err)
	}
	if status, _, errs := run(t, nil, string(encoded), "put", file); status != 0 {
		t.Fatalf("put: status %d, %s", status, errs)
	}
	status, out, errs := run(t, nil, "", "get", file)
	if status != 0 {
		t.Fatalf("get: status %d, %s", status, errs)
	}
	got := DecodeEnv([]byte(out), func(name string) bool { return name != "EMPTY" })
	if len(got) != 2 || got["A"] != want["A"] || got["BIG"] != want["BIG"] {
		t.Errorf("%d variables", len(got))
	}
}

func FuzzDecodeEnv(f *testing.F) {
	f.Add([]byte("A=1\x00B=2\x00"))
	f.Add([]byte("=\x00\x00A\x00A=1=2"))
	f.Fuzz(func(t *testing.T, data []byte) {
		env := DecodeEnv(data, func(name string) bool { return name == "A" || name == "B" })
		encoded, err := EncodeEnv(env)
		if err != nil {
			t.Fatalf("%q: what was read cannot be passed on: %v", data, err)
		}
		for name := range DecodeEnv(encoded, func(string) bool { return true }) {
			if name != "A" && name != "B" {
				t.Errorf("%q: %q was not asked for", data, name)
			}
		}
	})
}

func TestPutFollowsNoLink(t *testing.T) {
	dir := t.TempDir()
	if err := os.Symlink(filepath.Join(dir, "elsewhere"), filepath.Join(dir, "env")); err != nil {
		t.Fatal(err)
	}
	if status, _, _ := run(t, nil, "x", "put", filepath.Join(dir, "env")); status != 125 {
		t.Errorf("status %d", status)
	}
	if _, err := os.Stat(filepath.Join(dir, "elsewhere")); err == nil {
		t.Error("the link's target was written")
	}
}

func TestUnusableArgumentsAreSaid(t *testing.T) {
	for _, args := range [][]string{nil, {"idle", "x", "y"}, {"end"}, {"put"}, {"share"}, {"env", "x"}, {"nosuch"}} {
		if status, _, errs := run(t, nil, "", args...); status != 125 || !strings.Contains(errs, "usage") {
			t.Errorf("%q: status %d, %q", args, status, errs)
		}
	}
}

func TestVariablesThatCannotBePassedAreRefused(t *testing.T) {
	for _, env := range []map[string]string{{"A": "x\x00y"}, {"": "x"}, {"A=B": "x"}, {"A": strings.Repeat("x", maxEnv)}} {
		if _, err := EncodeEnv(env); err == nil {
			t.Errorf("%.40v is encoded", env)
		}
	}
}

func TestAnUnknownArchitectureIsNotImplemented(t *testing.T) {
	if _, err := Program("m68k"); !errdefs.IsNotImplemented(err) {
		t.Errorf("got %v", err)
	}
}

func TestTheProgramsAreWhatTheSourceGives(t *testing.T) {
	nolibc.TestRebuild(t, "src/inside.c", "inside")
}

// TestEndTellsProcessesToEnd runs in a PID namespace of its own: all that it sees is told to
// end.
func TestEndTellsProcessesToEnd(t *testing.T) {
	unshare := needs.Program(t, "unshare", "util-linux")
	prefix := []string{"--pid", "--fork", "--mount-proc"}
	if os.Getuid() != 0 {
		prefix = append(prefix, "--user", "--map-root-user")
	}
	if err := exec.Command(unshare, append(slices.Clone(prefix), "true")...).Run(); err != nil {
		needs.Missing(t, "unshare %q does not work here: %v", prefix, err)
	}
	inside := program(t)
	for name, test := range map[string]struct{ script, want string }{
		"one that ends":         {`sleep 99 & p=$!; "$1" end 9; echo status $?; wait $p; echo sleep $?`, "status 0\nsleep 143\n"},
		"one that takes longer": {`sh -c 'trap "" TERM; echo ready >&3; sleep 2' 3>fifo & read x <fifo; "$1" end 0; echo status $?`, "status 1\n"},
		"one that idles stays":  {`"$1" idle env </dev/null 2>fifo & p=$!; read x <fifo; "$1" end 9; echo status $?; kill -0 $p && echo idles`, "status 0\nidles\n"},
		"what has ended":        {`sh -c 'sh -c true & exec sleep 99' & sleep 0.3; "$1" end 9; echo status $?`, "status 0\n"},
		"none":                  {`"$1" end 0; echo status $?`, "status 0\n"},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := exec.Command(unshare, append(slices.Clone(prefix), "bash", "-c", "mkfifo fifo; "+test.script, "bash", inside)...)
			cmd.Dir = t.TempDir()
			cmd.Stderr = os.Stderr
			out, err := cmd.Output()
			if err != nil || string(out) != test.want {
				t.Errorf("got %q, %v, want %q", out, err, test.want)
			}
		})
	}
}

package conformance

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	goruntime "runtime"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/bottle-run/bottle/internal/needs"
)

// inNamespace is the variable that makes this program the process of the test below.
const inNamespace = "BOTTLE_TEST_THREAD_IN_NAMESPACE"

func init() {
	if os.Getenv(inNamespace) == "" {
		return
	}
	goruntime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("ready")
	_, _ = io.Copy(io.Discard, os.Stdin)
	os.Exit(0)
}

// A process lives in a namespace with all of its threads, not with its first one alone.
func TestAFirstThreadIsNoProcess(t *testing.T) {
	if os.Geteuid() != 0 {
		needs.Missing(t, "only root can make a network namespace")
	}
	for name, whole := range map[string]bool{"the first thread": false, "the process": true} {
		cmd := exec.Command("/proc/self/exe")
		if whole {
			cmd = exec.Command("cat")
			cmd.SysProcAttr = &unix.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
		} else {
			cmd.Env = append(os.Environ(), inNamespace+"=1")
		}
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if whole {
			_, _ = io.WriteString(in, "ready\n")
		}
		line := make([]byte, len("ready\n"))
		if _, err := io.ReadFull(out, line); err != nil || string(line) != "ready\n" {
			t.Fatalf("%s: %q, %v", name, line, err)
		}
		ns, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", cmd.Process.Pid))
		if err != nil {
			t.Fatal(err)
		}
		if own, _ := os.Readlink("/proc/self/ns/net"); ns == own {
			t.Errorf("%s: it is in no other namespace", name)
		}
		if got := slices.Contains(namespaces("net"), ns); got != whole {
			t.Errorf("%s: listed: %v, want %v", name, got, whole)
		}
		_ = in.Close()
		_ = cmd.Wait()
	}
}

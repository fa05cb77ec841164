package podman

import (
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"
)

// messages splits a batch and checks that lengths and alignment add up.
func messages(t *testing.T, b []byte) [][]byte {
	t.Helper()
	var list [][]byte
	for len(b) > 0 {
		if len(b) < 20 {
			t.Fatalf("%d bytes are left over", len(b))
		}
		size := int(binary.NativeEndian.Uint32(b))
		if size < 20 || size > len(b) || size%4 != 0 {
			t.Fatalf("a message of %d bytes in %d", size, len(b))
		}
		list, b = append(list, b[:size]), b[size:]
	}
	return list
}

func TestBatchIsFramed(t *testing.T) {
	var b nftBatch
	b.add(unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE, attr(unix.NFTA_TABLE_NAME, cstring("bottle-x")))
	list := messages(t, b.messages)
	if len(list) != 2 {
		t.Fatalf("expected the beginning and one message, got %d", len(list))
	}
	if kind := binary.NativeEndian.Uint16(list[0][4:]); kind != unix.NFNL_MSG_BATCH_BEGIN {
		t.Errorf("expected the beginning of a batch, got %#x", kind)
	}
	if kind := binary.NativeEndian.Uint16(list[1][4:]); kind != unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWTABLE {
		t.Errorf("got message %#x", kind)
	}
	if list[1][16] != unix.NFPROTO_NETDEV {
		t.Errorf("expected family netdev, got %d", list[1][16])
	}
	if first, second := binary.NativeEndian.Uint32(list[0][8:]), binary.NativeEndian.Uint32(list[1][8:]); second != first+1 {
		t.Errorf("expected sequence numbers to follow each other, got %d, %d", first, second)
	}
}

func TestAttributesArePadded(t *testing.T) {
	a := attr(7, []byte("abcde"))
	if len(a) != 12 || binary.NativeEndian.Uint16(a) != 9 || string(a[4:9]) != "abcde" || a[9] != 0 {
		t.Errorf("got % x", a)
	}
}

// In a network namespace of its own: the kernel takes the seal, takes it again, and
// gives it back. It needs no engine, but root.
func TestTheKernelTakesTheSeal(t *testing.T) {
	const inside = "BOTTLE_TEST_IN_NAMESPACE"
	if os.Getenv(inside) == "" {
		if os.Geteuid() != 0 {
			t.Skip("only root can make a network namespace")
		}
		cmd := exec.Command("/proc/self/exe", "-test.run=^TestTheKernelTakesTheSeal$", "-test.v")
		cmd.Env = append(os.Environ(), inside+"=1")
		cmd.SysProcAttr = &unix.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(fd) }()
	if err := nftUnseal(fd, "lo"); !errors.Is(err, unix.ENOENT) {
		t.Errorf("without a seal: expected ENOENT, got %v", err)
	}
	for range 2 {
		if err := nftSeal(fd, "lo"); err != nil {
			t.Fatal(err)
		}
	}
	if err := nftUnseal(fd, "lo"); err != nil {
		t.Error(err)
	}
	if err := nftUnseal(fd, "lo"); !errors.Is(err, unix.ENOENT) {
		t.Errorf("after the unseal: expected ENOENT, got %v", err)
	}
	if s := (&nsSocket{fd}); !s.has("lo") || s.has("nosuch") {
		t.Error("expected lo to be found, and nothing else")
	}
}

func TestInputOfAProcessThatHasNone(t *testing.T) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestSleepForever$")
	cmd.Env = append(os.Environ(), "BOTTLE_TEST_SLEEP=1")
	cmd.Stdin = null
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	if f, err := openInput(cmd.Process.Pid); err == nil {
		_ = f.Close()
		t.Error("expected what is no pipe to be refused")
	}
}

func TestSleepForever(*testing.T) {
	if os.Getenv("BOTTLE_TEST_SLEEP") != "" {
		select {}
	}
}

func TestShmOfABuild(t *testing.T) {
	table := []byte("1 2 0:3 / / rw - overlay overlay rw\n4 5 0:6 / /dev/shm rw,nosuid - tmpfs shm rw,size=65540k,uid=1\n")
	if !hasShm(table, "size=65540k") || hasShm(table, "size=6554k") || hasShm(nil, "size=65540k") {
		t.Error("the size of /dev/shm is not what is looked for")
	}
	for range 100 {
		if mark := newBuildMark(); mark <= 64<<20 || mark%4096 != 0 {
			t.Fatalf("got mark %d", mark)
		}
	}
}

package probe

import "net/netip"

// Identity is the result of id.
type Identity struct {
	UID, GID  int
	Groups    []int
	Dir, Host string
	PID, PPID int
}

// File is a result of stat and ls.
type File struct {
	Path    string
	Err     string // why it could not be looked at
	Type    string // "file", "dir", "link", "fifo", "socket", "device"
	Mode    uint32 // permission, setuid, setgid and sticky bits as the kernel has them
	UID     int
	GID     int
	Size    int64
	Blocks  int64 // of 512 bytes
	MTime   int64 // nanoseconds since 1970
	Inode   uint64
	Link    string
	SHA256  string // of files up to 64 MiB
	Content string // of files up to 4 KiB
}

// Process is a result of ps.
type Process struct {
	PID, PPID int
	State     string
	Args      []string
}

// Answer is a result of dial.
type Answer struct {
	Target string
	// OK reports that something answered as asked: a connection, an echo.
	OK bool
	// Refused reports that something answered, with a refusal.
	Refused bool
	Data    string
	Err     string
}

// Answered reports that there was an answer of any kind.
func (a Answer) Answered() bool { return a.OK || a.Refused }

// Resolved is a result of resolve and dns.
type Resolved struct {
	Server string
	Name   string
	RCode  int
	Addrs  []netip.Addr
	Err    string
}

// Interface is a result of ifaces.
type Interface struct {
	Name  string
	MAC   string
	Addrs []netip.Prefix
}

// TTY is the result of tty.
type TTY struct {
	Stdin, Stdout, Stderr bool // whether each is a terminal
	Cols, Rows            int
}

// Denied is the result of forbidden: what the kernel said to each attempt,
// "" where it was allowed.
type Denied map[string]string

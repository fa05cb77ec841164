package runtime

import (
	"context"
	"io"
	"net/netip"
	"time"
)

// Containers runs, watches and removes containers.
type Containers interface {
	// Run creates a container, attaches it to every network with its aliases,
	// puts the files in and starts it: one call, all or nothing. If it fails or
	// its context ends, nothing of the container is left. A taken name is
	// AlreadyExists, also under a race; a missing image or network is NotFound;
	// a command that the image does not hold is NotFound too. The files are in
	// place before the first instruction of the process. With a Handshake it returns
	// when that is done; a process that ends before is FailedPrecondition, with an
	// *EndedError.
	Run(ctx context.Context, spec ContainerSpec) (Container, error)

	// InspectContainer describes one container; NotFound if there is none or it
	// is not of bottle's making.
	InspectContainer(ctx context.Context, container string) (Container, error)

	// ListContainers lists bottle's containers, running or not, oldest first. It costs no
	// call for each: of a container it tells ID, Name, Labels, State and Created (in whole
	// seconds, on some engines), and InspectContainer tells the rest. The state may be that
	// of a moment ago.
	ListContainers(ctx context.Context, filter Filter) ([]Container, error)

	// Wait returns when the container's process has ended, at once if it already
	// has. For a container that is gone (AutoRemove) it is NotFound, unless Wait
	// was called while it ran.
	Wait(ctx context.Context, container string) (ExitStatus, error)

	// Stop sends the stop signal, and SIGKILL when grace has passed; it returns
	// when the process has ended. It returns as soon as that is so. A stopped or
	// missing container is no error. grace is rounded up to whole seconds; zero
	// kills at once.
	Stop(ctx context.Context, container string, grace time.Duration) error

	// Kill sends a signal, by name ("SIGHUP") to the container's process. A
	// container that does not run is FailedPrecondition.
	Kill(ctx context.Context, container, signal string) error

	// RemoveContainer kills the container if it runs and removes it with
	// everything that belongs to it alone (anonymous volumes, hosts files, log).
	// A missing container is no error. When it returns, the name is free.
	RemoveContainer(ctx context.Context, container string) error

	// Logs writes what the process wrote to stdout and stderr, split (all of it
	// in Stdout with a TTY). With Follow it goes on until the process ends, the
	// container is removed, or ctx ends.
	Logs(ctx context.Context, container string, opts LogOptions) error

	// Stats tells what a running container uses; one that does not run is FailedPrecondition.
	// Without FeatureStats it is NotImplemented.
	Stats(ctx context.Context, container string) (Stats, error)

	// Exec runs a command in a running container and returns when it has ended
	// and its output has been written. A command that is not there is NotFound,
	// one that may not be executed is PermissionDenied, a container that does not
	// run is FailedPrecondition. If ctx ends, the process and its descendants
	// are killed before Exec returns ctx's error. The process may see one more
	// variable, BOTTLE_EXEC_ID, by which an implementation finds it again.
	Exec(ctx context.Context, container string, spec ExecSpec) (ExitStatus, error)

	// CopyTo extracts a tar stream into the directory dir of the container,
	// which must exist (NotFound) and be writable: a read-only root or mount is
	// FailedPrecondition. Owner, mode, times and links are the archive's. A directory
	// on the way to an entry that is neither in the container nor in the archive is made:
	// root's, with mode 0755. Entries
	// whose name is absolute or has a ".." element, entries below a symlink of
	// the same archive, hard links to outside the archive and device nodes are
	// InvalidArgument. Symbolic links inside the container are resolved inside
	// it, whatever the container does meanwhile. Containers that run and
	// containers that have ended can be copied to.
	CopyTo(ctx context.Context, container, dir string, archive io.Reader) error

	// CopyFrom returns a tar stream of a file or directory of the container,
	// with names that begin with path's last element ("." contents of "/").
	// Devices, FIFOs and sockets are left out. A missing path is NotFound. The
	// caller closes the stream; an error on the way is returned by Read.
	CopyFrom(ctx context.Context, container, path string) (io.ReadCloser, error)
}

// ContainerSpec says what container to run. The zero value of each field is
// the strictest one.
type ContainerSpec struct {
	// Name must be unique on the engine; same alphabet as a network's.
	Name string
	// Image is a reference or ID on the engine: Run does not pull.
	Image string
	// Entrypoint replaces the image's ENTRYPOINT (and then its CMD too) if it is
	// not nil.
	Entrypoint []string
	// Command replaces the image's CMD if it is not nil.
	Command []string
	// Env is added to the image's environment, replacing same names. Values
	// may hold anything but NUL.
	Env map[string]string
	// User is the image's if empty: NAME, UID, NAME:GROUP or UID:GID.
	User string
	// Groups are supplementary groups, by number or name in the image.
	Groups []string
	// WorkDir is the image's if empty. It is made if it is missing.
	WorkDir string
	// Hostname is the container's name, cut to 63 characters, if empty.
	Hostname string
	Labels   map[string]string

	// Networks are what it is attached to; none means loopback alone.
	Networks []NetworkAttachment
	// Files are put in before the process starts. Missing parent directories
	// are made (root, 0755). They work with ReadOnly too. A path below a Tmpfs or
	// a Mount is InvalidArgument.
	Files []File
	// Mounts are bind mounts of host paths. Core uses none for configuration.
	Mounts []Mount
	// Tmpfs are memory-backed file systems.
	Tmpfs []Tmpfs

	Limits Limits
	// Capabilities are added to the empty set, by name ("NET_ADMIN").
	Capabilities []string
	// ReadOnly makes the root file system read-only.
	ReadOnly bool
	// NoInit runs the command as PID 1, without an init that forwards signals
	// and reaps.
	NoInit bool
	// TTY gives the process a terminal. Its input is not connected.
	TTY bool
	// OCIRuntime names one of Info.OCIRuntimes ("runsc"); the engine's default
	// if empty. An unknown one is InvalidArgument.
	OCIRuntime string
	// AutoRemove removes the container as RemoveContainer would when its process
	// has ended, even if no process of bottle's own runs by then.
	AutoRemove bool
	// StopSignal is the image's or SIGTERM if empty.
	StopSignal string
	// Handshake is had with the process when it starts; without one its standard input is
	// empty. It takes an init and no terminal: NoInit or TTY beside it is InvalidArgument.
	Handshake *Handshake
}

// NetworkAttachment attaches a container to a network.
type NetworkAttachment struct {
	Network string
	// Aliases are further names by which the network's other containers, those
	// already running too, find this one.
	Aliases []string
	// Address is a fixed IPv4 address in the network's subnet; one is chosen if
	// it is the zero Addr.
	Address netip.Addr
}

// File is a regular file to put into a container.
type File struct {
	// Path is absolute and clean.
	Path string
	// Mode holds permission bits only. 0 means 0644.
	Mode    uint32
	UID     int
	GID     int
	Content []byte
}

// Mount is a bind mount.
type Mount struct {
	Source   string // absolute path on the engine's host
	Target   string // absolute path in the container
	Writable bool
}

// Tmpfs is a memory-backed file system, mounted nosuid, nodev and noexec.
type Tmpfs struct {
	Target string
	Size   int64  // bytes; 0 means 64 MiB
	Mode   uint32 // 0 means 01777
}

// DefaultTmpfsSize is the size of a [Tmpfs] that names none, in bytes.
const DefaultTmpfsSize = 64 << 20

// Limits bound what a container uses. A limit asked for on an engine without
// the feature is NotImplemented; defaults apply where the engine has it.
type Limits struct {
	// Memory in bytes, with no swap beyond it. 0 is no limit.
	Memory int64
	// PIDs is the number of processes and threads; 0 means DefaultPIDs.
	PIDs int64
	// CPUs is processor time in processors (1.5). 0 is no limit.
	CPUs float64
	// NoFile is the limit of open files (soft and hard); 0 is the engine's.
	NoFile int64
}

// DefaultPIDs is the limit of processes in a container that names none.
const DefaultPIDs = 4096

// State is what a container is doing.
type State string

// The states of a container.
const (
	StateCreated State = "created"
	StateRunning State = "running"
	StatePaused  State = "paused"
	StateExited  State = "exited"
	StateUnknown State = "unknown"
)

// Container describes an existing container.
type Container struct {
	ID       string
	Name     string
	Image    string // the reference it was run with
	ImageID  string
	Labels   map[string]string
	State    State
	Exit     ExitStatus // meaningful in StateExited
	Created  time.Time
	Networks []Endpoint
}

// Brief is what a list tells of the container.
func (c Container) Brief() Container {
	return Container{ID: c.ID, Name: c.Name, Labels: c.Labels, State: c.State, Created: c.Created}
}

// Endpoint is a container's place on a network. Aliases hold those asked for
// (an engine may add its own).
type Endpoint struct {
	Network string
	Address netip.Addr
	Aliases []string
}

// ExitStatus is how a process ended.
type ExitStatus struct {
	// Code is the exit status, or 128 plus the signal that ended the process.
	Code int
	// OOMKilled reports that the kernel killed it for lack of memory. It is true only if
	// that is known: Docker misses it now and then
	// (github.com/containerd/containerd/issues/8180).
	OOMKilled bool
}

// LogOptions select what Logs writes.
type LogOptions struct {
	Follow bool
	// Since leaves out what is older, if it is not the zero time.
	Since time.Time
	// Tail is the number of last lines to write; 0 means all.
	Tail   int
	Stdout io.Writer // nil discards
	Stderr io.Writer // nil discards
	// Stamp is called before each write to Stdout or Stderr, if it is not nil, with the time (an engine may tell whole seconds)
	// at which the process wrote that. Of a container with a TTY the engine may not know it;
	// then it is not called.
	Stamp func(time.Time)
}

// ExecSpec says what to run in a container.
type ExecSpec struct {
	Command []string
	// Env is added to the container's.
	Env map[string]string
	// User and WorkDir are the container's if empty. A missing WorkDir is
	// NotFound.
	User    string
	WorkDir string

	// Stdin is read until EOF, which is passed on; nil is an empty input. After
	// the process has ended Exec does not wait for Stdin's Read to return.
	Stdin  io.Reader
	Stdout io.Writer // nil discards
	Stderr io.Writer // nil discards; unused with TTY

	// TTY gives the process a terminal of size Size, changed by what arrives on
	// Resize.
	TTY    bool
	Size   Size
	Resize <-chan Size
}

// Size is a terminal's size in characters.
type Size struct {
	Cols, Rows uint16
}

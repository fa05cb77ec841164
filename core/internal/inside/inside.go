// Package inside holds the small static program that bottle puts into an agent's
// container. It is written in C without a library, so that a few kilobytes run in
// any image of the architecture, one with no shell and no files too.
//
//   - idle is the container's main process. It does nothing, reaps if it is
//     PID 1, and exits with 0 when it is told to end. idle FILE first does what put does, and
//     then says [Ready] on its standard error.
//   - put FILE writes its standard input to FILE, readable by its own user alone;
//     share FILE writes it for everybody to read, whatever the umask leaves.
//   - get FILE writes FILE to its standard output, nothing if it is missing or may not be
//     read.
//   - env FILE CMD... runs CMD, found through PATH, with FILE's variables added to
//     its environment and replacing those of the same name. A file that is missing
//     or may not be read adds nothing. A command that is not there is status 127,
//     one that cannot be executed 126, with a line on standard error that says
//     so; 125 is a failure of its own.
//   - tty FILE CMD... does the same once the terminal on its standard input has a
//     size, or a second has passed: some engines set it a moment too late.
//   - end SECONDS sends SIGTERM to all processes of its user but the idle one, and waits
//     that long for them to end. It is status 0 if all have, 1 if some are left.
//
// # Why
//
// Variables that hold secrets must not become part of what the engine records
// about a container or an exec. They are sent through the standard input of the main
// process, or of one exec, into a file on a tmpfs, and every later exec takes them from there, also
// one by another process of bottle's that does not know them.
package inside

import (
	"bytes"
	_ "embed" // the programs
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/bottle-run/bottle/runtime"
)

//go:generate ../../../internal/nolibc/build.sh src/inside.c inside

// Where things are inside a bottle.
const (
	// Dir belongs to bottle.
	Dir = "/.bottle"
	// Path is where the program is.
	Path = Dir + "/inside"
	// Tmpfs is a memory-backed directory that every user of the container may
	// write to.
	Tmpfs = Dir + "/run"
	// EnvFile is the file of variables.
	EnvFile = Tmpfs + "/env"
	// NoEnvFile is a file that is not there, in a directory that only root may
	// change.
	NoEnvFile = Dir + "/none"
	// TmpfsSize bounds Tmpfs, in bytes.
	TmpfsSize = maxEnv + maxShared + 1<<20
)

// maxEnv is how many bytes of variables the program takes; maxShared is room for what is
// shared: roots of certificates, twice.
const (
	maxEnv    = 4 << 20
	maxShared = 11 << 20
)

//go:embed inside-amd64
var amd64 []byte

//go:embed inside-arm64
var arm64 []byte

// Program returns the program for an architecture in Go's spelling, an ELF
// executable for Linux. The caller must not change it. An architecture for which
// there is none is NotImplemented.
func Program(arch string) ([]byte, error) {
	switch arch {
	case "amd64":
		return amd64, nil
	case "arm64":
		return arm64, nil
	}
	return nil, runtime.Errorf(errdefs.ErrNotImplemented,
		"bottle has no program for an image of architecture %q: it has one for amd64 and arm64", arch)
}

// Idle is the command of the container's main process.
func Idle() []string { return []string{Path, "idle"} }

// IdleWith is the same, of a process that first takes what [EncodeEnv] returns, keeps it in a
// file and says [Ready].
func IdleWith(file string) []string { return append(Idle(), file) }

// Ready is the line by which [IdleWith] says that it has kept what it was given.
const Ready = "bottle: the variables are here"

// Put is the command that takes what [EncodeEnv] returns and keeps it in a file.
func Put(file string) []string { return []string{Path, "put", file} }

// Share is the command that keeps what it reads in a file that every user may read.
func Share(file string) []string { return []string{Path, "share", file} }

// Get is the command that gives what [Put] has kept in a file: see [DecodeEnv].
func Get(file string) []string { return []string{Path, "get", file} }

// With is the command that runs a command with the variables of a file.
func With(file string, command []string) []string {
	return append([]string{Path, "env", file}, command...)
}

// WithTerminal is [With] for a command that has a terminal with a size.
func WithTerminal(file string, command []string) []string {
	return append([]string{Path, "tty", file}, command...)
}

// End is the command that tells a user's processes to end and gives them some seconds;
// [StillThere] is its status if they took longer.
func End(seconds int) []string { return []string{Path, "end", strconv.Itoa(seconds)} }

// StillThere is the status of [End] if processes are left.
const StillThere = 1

// EncodeEnv writes variables as the program reads them.
func EncodeEnv(env map[string]string) ([]byte, error) {
	var b bytes.Buffer
	for _, name := range slices.Sorted(maps.Keys(env)) {
		value := env[name]
		if name == "" || strings.ContainsAny(name, "=\x00") || strings.ContainsRune(value, 0) {
			return nil, fmt.Errorf("the variable %q cannot be passed on: there is a NUL byte in it, or its name is none", name)
		}
		b.WriteString(name + "=" + value + "\x00")
	}
	if b.Len() > maxEnv {
		return nil, fmt.Errorf("the variables together are larger than %d MiB", maxEnv>>20)
	}
	return b.Bytes(), nil
}

// MaxEnv bounds what [DecodeEnv] has to be given, in bytes.
const MaxEnv = maxEnv

// DecodeEnv reads the values of the variables named, as far as they are there. The file is
// its user's: what it holds beside them, or instead of variables, is left out.
func DecodeEnv(data []byte, names func(string) bool) map[string]string {
	env := map[string]string{}
	for entry := range strings.SplitSeq(string(data), "\x00") {
		if name, value, ok := strings.Cut(entry, "="); ok && names(name) {
			env[name] = value
		}
	}
	return env
}

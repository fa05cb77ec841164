// Package tinyinit holds the small static program that bottle puts into
// containers, and beside them. It is written in C without a library, so that a few kilobytes run
// in any image of the architecture, one with no shell and no files too.
//
// # init [-i FIFO] [--] CMD [ARG...]
//
// For PID 1. It runs CMD, found through PATH as execvp(3) finds it, in a process
// group of its own and in the foreground of the terminal on standard input if
// there is one; forwards every signal it receives to CMD; reaps every orphan; and
// exits as CMD does: with its status, or 128 plus the signal that ended it. If
// CMD is not there it exits with 127, if it cannot be executed with 126, and says
// so on standard error. 125 is a failure of its own. With -i the standard input of CMD is FIFO,
// which is opened before CMD is run: when somebody writes to it.
//
// # kill TOKEN
//
// It kills every process that was started with BOTTLE_EXEC_ID=TOKEN in its
// environment, their descendants and everything in their sessions, until none is
// left: first it stops them all, so that none makes a child behind its back. PID 1
// and PID 1's session as a whole are spared. It sees the environment only of
// processes that it may trace: run it as the user they run as, or as root with
// CAP_SYS_PTRACE and CAP_KILL. It exits with 0 when none is left and with 1 if
// some would not die within about 10 s. A process that cleared its environment,
// changed its session and lost its parent before kill ran is not found.
//
// # log FILE
//
// For the host, as what a containerd shim calls a binary logger: standard output
// of a container on descriptor 3, its standard error on 4, and 5 to close when
// ready. It writes records (see [LogRecord]) into FILE, which has to be there and is
// kept locked (flock) as long as the logger lives, and holds on to the last 64 MiB. On SIGUSR1 it
// writes what there is to read and then a record of kind [LogSync]; on SIGTERM,
// or when both streams have ended, it writes what there is and ends. A full disk
// loses output and never blocks the container.
package tinyinit

import (
	_ "embed" // the programs
	"fmt"

	"github.com/containerd/errdefs"

	"github.com/bottle-run/bottle/runtime"
)

//go:generate ../../../internal/nolibc/build.sh src/init.c init

// ExecID is the name of the variable by which the kill mode finds processes.
const ExecID = "BOTTLE_EXEC_ID"

// Exit statuses of the init mode for a command that it could not run.
const (
	ExitNotExecutable = 126
	ExitNotFound      = 127
)

//go:embed init-amd64
var amd64 []byte

//go:embed init-arm64
var arm64 []byte

// Binary returns the program for an architecture in Go's spelling, an ELF
// executable for Linux. The caller must not change it. An architecture for which
// there is none is NotImplemented.
func Binary(arch string) ([]byte, error) {
	switch arch {
	case "amd64":
		return amd64, nil
	case "arm64":
		return arm64, nil
	}
	return nil, runtime.WithKind(errdefs.ErrNotImplemented,
		fmt.Errorf("there is no init program for architecture %q: it exists for amd64 and arm64", arch))
}

// LogRecord is the header of a record in a log file, little-endian, before Size
// bytes of data. No record crosses a multiple of [LogChunk]; zeros fill what is
// left of a chunk, and the oldest chunks of a long log are holes.
type LogRecord struct {
	Time uint64 // nanoseconds since the epoch
	Size uint32
	Kind uint8
	_    [3]uint8
}

// Sizes in a log file, in bytes.
const (
	LogChunk  = 1 << 20
	LogHeader = 16
	LogData   = 32 << 10 // the most that one record holds
)

// The kinds of LogRecord.
const (
	LogStdout = 1
	LogStderr = 2
	// LogSync follows all that the container had written when SIGUSR1 came.
	LogSync = 3
	// LogStart is the first record of a logger; its data is its PID, 4 bytes.
	LogStart = 4
)

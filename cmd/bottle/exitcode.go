package main

import (
	"errors"
	"os"
	"syscall"

	"github.com/containerd/errdefs"

	"github.com/bottle-run/bottle/core"
	"github.com/bottle-run/bottle/core/doctor"
	"github.com/bottle-run/bottle/core/manifest"
	"github.com/bottle-run/bottle/core/supervise"
)

// The exit statuses. run and exec pass on the status of the command in the
// bottle, so bottle's own are numbers that programs hardly use. They are
// documented in docs/exit-codes.md, which a test compares with this list.
const (
	exitOK          = 0
	exitRecord      = 108
	exitStale       = 109
	exitOther       = 110
	exitUsage       = 111
	exitInput       = 112
	exitEngine      = 113
	exitImage       = 114
	exitName        = 115
	exitUnsupported = 116
	exitNotFound    = 117
	exitLaunch      = 118
	exitLeftover    = 119
	exitConformance = 120
	exitDenied      = 121
	exitWarning     = 122
	exitProblem     = 123
	exitSignal      = 128 // plus the signal's number
)

// exitMeanings says what each means, in the words of the documentation.
var exitMeanings = []struct {
	code    int
	kind    string
	meaning string
}{
	{exitOK, "", "Done."},
	{exitRecord, "record", "The record of a bottle cannot be written, or its watchdog cannot be started: nothing was launched."},
	{exitStale, "stale", "A proposal, or the policy that it would change, is not as it was shown: nothing has changed."},
	{exitOther, "other", "Something failed that none of the others describes."},
	{exitUsage, "usage", "The command line is wrong."},
	{exitInput, "input", "The manifest or something it names is wrong: a key, a Dockerfile or an env file that is missing, a variable that is not set, a workspace that cannot be read."},
	{exitEngine, "engine", "No engine answers, or not the one that was asked for."},
	{exitImage, "image", "The image cannot be built or pulled."},
	{exitName, "name", "The bottle's name is taken."},
	{exitUnsupported, "unsupported", "The engine cannot do what the manifest asks for."},
	{exitNotFound, "not-found", "There is no such bottle, or no such file in it."},
	{exitLaunch, "launch", "The bottle could not be brought up, for another reason."},
	{exitLeftover, "leftover", "Something could not be removed. The message names it."},
	{exitConformance, "conformance", "A conformance test failed."},
	{exitDenied, "denied", "The policy denies the request that was asked about."},
	{exitWarning, "warning", "`bottle doctor` found something that works with less speed, comfort or protection than it could."},
	{exitProblem, "problem", "`bottle doctor` found something that keeps bottle from working, or its walls from holding."},
}

var kindCodes = map[core.Kind]int{
	core.KindInput: exitInput, core.KindEngine: exitEngine, core.KindImage: exitImage, core.KindName: exitName,
	core.KindUnsupported: exitUnsupported, core.KindNotFound: exitNotFound, core.KindLaunch: exitLaunch,
	core.KindLeftover: exitLeftover, core.KindRecord: exitRecord, core.KindOther: exitOther,
}

// exitCode returns the exit status for an error, and the word for its kind.
func exitCode(err error) (code int, kind string) {
	var usage usageError
	var failed conformanceError
	var found diagnosis
	var denied deniedError
	var launch *core.LaunchError
	var interrupted signalError
	switch {
	case errors.As(err, &usage):
		return exitUsage, "usage"
	case errors.As(err, &failed):
		return exitConformance, "conformance"
	case errors.As(err, &found) && found.worst == doctor.Problem:
		return exitProblem, "problem"
	case errors.As(err, &found):
		return exitWarning, "warning"
	case errors.Is(err, supervise.ErrStale), errors.Is(err, core.ErrOtherPolicy):
		return exitStale, "stale"
	case errors.As(err, &denied):
		return exitDenied, "denied"
	// What made a launch fail counts before what clearing up met.
	case errors.As(err, &launch):
		return exitCode(launch.Err)
	case errors.As(err, &interrupted):
		return exitSignal + int(interrupted.sig), string(core.KindInterrupted)
	case errors.Is(err, syscall.EPIPE):
		return exitSignal + int(syscall.SIGPIPE), string(core.KindInterrupted)
	case errdefs.IsInvalidArgument(err) && core.KindOf(err) == core.KindOther:
		return exitUsage, "usage"
	}
	var input *manifest.Error
	if errors.As(err, &input) {
		return exitInput, string(core.KindInput)
	}
	known := core.KindOf(err)
	if known == core.KindInterrupted {
		return exitSignal + int(syscall.SIGINT), string(known)
	}
	return kindCodes[known], string(known)
}

// interruptible are the signals that end a launch.
var interruptible = []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP}

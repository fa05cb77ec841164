package runtime

import (
	"context"
	"io"
	"time"
)

// Images builds, loads, pulls and removes images.
type Images interface {
	// BuildImage builds an image from a Dockerfile. A step that fails gives an
	// error that names the step (its instruction) and ends with the last lines
	// of its output. A cancelled build leaves no image and no container.
	BuildImage(ctx context.Context, spec BuildSpec) (Image, error)

	// LoadImage reads a tar archive as written by `docker save` or an OCI layout
	// in a tar, plain or gzip-compressed, and returns what it held. Anything
	// else is InvalidArgument.
	LoadImage(ctx context.Context, archive io.Reader) ([]Image, error)

	// PullImage fetches an image from its registry. A registry on a loopback
	// address is spoken to over plain HTTP if it has no TLS. A missing image is
	// NotFound, refused credentials are Unauthorized or PermissionDenied.
	PullImage(ctx context.Context, ref string, opts PullOptions) (Image, error)

	// InspectImage describes an image; NotFound if it is not on the engine. It
	// sees images that bottle did not make too: it only reads.
	InspectImage(ctx context.Context, ref string) (Image, error)

	// ListImages lists the images that carry [LabelManaged].
	ListImages(ctx context.Context, filter Filter) ([]Image, error)

	// RemoveImage removes a reference and, with its last reference, the image.
	// A missing image is no error; one that a container uses is
	// FailedPrecondition; one without [LabelManaged] is PermissionDenied.
	RemoveImage(ctx context.Context, ref string) error
}

// BuildSpec says what image to build.
type BuildSpec struct {
	// ContextDir is the directory that COPY and ADD read from. Its
	// .dockerignore (or Dockerfile's own NAME.dockerignore) is honoured.
	ContextDir string
	// Dockerfile is the path of the Dockerfile: relative to ContextDir, or
	// absolute, and then it may lie outside of it. Empty means "Dockerfile".
	Dockerfile string
	// Tags are the references that the image gets; at least one.
	Tags []string
	// Args are the values of ARG instructions.
	Args map[string]string
	// Target is the stage to build; empty means the last.
	Target string
	// Labels are set in the image's configuration, with LabelManaged added.
	Labels map[string]string
	// NoCache builds every step anew.
	NoCache bool
	// NoNetwork gives RUN steps no network but loopback.
	NoNetwork bool
	// Progress receives the build's output as plain text lines, as it comes.
	Progress io.Writer
}

// PullOptions modify PullImage.
type PullOptions struct {
	Auth *RegistryAuth
	// Progress receives plain text lines.
	Progress io.Writer
}

// RegistryAuth is a registry's credential. It is sent to the registry of the
// pulled reference only, and never logged.
type RegistryAuth struct {
	Username string
	Password string
}

// String keeps the credential out of logs.
func (RegistryAuth) String() string { return "(registry credential)" }

// GoString keeps the credential out of logs.
func (a RegistryAuth) GoString() string { return a.String() }

// Image describes an image on the engine.
type Image struct {
	// ID is the digest of the image's configuration or manifest, whichever the
	// engine identifies images by: "sha256:…".
	ID      string
	Tags    []string
	Labels  map[string]string
	Size    int64 // bytes, as the engine counts them
	Created time.Time
	Config  ImageConfig
}

// ImageConfig is what an image says about the process to run.
type ImageConfig struct {
	Entrypoint []string
	Cmd        []string
	Env        []string // "NAME=value", in the image's order
	User       string
	WorkDir    string
	StopSignal string
	// Architecture is in Go's spelling ("amd64").
	Architecture string
}

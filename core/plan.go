package core

import (
	"github.com/bottle-run/bottle/core/egress"
	"github.com/bottle-run/bottle/core/gitgate"
	"github.com/bottle-run/bottle/runtime"
)

// Plan is all that a launch will do. It holds no secret.
type Plan struct {
	// Manifest is the file it was made from.
	Manifest string `json:"manifest"`
	Agent    string `json:"agent"`
	Bottle   string `json:"bottle"`
	Name     Name   `json:"name"`

	Image     Image     `json:"image"`
	Workspace Workspace `json:"workspace"`

	// Command is the agent's; empty means the image's ENTRYPOINT and CMD.
	Command []string `json:"command,omitempty"`
	// WorkDir is where it runs; empty means the image's.
	WorkDir string `json:"workdir,omitempty"`
	// User is the image's if empty.
	User string `json:"user,omitempty"`
	// Env holds the variables that are no secrets.
	Env map[string]string `json:"env,omitempty"`
	// Secrets holds the names of the others, and where each value comes from.
	Secrets map[string]string `json:"secrets,omitempty"`

	Limits     Limits  `json:"limits"`
	OCIRuntime string  `json:"oci_runtime,omitempty"`
	ReadOnly   bool    `json:"read_only,omitempty"`
	Tmpfs      []Tmpfs `json:"tmpfs,omitempty"`

	// Egress is what may leave the bottle; nil means nothing, and no sidecar for it.
	Egress *egress.Policy `json:"egress,omitempty"`
	// Git is which git repositories the agent may use; nil means none, and no git gate.
	Git *gitgate.Policy `json:"git,omitempty"`

	// Supervise is what the agent may propose to change; nil means nothing, and no server
	// to propose it to.
	Supervise *Supervise `json:"supervise,omitempty"`

	// Files are put into the running bottle.
	Files []File `json:"files,omitempty"`
}

// Name is how the bottle gets its name.
type Name struct {
	// Base is the name, or what it is derived from.
	Base string `json:"base"`
	// Pinned makes it an error if the name is taken; otherwise -2, -3, … is
	// tried.
	Pinned bool `json:"pinned"`
}

// Image is where the image comes from: a reference, or a Dockerfile.
type Image struct {
	Reference string `json:"reference,omitempty"`
	Build     *Build `json:"build,omitempty"`
}

// Build is how the image is built. Paths are absolute.
type Build struct {
	Dockerfile string            `json:"dockerfile"`
	Context    string            `json:"context"`
	Args       map[string]string `json:"args,omitempty"`
	Target     string            `json:"target,omitempty"`
	// Repository is the name that the image is tagged with, beside a tag that is
	// the digest of what it is built from.
	Repository string `json:"repository"`
	// NoCache builds it even if there is one for the same input.
	NoCache bool `json:"no_cache,omitempty"`
}

// Workspace is what is copied in for the agent to work on.
type Workspace struct {
	// Source is empty if there is none.
	Source    string   `json:"source,omitempty"`
	Target    string   `json:"target,omitempty"`
	Ignore    []string `json:"ignore,omitempty"`
	GitIgnore bool     `json:"gitignore"`
}

// Limits bound what the container uses; 0 is the engine's default.
type Limits struct {
	Memory int64   `json:"memory,omitempty"`
	PIDs   int64   `json:"pids,omitempty"`
	CPUs   float64 `json:"cpus,omitempty"`
	NoFile int64   `json:"nofile,omitempty"`
}

func (l Limits) runtime() runtime.Limits {
	return runtime.Limits{Memory: l.Memory, PIDs: l.PIDs, CPUs: l.CPUs, NoFile: l.NoFile}
}

// Tmpfs is a memory-backed file system.
type Tmpfs struct {
	Target string `json:"target"`
	Size   int64  `json:"size,omitempty"`
}

// File is a file or a directory that is put into the bottle.
type File struct {
	// What it is for: "prompt", "gitconfig", "skill" or "file".
	What string `json:"what"`
	// Source is the path on the host; without one the content is Content.
	Source string `json:"source,omitempty"`
	Tree   bool   `json:"tree,omitempty"`
	// Target is absolute, or below the agent's home as ~/….
	Target  string `json:"target"`
	Mode    uint32 `json:"mode,omitempty"`
	Content string `json:"content,omitempty"`
}

// Host is what a plan needs to know about the host.
type Host struct {
	// WorkDir is the working directory, absolute.
	WorkDir string
	// HomeDir is the user's home directory, or empty.
	HomeDir string
	// LookupEnv finds a variable of the host's environment.
	LookupEnv func(name string) (string, bool)
}

// Wishes are what the user asked for beside the manifest.
type Wishes struct {
	// Agent is its name; it may be empty if the manifest has only one.
	Agent string
	// Name pins the bottle's name.
	Name string
	// Command replaces the agent's command.
	Command []string
	// Workspace replaces the bottle's, if it is not nil; the empty string means
	// none. It is relative to the working directory.
	Workspace *string
	// Env are NAME=value, or NAME to forward the host's. All are secrets.
	Env []string
	// NoCache builds the image anew.
	NoCache bool
}

// The defaults of places inside a bottle.
const (
	DefaultWorkspace  = "/workspace"
	DefaultPromptPath = "~/.bottle/prompt.md"
	DefaultSkillsPath = "~/.bottle/skills"
	// PromptVariable holds the path of the prompt file.
	PromptVariable = "BOTTLE_PROMPT"
)

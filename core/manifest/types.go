package manifest

// Manifest is a bottle.yaml that has been read and found valid.
type Manifest struct {
	Bottles map[string]Bottle `yaml:"bottles" doc:"Descriptions of containers, by name." key:"name" required:"true"`
	Agents  map[string]Agent  `yaml:"agents" doc:"What runs in them, by name." key:"name" required:"true"`

	file      string
	positions map[string]Position
}

// Bottle describes a container. Exactly one of Image and Dockerfile is set.
type Bottle struct {
	Image      string            `yaml:"image" doc:"Reference of an image. It is pulled if the engine does not have it."`
	Dockerfile string            `yaml:"dockerfile" doc:"Path of a Dockerfile to build the image from."`
	Context    string            `yaml:"context" doc:"Directory that the Dockerfile's COPY reads from. Default: the Dockerfile's directory."`
	BuildArgs  map[string]string `yaml:"build_args" doc:"Values of the Dockerfile's ARG instructions. They stay readable in the image: no secrets here." key:"env"`
	Target     string            `yaml:"target" doc:"Stage of the Dockerfile to build. Default: the last."`

	User       string            `yaml:"user" doc:"User to run as: NAME, UID, NAME:GROUP or UID:GID. Default: the image's."`
	Env        map[string]string `yaml:"env" doc:"Environment variables. Their values are visible to whoever may ask the engine: no secrets here." key:"env"`
	EnvFile    StringList        `yaml:"env_file" doc:"Files of NAME=value lines. The values are kept from images, command lines, logs and the engine's records."`
	Forward    []string          `yaml:"forward" doc:"Names of variables to take from the host's environment. The values are treated as those of env_file." item:"env"`
	Limits     Limits            `yaml:"limits" doc:"Bounds on what the container uses."`
	OCIRuntime string            `yaml:"oci_runtime" doc:"OCI runtime of the engine to run the container with, such as runsc. Default: the engine's."`
	Workspace  Workspace         `yaml:"workspace" doc:"What is copied in for the agent to work on: a directory, false for nothing, or a mapping. Default: the working directory."`
	ReadOnly   bool              `yaml:"read_only" doc:"Make the root file system read-only: only the tmpfs entries can be written, and there can be no workspace and no files."`
	Tmpfs      []Tmpfs           `yaml:"tmpfs" doc:"Memory-backed file systems: paths, or mappings of path and size."`

	Egress      *Egress               `yaml:"egress" doc:"What may leave. Without it nothing does: there is no way out at all."`
	Firewall    *Firewall             `yaml:"firewall" doc:"By which way it leaves. Its dns, allow_cidrs, proxy, ca_files and scan hold for git, too."`
	Git         map[string]Repository `yaml:"git" doc:"Git repositories, by name: the agent uses their real URLs, and a gate presents the credentials and looks at what is pushed." key:"name"`
	GitGate     *GitGate              `yaml:"git_gate" doc:"How that gate runs."`
	Supervise   *Supervise            `yaml:"supervise" doc:"Let the agent propose changes of its limits, about which a human decides: true, or a mapping."`
	SecretHosts map[string]StringList `yaml:"secret_hosts" doc:"Where the values of env_file, forward and --env may go, by variable: hosts, or [\"*\"] for a value that is no secret. Without an entry: nowhere." key:"env"`
}

// Agent says what runs in a bottle.
type Agent struct {
	Bottle      string            `yaml:"bottle" doc:"Name of the bottle that it runs in." required:"true"`
	Command     []string          `yaml:"command" doc:"Command and arguments, run as they are (no shell, no ENTRYPOINT before them). Default: the image's ENTRYPOINT and CMD."`
	WorkDir     string            `yaml:"workdir" doc:"Directory that the command runs in, absolute. Default: the workspace, or the image's if there is none."`
	Env         map[string]string `yaml:"env" doc:"Environment variables, over those of the bottle." key:"env"`
	Prompt      string            `yaml:"prompt" doc:"Text of the prompt file."`
	PromptFile  string            `yaml:"prompt_file" doc:"File to copy the prompt from, instead of prompt."`
	PromptPath  string            `yaml:"prompt_path" doc:"Where the prompt goes inside the bottle. Default: ~/.bottle/prompt.md. BOTTLE_PROMPT holds the path."`
	Skills      []string          `yaml:"skills" doc:"Directories, each copied to skills_path under its own name."`
	SkillsPath  string            `yaml:"skills_path" doc:"Where skills go inside the bottle. Default: ~/.bottle/skills."`
	Files       []File            `yaml:"files" doc:"Further files and directories to copy in."`
	GitConfig   map[string]string `yaml:"gitconfig" doc:"Settings for ~/.gitconfig, by dotted name: user.name, url.https://example.com/.insteadOf." key:"git"`
	Description string            `yaml:"description" doc:"A sentence for the reader."`
}

// Limits bound what the container uses. Zero means the engine's default.
type Limits struct {
	Memory Size    `yaml:"memory" doc:"Memory, with no swap beyond it: 512MiB, 4GiB."`
	PIDs   int64   `yaml:"pids" doc:"Number of processes and threads." min:"1"`
	CPUs   float64 `yaml:"cpus" doc:"Processor time in processors: 1.5." min:"0"`
	NoFile int64   `yaml:"nofile" doc:"Number of open files per process." min:"1"`
}

// File is a file or directory to copy into the bottle. Exactly one of Source and
// Content is set.
type File struct {
	Source  string `yaml:"source" doc:"File or directory on the host."`
	Content string `yaml:"content" doc:"Text of the file."`
	Target  string `yaml:"target" doc:"Path inside the bottle: absolute, or below the agent's home as ~/NAME." required:"true"`
	Mode    Mode   `yaml:"mode" doc:"Permissions in octal (\"0644\"). Default: the source's, or 0644."`
}

// Workspace is what is copied in for the agent to work on.
type Workspace struct {
	None      bool     `yaml:"-"`
	Path      string   `yaml:"path" doc:"Directory on the host. Default: the working directory."`
	Target    string   `yaml:"target" doc:"Where it goes inside the bottle. Default: /workspace."`
	Ignore    []string `yaml:"ignore" doc:"Patterns of files to leave out, as in .gitignore, over those of the ignore files."`
	GitIgnore *bool    `yaml:"gitignore" doc:"Whether .gitignore files are honoured; .bottleignore files always are. Default: true."`
}

// Tmpfs is a memory-backed file system.
type Tmpfs struct {
	Path string `yaml:"path" doc:"Where it is mounted." required:"true"`
	Size Size   `yaml:"size" doc:"Its size: 64MiB. Default: 64MiB."`
}

// StringList is a list of strings that may be written as one string.
type StringList []string

// Size is a number of bytes, written with a unit: 512MiB, 4GiB, 2G (powers of
// 1024) or 500MB (powers of 1000).
type Size int64

// Mode holds permission bits, written in octal.
type Mode uint32

// File returns the path that the manifest was read from.
func (m *Manifest) File() string { return m.file }

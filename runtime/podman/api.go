package podman

import (
	"encoding/json"
	"time"
)

// The parts of libpod's requests and answers that are used here, as the service
// of 4.0 and later spells them. Where later versions tell an absent value from
// false, the value is always sent: the engine's configuration must not decide
// about a container of bottle's.

// hostInfo is the answer of /info.
type hostInfo struct {
	Host struct {
		Arch              string   `json:"arch"`
		MemTotal          uint64   `json:"memTotal"`
		BuildahVersion    string   `json:"buildahVersion"`
		CgroupVersion     string   `json:"cgroupVersion"`
		CgroupControllers []string `json:"cgroupControllers"`
		Kernel            string   `json:"kernel"`
		NetworkBackend    string   `json:"networkBackend"`
		OS                string   `json:"os"`
		OCIRuntime        struct {
			Name    string `json:"name"`
			Path    string `json:"path"`
			Package string `json:"package"`
			Version string `json:"version"`
		} `json:"ociRuntime"`
		Security struct {
			Rootless       bool `json:"rootless"`
			SeccompEnabled bool `json:"seccompEnabled"`
		} `json:"security"`
	} `json:"host"`
	Store struct {
		GraphDriverName string `json:"graphDriverName"`
		RunRoot         string `json:"runRoot"`
	} `json:"store"`
	Version struct {
		APIVersion string `json:"APIVersion"`
		Version    string `json:"Version"`
	} `json:"version"`
}

// apiNetwork describes a network, in requests and in answers.
type apiNetwork struct {
	Name             string            `json:"name"`
	ID               string            `json:"id,omitempty"`
	Driver           string            `json:"driver"`
	NetworkInterface string            `json:"network_interface,omitempty"`
	Created          time.Time         `json:"created,omitzero"`
	Subnets          []apiSubnet       `json:"subnets"`
	IPv6Enabled      bool              `json:"ipv6_enabled"`
	Internal         bool              `json:"internal"`
	DNSEnabled       bool              `json:"dns_enabled"`
	Labels           map[string]string `json:"labels,omitempty"`
	Options          map[string]string `json:"options,omitempty"`
}

type apiSubnet struct {
	Subnet  string `json:"subnet"`
	Gateway string `json:"gateway,omitempty"`
}

// report is one element of the answer to a removal. The error may be a string or
// an object without fields; what counts is whether it is there.
type report struct {
	ID  string          `json:"Id"`
	Err json.RawMessage `json:"Err"`
}

func (r report) failed() bool { return len(r.Err) > 0 && string(r.Err) != "null" }

// apiSpec is what container to create (libpod's SpecGenerator).
type apiSpec struct {
	Name             string            `json:"name"`
	Image            string            `json:"image"`
	Entrypoint       []string          `json:"entrypoint"`
	Command          []string          `json:"command,omitempty"`
	Env              map[string]string `json:"env,omitempty"`
	EnvHost          bool              `json:"env_host"`
	HTTPProxy        bool              `json:"httpproxy"`
	Terminal         bool              `json:"terminal"`
	Stdin            bool              `json:"stdin"`
	Labels           map[string]string `json:"labels"`
	StopSignal       *int              `json:"stop_signal,omitempty"`
	LogConfiguration apiLogConfig      `json:"log_configuration"`
	OCIRuntime       string            `json:"oci_runtime,omitempty"`
	Systemd          string            `json:"systemd"`
	SdNotifyMode     string            `json:"sdnotifyMode"`
	Hostname         string            `json:"hostname,omitempty"`
	Sysctl           map[string]string `json:"sysctl,omitempty"`
	Remove           bool              `json:"remove"`
	Volatile         bool              `json:"volatile"`

	Init               bool       `json:"init"`
	Mounts             []apiMount `json:"mounts,omitempty"`
	WorkDir            string     `json:"work_dir,omitempty"`
	CreateWorkingDir   bool       `json:"create_working_dir"`
	ReadOnlyFilesystem bool       `json:"read_only_filesystem"`
	ReadWriteTmpfs     bool       `json:"read_write_tmpfs"`

	Privileged      bool     `json:"privileged"`
	User            string   `json:"user,omitempty"`
	Groups          []string `json:"groups,omitempty"`
	CapAdd          []string `json:"cap_add,omitempty"`
	CapDrop         []string `json:"cap_drop"`
	NoNewPrivileges bool     `json:"no_new_privileges"`
	SeccompProfile  string   `json:"seccomp_profile_path,omitempty"`

	IpcNS    apiNamespace          `json:"ipcns"`
	PidNS    apiNamespace          `json:"pidns"`
	UtsNS    apiNamespace          `json:"utsns"`
	NetNS    apiNamespace          `json:"netns"`
	Networks map[string]apiNetOpts `json:"networks,omitempty"`

	UseImageHosts      bool     `json:"use_image_hosts"`
	UseImageResolvConf bool     `json:"use_image_resolve_conf"`
	DNSServers         []string `json:"dns_server,omitempty"`

	ResourceLimits *apiResources `json:"resource_limits,omitempty"`
	Rlimits        []apiRlimit   `json:"r_limits,omitempty"`
}

type apiLogConfig struct {
	Driver string `json:"driver"`
}

type apiMount struct {
	Destination string   `json:"destination"`
	Type        string   `json:"type"`
	Source      string   `json:"source,omitempty"`
	Options     []string `json:"options,omitempty"`
}

type apiNamespace struct {
	NSMode string `json:"nsmode,omitempty"`
}

type apiNetOpts struct {
	StaticIPs     []string `json:"static_ips,omitempty"`
	Aliases       []string `json:"aliases,omitempty"`
	InterfaceName string   `json:"interface_name,omitempty"`
}

type apiResources struct {
	Memory *apiMemory `json:"memory,omitempty"`
	Pids   *apiPids   `json:"pids,omitempty"`
	CPU    *apiCPU    `json:"cpu,omitempty"`
}

type apiMemory struct {
	Limit int64  `json:"limit"`
	Swap  *int64 `json:"swap,omitempty"`
}

type apiPids struct {
	Limit int64 `json:"limit"`
}

type apiCPU struct {
	Quota  int64  `json:"quota"`
	Period uint64 `json:"period"`
}

type apiRlimit struct {
	Type string `json:"type"`
	Hard uint64 `json:"hard"`
	Soft uint64 `json:"soft"`
}

// created is the answer to a creation.
type created struct {
	ID       string   `json:"Id"`
	Warnings []string `json:"Warnings"`
}

// apiContainer is the answer of /containers/{name}/json.
type apiContainer struct {
	ID         string    `json:"Id"`
	Name       string    `json:"Name"`
	Created    time.Time `json:"Created"`
	Image      string    `json:"Image"`
	ImageName  string    `json:"ImageName"`
	HostsPath  string    `json:"HostsPath"`
	OCIRuntime string    `json:"OCIRuntime"`
	State      struct {
		Status    string `json:"Status"`
		OOMKilled bool   `json:"OOMKilled"`
		Pid       int    `json:"Pid"`
		ConmonPid int    `json:"ConmonPid"`
		ExitCode  int    `json:"ExitCode"`
		Error     string `json:"Error"`
	} `json:"State"`
	Config struct {
		Hostname string            `json:"Hostname"`
		Labels   map[string]string `json:"Labels"`
		Tty      bool              `json:"Tty"`
		Env      []string          `json:"Env"`
		WorkDir  string            `json:"WorkingDir"`
	} `json:"Config"`
	HostConfig struct {
		ReadonlyRootfs bool              `json:"ReadonlyRootfs"`
		AutoRemove     bool              `json:"AutoRemove"`
		CapAdd         []string          `json:"CapAdd"`
		Tmpfs          map[string]string `json:"Tmpfs"`
		LogConfig      struct {
			Type string `json:"Type"`
			Path string `json:"Path"`
		} `json:"LogConfig"`
	} `json:"HostConfig"`
	Mounts []struct {
		Type        string `json:"Type"`
		Destination string `json:"Destination"`
		RW          bool   `json:"RW"`
	} `json:"Mounts"`
	NetworkSettings struct {
		SandboxKey string                 `json:"SandboxKey"`
		Networks   map[string]apiEndpoint `json:"Networks"`
	} `json:"NetworkSettings"`
}

type apiEndpoint struct {
	IPAddress string   `json:"IPAddress"`
	Aliases   []string `json:"Aliases"`
}

// listedContainer is an element of the answer of /containers/json.
type listedContainer struct {
	ID       string            `json:"Id"`
	Names    []string          `json:"Names"`
	Image    string            `json:"Image"`
	Labels   map[string]string `json:"Labels"`
	State    string            `json:"State"`
	Created  time.Time         `json:"Created"`
	Networks []string          `json:"Networks"`
}

// listedImage is an element of the answer of /images/json.
type listedImage struct {
	ID       string            `json:"Id"`
	RepoTags []string          `json:"RepoTags"`
	Labels   map[string]string `json:"Labels"`
}

// apiImage is the answer of /images/{name}/json.
type apiImage struct {
	ID           string            `json:"Id"`
	RepoTags     []string          `json:"RepoTags"`
	Created      time.Time         `json:"Created"`
	Size         int64             `json:"Size"`
	Architecture string            `json:"Architecture"`
	Labels       map[string]string `json:"Labels"`
	Config       struct {
		Entrypoint []string `json:"Entrypoint"`
		Cmd        []string `json:"Cmd"`
		Env        []string `json:"Env"`
		User       string   `json:"User"`
		WorkingDir string   `json:"WorkingDir"`
		StopSignal string   `json:"StopSignal"`
	} `json:"Config"`
}

// execConfig creates an exec session.
type execConfig struct {
	Cmd          []string `json:"Cmd"`
	Env          []string `json:"Env,omitempty"`
	User         string   `json:"User,omitempty"`
	WorkingDir   string   `json:"WorkingDir,omitempty"`
	Tty          bool     `json:"Tty"`
	AttachStdin  bool     `json:"AttachStdin"`
	AttachStdout bool     `json:"AttachStdout"`
	AttachStderr bool     `json:"AttachStderr"`
}

// execStart starts one. Height and Width are the first size of a terminal.
type execStart struct {
	Detach bool   `json:"Detach"`
	Tty    bool   `json:"Tty"`
	Height uint16 `json:"h,omitempty"`
	Width  uint16 `json:"w,omitempty"`
}

// execState is the answer of /exec/{id}/json.
type execState struct {
	Running  bool `json:"Running"`
	ExitCode int  `json:"ExitCode"`
	Pid      int  `json:"Pid"`
}

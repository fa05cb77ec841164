package runtime

import "sort"

// Info describes an engine as its daemon tells it.
type Info struct {
	// Engine is the implementation's name, as given to --runtime.
	Engine     string
	Version    string
	APIVersion string
	Endpoint   string
	// Ephemeral reports that Endpoint is of a service that this connection started and
	// ends: another process reaches the engine through one of its own.
	Ephemeral bool
	Rootless  bool
	// Simulated reports an engine in memory, for tests: no process really runs
	// and no network carries anything.
	Simulated bool
	// OS and Arch are the engine host's, in Go's spelling.
	OS, Arch string
	Kernel   string
	// CgroupVersion is "1" or "2".
	CgroupVersion string
	NetworkStack  string // such as "libnetwork", "netavark", "netlink"
	StorageDriver string
	// Builder names what builds images, with its version where known.
	Builder string
	// OCIRuntimes are the names that ContainerSpec.OCIRuntime accepts.
	OCIRuntimes    []string
	DefaultRuntime string
	// Components are the programs that the engine says it consists of, for
	// diagnosis; an engine may name none.
	Components []Component
	// Missing holds the features that this engine lacks, each with the reason.
	Missing map[Feature]string
	// Warnings are facts the operator should know, one sentence each.
	Warnings []string
}

// Component is a program that an engine uses.
type Component struct {
	// Name is the program's: "runc", "containerd".
	Name string
	// Version is its version as exactly as the engine tells it: with the
	// distribution's revision, if it knows that.
	Version string
}

// Reach is the endpoint by which another process reaches the engine; empty if it has
// to start a service of its own.
func (i Info) Reach() string {
	if i.Ephemeral {
		return ""
	}
	return i.Endpoint
}

// Has reports whether the engine has a feature.
func (i Info) Has(f Feature) bool {
	_, missing := i.Missing[f]
	return !missing
}

// Feature is something that not every engine, version or host can do. Asking
// for a feature that is missing is a NotImplemented error.
type Feature string

// The features. What is not listed here every engine has.
const (
	// FeatureMemoryLimit is Limits.Memory.
	FeatureMemoryLimit Feature = "memory-limit"
	// FeaturePIDsLimit is Limits.PIDs.
	FeaturePIDsLimit Feature = "pids-limit"
	// FeatureCPULimit is Limits.CPUs.
	FeatureCPULimit Feature = "cpu-limit"
	// FeatureHeredoc is heredoc syntax in Dockerfiles.
	FeatureHeredoc Feature = "dockerfile-heredoc"
	// FeatureCopyTmpfs is CopyTo and CopyFrom below a Tmpfs of a running
	// container.
	FeatureCopyTmpfs Feature = "copy-tmpfs"
	// FeatureStats is Containers.Stats.
	FeatureStats Feature = "stats"
	// FeatureGVisor is the OCI runtime "runsc", installed and working.
	FeatureGVisor Feature = "oci-runtime-runsc"
)

var features = map[Feature]string{
	FeatureMemoryLimit: "limit of memory",
	FeaturePIDsLimit:   "limit of processes",
	FeatureCPULimit:    "limit of processor time",
	FeatureHeredoc:     "heredoc in Dockerfiles",
	FeatureCopyTmpfs:   "copies to and from a tmpfs",
	FeatureStats:       "figures of what containers use",
	FeatureGVisor:      "OCI runtime runsc (gVisor)",
}

// Features returns every feature, sorted.
func Features() []Feature {
	all := make([]Feature, 0, len(features))
	for f := range features {
		all = append(all, f)
	}
	sort.Slice(all, func(i, j int) bool { return all[i] < all[j] })
	return all
}

// Doc says what the feature is in a few words.
func (f Feature) Doc() string { return features[f] }

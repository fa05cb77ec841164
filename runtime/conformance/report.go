package conformance

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/bottle-run/bottle/runtime"
	"github.com/bottle-run/bottle/runtime/conformance/world"
)

// Status is how a test ended.
type Status string

// The ways in which a test ends.
const (
	Passed Status = "passed"
	Failed Status = "failed"
	// Absent: a feature that the test needs is declared missing, and asking for
	// it was refused as it must be.
	Absent Status = "absent"
	// Exempt: the test needs a kernel, and the engine is simulated.
	Exempt Status = "exempt"
)

// Result is how one test ended.
type Result struct {
	Name     string        `json:"name"`
	Doc      string        `json:"doc"`
	Core     bool          `json:"core"`
	Status   Status        `json:"status"`
	Duration time.Duration `json:"duration_ns"`
	// Message says what was expected and what was seen, where it failed.
	Message string `json:"message,omitempty"`
	// Reason says why a feature is absent.
	Reason string `json:"reason,omitempty"`
}

// Report is what a run found out.
type Report struct {
	Engine        string        `json:"engine"`
	Version       string        `json:"version"`
	APIVersion    string        `json:"api_version,omitempty"`
	Rootless      bool          `json:"rootless"`
	Simulated     bool          `json:"simulated,omitempty"`
	OS            string        `json:"os"`
	Arch          string        `json:"arch"`
	Kernel        string        `json:"kernel"`
	CgroupVersion string        `json:"cgroup_version"`
	NetworkStack  string        `json:"network_stack"`
	StorageDriver string        `json:"storage_driver"`
	Builder       string        `json:"builder"`
	OCIRuntimes   []string      `json:"oci_runtimes,omitempty"`
	Started       time.Time     `json:"started"`
	Duration      time.Duration `json:"duration_ns"`
	// Features says of each feature "" where the engine has it, else why not.
	Features map[runtime.Feature]string `json:"features"`
	Warnings []string                   `json:"warnings,omitempty"`
	Results  []Result                   `json:"results"`
}

func newReport(i runtime.Info) Report {
	r := Report{
		Engine: i.Engine, Version: i.Version, APIVersion: i.APIVersion, Rootless: i.Rootless, Simulated: i.Simulated,
		OS: i.OS, Arch: i.Arch, Kernel: i.Kernel, CgroupVersion: i.CgroupVersion, NetworkStack: i.NetworkStack,
		StorageDriver: i.StorageDriver, Builder: i.Builder, OCIRuntimes: i.OCIRuntimes,
		Started: time.Now().UTC().Truncate(time.Second), Features: map[runtime.Feature]string{}, Warnings: i.Warnings,
	}
	for _, f := range runtime.Features() {
		r.Features[f] = i.Missing[f]
	}
	return r
}

func (r *Report) add(result Result) { r.Results = append(r.Results, result) }

func (r *Report) warn(text string) { r.Warnings = append(r.Warnings, text) }

// Count is how many tests ended so.
func (r Report) Count(s Status) int {
	n := 0
	for _, result := range r.Results {
		if result.Status == s {
			n++
		}
	}
	return n
}

// OK reports whether the engine conforms as far as the run went.
func (r Report) OK() bool { return len(r.Results) > 0 && r.Count(Failed) == 0 }

// Summary is the outcome in a line.
func (r Report) Summary() string {
	s := fmt.Sprintf("%s %s: %d passed, %d failed", r.Engine, r.Version, r.Count(Passed), r.Count(Failed))
	for _, status := range []Status{Absent, Exempt} {
		if n := r.Count(status); n > 0 {
			s += fmt.Sprintf(", %d %s", n, status)
		}
	}
	return s + fmt.Sprintf(" in %s", r.Duration.Round(100*time.Millisecond))
}

// warnAboutResolver notes when a leak through the engine's own resolver could
// not be seen, because what it would forward to is not the world's name server.
// It reports whether the host's name server is the recording one.
func (r *Report) warnAboutResolver(l world.Layout) bool {
	f, err := os.Open("/etc/resolv.conf")
	if err != nil {
		return false
	}
	recording := false
	defer func() { _ = f.Close() }()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) < 2 || fields[0] != "nameserver" {
			continue
		}
		if recording = fields[1] == l.DNS.String(); !recording {
			r.Warnings = append(r.Warnings, fmt.Sprintf(
				"this host's name server is %s and not the recording one: of what the engine's resolver forwards, only the answers are seen", fields[1]))
			return false
		}
	}
	return recording
}

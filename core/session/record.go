package session

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"time"
)

// Version is the version of the records that this program writes.
const Version = 1

// maxRecord bounds a record's size in bytes.
const maxRecord = 1 << 20

// Phase is what a bottle's owner was doing when it wrote the record.
type Phase string

// The phases.
const (
	PhaseLaunching Phase = "launching"
	PhaseRunning   Phase = "running"
	PhaseClosing   Phase = "closing"
)

// Record is what is known about a bottle without asking its engine.
type Record struct {
	Version int `json:"version"`
	// Launch identifies the launch; it is the value of the label by which its
	// objects are found on the engine.
	Launch string `json:"launch"`
	// Bottle is the bottle's name; empty until one is claimed.
	Bottle   string `json:"bottle,omitempty"`
	Agent    string `json:"agent,omitempty"`
	Manifest string `json:"manifest,omitempty"`

	// Engine is its name as --runtime takes it, Endpoint what --host takes.
	Engine   string `json:"engine"`
	Endpoint string `json:"endpoint,omitempty"`
	// Label is the name of the label that holds Launch.
	Label string `json:"label"`
	// Containers and Networks are the names that are made or about to be.
	Containers []string `json:"containers,omitempty"`
	Networks   []string `json:"networks,omitempty"`

	Phase Phase `json:"phase"`
	// Detached reports that the bottle lives on without its owner.
	Detached bool      `json:"detached,omitempty"`
	Created  time.Time `json:"created"`
	// Owner is the process that launches, runs or removes the bottle.
	Owner Process `json:"owner"`
	// Trouble is why clearing up has not succeeded so far.
	Trouble string `json:"trouble,omitempty"`
}

// String is the process in one line, as [ParseProcess] reads it.
func (p Process) String() string {
	text, _ := json.Marshal(p) // numbers and strings
	return string(text)
}

// maxProcess bounds the text of a process in bytes.
const maxProcess = 4096

// ParseProcess reads what [Process.String] gives. Anybody may have written it.
func ParseProcess(text string) (Process, error) {
	var p Process
	if len(text) > maxProcess {
		return p, fmt.Errorf("%d bytes are too many for a process", len(text))
	}
	if err := json.Unmarshal([]byte(text), &p); err != nil {
		return Process{}, fmt.Errorf("%q is no process: %w", text, err)
	}
	if p.PID <= 0 {
		return Process{}, fmt.Errorf("%q is no process: it has no number", text)
	}
	return p, nil
}

// Process identifies a process beyond its number.
type Process struct {
	PID int `json:"pid"`
	// Start is when it began, in the kernel's clock ticks since boot; empty where
	// that cannot be told.
	Start string `json:"start,omitempty"`
	// Boot is the kernel's identifier of this run of the machine.
	Boot string `json:"boot,omitempty"`
	// Namespace is the process' PID namespace: its number means nothing in another.
	Namespace string `json:"namespace,omitempty"`
	// Host is the machine's name, for state directories on shared file systems.
	Host string `json:"host,omitempty"`
	UID  int    `json:"uid"`
}

// ErrNewer is a record that a newer version of bottle wrote.
var ErrNewer = errors.New("it was written by a newer version of bottle: use that, or a newer one")

var validLaunch = regexp.MustCompile(`^[0-9a-f]{8,64}$`)

// check refuses a record that cannot be right.
func (r Record) check() error {
	switch {
	case r.Version > Version:
		return fmt.Errorf("version %d: %w", r.Version, ErrNewer)
	case r.Version != Version:
		return fmt.Errorf("there is no version %d of session records", r.Version)
	case !validLaunch.MatchString(r.Launch):
		return fmt.Errorf("the launch %q is not 8 to 64 hexadecimal digits", r.Launch)
	case r.Engine == "":
		return errors.New("it names no engine")
	case r.Label == "":
		return errors.New("it names no label")
	case r.Phase != PhaseLaunching && r.Phase != PhaseRunning && r.Phase != PhaseClosing:
		return fmt.Errorf("there is no phase %q", r.Phase)
	case r.Owner.PID <= 0:
		return errors.New("it names no owner")
	}
	return nil
}

// decode reads a record.
func decode(content []byte) (Record, error) {
	var r Record
	if len(content) == 0 {
		return r, errors.New("it is empty")
	}
	// The version first: a newer record may have other types.
	var v struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(content, &v); err != nil {
		return r, fmt.Errorf("it is no record, or cut short: %w", err)
	}
	if v.Version > Version {
		return r, fmt.Errorf("version %d: %w", v.Version, ErrNewer)
	}
	if err := json.Unmarshal(content, &r); err != nil {
		return Record{}, fmt.Errorf("it is no record: %w", err)
	}
	return r, r.check()
}

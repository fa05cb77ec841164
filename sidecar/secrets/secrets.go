// Package secrets holds the values that a bottle must keep: it brings them into a
// sidecar, knows the forms in which they may turn up, and masks them.
//
// # Promises
//
//   - A secret reaches a sidecar over the standard input of `bottle-sidecar secrets
//     put` and lies in one file, mode 0400, in memory-backed storage: on no command
//     line, in no environment, in nothing that the engine records.
//   - [Secret] prints as its name: no value gets into a log by accident.
//   - [Masker] replaces a value in any of its [Forms] by asterisks, in a stream and
//     without changing its length.
package secrets

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/bottle-run/bottle/internal/atomicfile"
)

// MinLength is the shortest value, in bytes, that is searched for and masked: shorter
// ones turn up by chance.
const MinLength = 8

// maxFile bounds a file of secrets, in bytes.
const maxFile = 1 << 20

// Secret is a value that must reach nobody but those it is meant for.
type Secret struct {
	Name  string `json:"name"`
	Value Value  `json:"value"`
	// Hosts are patterns, as the policy reads them, of where the value may go. None
	// means nowhere: it is a canary.
	Hosts []string `json:"hosts,omitempty"`
}

// Value is the value of a secret. It does not print.
type Value string

// String hides the value.
func (Value) String() string { return "[secret]" }

// GoString hides the value.
func (Value) GoString() string { return "[secret]" }

// Set is the secrets of one sidecar, by name.
type Set map[string]Secret

// Names returns the names, sorted.
func (s Set) Names() []string {
	names := make([]string, 0, len(s))
	for name := range s {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

type file struct {
	Secrets []Secret `json:"secrets"`
}

// Decode reads a set: {"secrets": [{"name": …, "value": …, "hosts": […]}]}. Errors
// never quote the input.
func Decode(r io.Reader) (Set, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("reading secrets: %w", err)
	}
	if len(data) > maxFile {
		return nil, fmt.Errorf("reading secrets: more than %d bytes", maxFile)
	}
	d := json.NewDecoder(strings.NewReader(string(data)))
	d.DisallowUnknownFields()
	var f file
	if err := d.Decode(&f); err != nil {
		var se *json.SyntaxError
		if errors.As(err, &se) {
			return nil, fmt.Errorf("reading secrets: no valid JSON at byte %d", se.Offset)
		}
		return nil, errors.New(`reading secrets: the JSON is not of the form {"secrets": [{"name", "value", "hosts"}]}`)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("reading secrets: there is something after the JSON")
	}
	set := Set{}
	for i, s := range f.Secrets {
		if s.Name == "" {
			return nil, fmt.Errorf("reading secrets: number %d has no name", i+1)
		}
		if _, twice := set[s.Name]; twice {
			return nil, fmt.Errorf("reading secrets: %s is given twice", s.Name)
		}
		// Files and command substitutions leave a newline that is never meant.
		s.Value = Value(strings.TrimRight(string(s.Value), "\r\n"))
		if s.Value == "" {
			return nil, fmt.Errorf("reading secrets: %s is empty", s.Name)
		}
		// What is injected has been checked by whoever names it; what is only looked for
		// may well be several lines, such as a key.
		if strings.ContainsRune(string(s.Value), 0) {
			return nil, fmt.Errorf("reading secrets: %s holds a NUL byte", s.Name)
		}
		set[s.Name] = s
	}
	return set, nil
}

// Load reads the file that [Put] wrote. It is refused if anybody but its owner may
// read it. If there is none the error wraps [fs.ErrNotExist].
func Load(path string) (Set, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return nil, fmt.Errorf("opening the secrets: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("opening the secrets: %w", err)
	}
	if !info.Mode().IsRegular() || info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("opening the secrets: %s has mode %v: it has to be a file that only its owner may read (0400)", path, info.Mode())
	}
	return Decode(f)
}

// Put checks a set that it reads and leaves it in the file at path, mode 0400, whole or
// not at all. Whatever was there before is replaced.
func Put(path string, r io.Reader) (Set, error) {
	set, err := Decode(r)
	if err != nil {
		return nil, err
	}
	out := file{}
	for _, name := range set.Names() {
		out.Secrets = append(out.Secrets, set[name])
	}
	data, err := json.Marshal(out)
	if err != nil {
		return nil, fmt.Errorf("encoding secrets: %w", err)
	}
	if err := atomicfile.Write(path, data, 0o400); err != nil {
		return nil, fmt.Errorf("writing secrets: %w", err)
	}
	return set, nil
}

// IsMissing reports whether an error of [Load] says that nothing was put there yet.
func IsMissing(err error) bool { return errors.Is(err, fs.ErrNotExist) }

// Package pack takes in packs that somebody untrusted sends (gitformat-pack): it stores
// one in a file as it arrives, checks it through and through, finds the id of every
// object in it, and shows the content of each to its caller.
//
// # Promises
//
//   - Every object is shown, exactly once, with the content that any git makes of it: what
//     is stored whole, and what deltas make, however long their chains.
//   - A pack stands alone: a delta against an object that is not in it is an error.
//   - What the pack says about itself is never believed: sizes are limits to what is
//     inflated, and the sum of all work has a limit as well. Memory is bounded by the
//     limits, not by the pack.
//   - A pack with anything unusual is refused rather than read in some way: no other
//     reader is to see something else in the same bytes.
//
// It does not check what objects mean: a commit may name a tree that is nowhere.
package pack

import (
	"bytes"
	"cmp"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"
)

// Type is the type of an object.
type Type uint8

// The types of objects, with the numbers that packs have for them.
const (
	Commit Type = 1
	Tree   Type = 2
	Blob   Type = 3
	Tag    Type = 4

	ofsDelta Type = 6
	refDelta Type = 7
)

func (t Type) String() string {
	switch t {
	case Commit:
		return "commit"
	case Tree:
		return "tree"
	case Blob:
		return "blob"
	case Tag:
		return "tag"
	}
	return fmt.Sprintf("type %d", uint8(t))
}

// ID is the name of an object. In repositories of SHA-1 the last twelve bytes are zero.
type ID [sha256.Size]byte

// Format is how a repository names its objects.
type Format struct {
	name string
	size int
}

// The formats of repositories.
var (
	SHA1   = Format{"sha1", sha1.Size}
	SHA256 = Format{"sha256", sha256.Size}
)

func (f Format) hash() hash.Hash {
	if f == SHA256 {
		return sha256.New()
	}
	return sha1.New()
}

// FormatOf returns the format of a name.
func FormatOf(name string) (Format, bool) {
	switch name {
	case SHA1.name:
		return SHA1, true
	case SHA256.name:
		return SHA256, true
	}
	return Format{}, false
}

func (f Format) String() string { return f.name }

// Size is the length of an id, in bytes.
func (f Format) Size() int { return f.size }

// Hex writes an id.
func (f Format) Hex(id ID) string { return hex.EncodeToString(id[:f.size]) }

// Zero is the id, in hexadecimal, of what is not there.
func (f Format) Zero() string { return f.Hex(ID{}) }

// Parse reads an id in lower case hexadecimal, which is the only way in which git
// writes one.
func (f Format) Parse(s string) (ID, bool) {
	var id ID
	if len(s) != 2*f.size {
		return id, false
	}
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return id, false
		}
	}
	_, err := hex.Decode(id[:], []byte(s))
	return id, err == nil
}

// ID takes an id from the beginning of what a tree or a pack holds.
func (f Format) ID(b []byte) (id ID) {
	copy(id[:], b[:f.size])
	return id
}

// Limits bound a pack. All have to be set.
type Limits struct {
	// Bytes of the pack.
	Bytes int64
	// Objects in it.
	Objects int
	// Object is the most that one object may hold, in bytes.
	Object int64
	// Whole is the most that an object may hold which has to be looked at as a whole, in
	// bytes: commits, trees and tags, and what is stored as a delta or has a delta.
	Whole int64
	// Inflated is the sum of all that is inflated to know every object, in bytes.
	Inflated int64
	// Depth is how many deltas may stand on one another.
	Depth int
}

// ErrRefused is wrapped by the errors of packs that are not taken.
var ErrRefused = errors.New("the pack is not accepted")

// Refused says why a pack is not taken.
type Refused struct {
	Reason string
	// Advice is what the sender can do, if anything.
	Advice string
}

func (e *Refused) Error() string {
	if e.Advice != "" {
		return e.Reason + ": " + e.Advice
	}
	return e.Reason
}

// Is makes errors.Is(err, ErrRefused) true.
func (e *Refused) Is(target error) bool { return target == ErrRefused }

func malformed(format string, args ...any) error {
	return &Refused{Reason: "the pack is malformed: " + fmt.Sprintf(format, args...)}
}

// entry is one object of a pack.
type entry struct {
	offset int64 // of its header
	size   int64 // of what is stored, inflated: the object, or the delta
	base   int32 // the number of the delta's base; -1 while it is not known
	head   uint8 // length of the header
	stored Type
	kind   Type // of the object; 0 while it is not known
}

func (e *entry) delta() bool { return e.stored == ofsDelta || e.stored == refDelta }

// Pack is a pack that was taken in. It reads from its file.
type Pack struct {
	format  Format
	limits  Limits
	file    File
	size    int64
	entries []entry
	ids     []ID // of the objects; written while later entries are read
	byID    []int32
	work    int64 // what may still be inflated
	inflate inflater
	recent  map[int32][]byte // contents that were made again, to make others of
	kept    int              // bytes in recent
}

// File is where a pack lies.
type File interface {
	io.ReaderAt
	io.Writer
}

// Size is the length of the pack in its file, in bytes.
func (p *Pack) Size() int64 { return p.size }

// Len is how many objects there are.
func (p *Pack) Len() int { return len(p.entries) }

// Type returns the type of an object.
func (p *Pack) Type(i int) Type { return p.entries[i].kind }

// ID returns the id of an object.
func (p *Pack) ID(i int) ID { return p.ids[i] }

// Find returns the number of an object.
func (p *Pack) Find(id ID) (int, bool) {
	at, ok := slices.BinarySearchFunc(p.byID, id, func(i int32, id ID) int { return compare(p.ids[i], id) })
	if !ok {
		return 0, false
	}
	return int(p.byID[at]), true
}

func compare(a, b ID) int { return bytes.Compare(a[:], b[:]) }

func (p *Pack) index() {
	p.byID = make([]int32, len(p.entries))
	for i := range p.byID {
		p.byID[i] = int32(i)
	}
	slices.SortFunc(p.byID, func(a, b int32) int {
		return cmp.Or(compare(p.ids[a], p.ids[b]), cmp.Compare(a, b))
	})
}

// Content returns an object, which has to be within [Limits.Whole], and which is not to be
// changed. All that is asked for may take as much work as the pack itself.
func (p *Pack) Content(i int) ([]byte, error) {
	return p.rebuild(int32(i), func(i int32) []byte { return p.recent[i] })
}

const (
	// maxRecent and maxRecentObject bound what is kept of contents, in bytes.
	maxRecent       = 16 << 20
	maxRecentObject = 256 << 10
)

func (p *Pack) remember(i int32, content []byte) {
	if len(content) > maxRecentObject || len(content) == 0 {
		return
	}
	if p.kept += len(content); p.kept > maxRecent || p.recent == nil {
		p.recent, p.kept = map[int32][]byte{}, len(content)
	}
	p.recent[i] = content
}

// Open returns a reader of an object. It is valid until the next call of a method.
func (p *Pack) Open(i int) (io.Reader, error) {
	if e := &p.entries[i]; !e.delta() {
		return p.inflate.at(p.file, e.offset+int64(e.head), p.size)
	}
	b, err := p.Content(i)
	return bytes.NewReader(b), err
}

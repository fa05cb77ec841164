package patch

import (
	"bytes"
	"compress/zlib"
	"crypto/sha1" //nolint:gosec // git names objects by it; nothing is decided by it here
	"encoding/hex"
	"fmt"
	"io"
	"strings"
)

// Mode is what git keeps of a file's mode.
type Mode uint32

// The modes.
const (
	Regular    Mode = 0o100644
	Executable Mode = 0o100755
	Symlink    Mode = 0o120000
)

// Side is a file before or after a change; the content of a symbolic link is its target.
type Side struct {
	Mode    Mode
	Content []byte
}

// Change is a change of one file. Old is nil if it was not there, New if it is not any more.
type Change struct {
	Name     string // slash-separated
	Old, New *Side
}

// Stat counts what a change changes.
type Stat struct {
	Added   int  `json:"added"`
	Removed int  `json:"removed"`
	Binary  bool `json:"binary,omitempty"`
}

// CheckName returns an error unless a patch may name a file so: a relative path without
// "..", with no element that is git's own.
func CheckName(name string) error {
	// Not fs.ValidPath: a name need not be UTF-8.
	for part := range strings.SplitSeq(name, "/") {
		if part == "" || part == "." || part == ".." || strings.ContainsRune(part, 0) {
			return fmt.Errorf("%q is no path below the tree", name)
		}
		if IsGitDir(part) {
			return fmt.Errorf("%q belongs to a git repository", name)
		}
	}
	return nil
}

// IsGitDir reports whether an element of a path is .git on some file system: with other case, with
// what Windows and HFS+ leave out of a name, or by its short name.
func IsGitDir(part string) bool {
	part = strings.ToLower(strings.Map(func(r rune) rune {
		switch {
		case r >= 0x200c && r <= 0x200f, r >= 0x202a && r <= 0x202e, r >= 0x206a && r <= 0x206f, r == 0xfeff:
			return -1
		}
		return r
	}, part))
	part, _, _ = strings.Cut(part, ":")
	part = strings.TrimRight(part, " .")
	return part == ".git" || part == "git~1"
}

// Write writes a change. A change of type, from a file to a link or back, is a deletion and an
// addition, as git has it.
func Write(w io.Writer, c Change) (Stat, error) {
	if err := CheckName(c.Name); err != nil {
		return Stat{}, err
	}
	if c.Old != nil && c.New != nil && (c.Old.Mode == Symlink) != (c.New.Mode == Symlink) {
		gone, err := Write(w, Change{Name: c.Name, Old: c.Old})
		if err != nil {
			return gone, err
		}
		come, err := Write(w, Change{Name: c.Name, New: c.New})
		return Stat{gone.Added + come.Added, gone.Removed + come.Removed, gone.Binary || come.Binary}, err
	}
	if c.Old == nil && c.New == nil || c.Old != nil && c.New != nil && c.Old.Mode == c.New.Mode && bytes.Equal(c.Old.Content, c.New.Content) {
		return Stat{}, nil
	}
	p := &printer{}
	stat := p.change(c)
	_, err := w.Write(p.Bytes())
	return stat, err
}

type printer struct{ bytes.Buffer }

func (p *printer) printf(format string, args ...any) { fmt.Fprintf(&p.Buffer, format, args...) }

func (p *printer) change(c Change) Stat {
	var before, after []byte
	from, to := "/dev/null", "/dev/null"
	p.printf("diff --git %s %s\n", quoted("a/", c.Name), quoted("b/", c.Name))
	id := strings.Repeat("0", 2*sha1.Size)
	old, next := id, id
	if c.Old != nil {
		before, old, from = c.Old.Content, blob(c.Old.Content), header("a/", c.Name)
	}
	if c.New != nil {
		after, next, to = c.New.Content, blob(c.New.Content), header("b/", c.Name)
	}
	mode := ""
	switch {
	case c.Old == nil:
		p.printf("new file mode %o\n", c.New.Mode)
	case c.New == nil:
		p.printf("deleted file mode %o\n", c.Old.Mode)
	case c.Old.Mode != c.New.Mode:
		p.printf("old mode %o\nnew mode %o\n", c.Old.Mode, c.New.Mode)
	default:
		mode = fmt.Sprintf(" %o", c.New.Mode)
	}
	if c.Old != nil && c.New != nil && old == next {
		return Stat{} // of the mode alone
	}
	p.printf("index %s..%s%s\n", old, next, mode)
	if binary(before) || binary(after) {
		p.printf("GIT binary patch\n")
		p.literal(after)
		p.literal(before)
		return Stat{Binary: true}
	}
	hunks, stat := diff(before, after)
	if len(hunks) == 0 {
		return stat // both are empty
	}
	p.printf("--- %s\n+++ %s\n", from, to)
	_, _ = p.Write(hunks)
	return stat
}

// blob is the name that git gives to a content.
func blob(content []byte) string {
	h := sha1.New() //nolint:gosec // see the import
	_, _ = fmt.Fprintf(h, "blob %d\x00", len(content))
	_, _ = h.Write(content)
	return hex.EncodeToString(h.Sum(nil))
}

// maxText is how large a text may be that is compared line by line, in bytes.
const maxText = 16 << 20

// binary decides as git does, by a NUL near the beginning; what is large counts as binary, too.
func binary(content []byte) bool {
	return len(content) > maxText || bytes.IndexByte(content[:min(len(content), 8000)], 0) >= 0
}

// quoted is a name as git writes it, quoted if it has to be.
func quoted(prefix, name string) string {
	var b strings.Builder
	// git cannot find the end of a name that begins or ends with a blank where it is not quoted.
	special := strings.Trim(name, " ") != name
	for i := range len(name) {
		switch c := name[i]; {
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteByte(c)
			special = true
		case c >= 7 && c <= 13:
			b.WriteByte('\\')
			b.WriteByte("abtnvfr"[c-7])
			special = true
		case c < 0x20 || c >= 0x7f:
			fmt.Fprintf(&b, `\%03o`, c)
			special = true
		default:
			b.WriteByte(c)
		}
	}
	if !special {
		return prefix + name
	}
	return `"` + prefix + b.String() + `"`
}

// Quote writes a name as git does in a list: quoted if it holds what could be mistaken, or
// control a terminal.
func Quote(name string) string { return quoted("", name) }

// header is a name after --- or +++: a tab ends one that holds blanks.
func header(prefix, name string) string {
	q := quoted(prefix, name)
	if strings.Contains(q, " ") && !strings.HasPrefix(q, `"`) {
		q += "\t"
	}
	return q
}

const base85 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;<=>?@^_`{|}~"

// literal writes a content in git's binary form.
func (p *printer) literal(content []byte) {
	var packed bytes.Buffer
	z := zlib.NewWriter(&packed)
	_, _ = z.Write(content) // a buffer takes everything
	_ = z.Close()
	p.printf("literal %d\n", len(content))
	const perLine = 52
	for data := packed.Bytes(); len(data) > 0; {
		n := min(len(data), perLine)
		if n <= 26 {
			p.WriteByte(byte('A' + n - 1))
		} else {
			p.WriteByte(byte('a' + n - 27))
		}
		for i := 0; i < n; i += 4 {
			var four [4]byte
			copy(four[:], data[i:n])
			v := uint32(four[0])<<24 | uint32(four[1])<<16 | uint32(four[2])<<8 | uint32(four[3])
			var five [5]byte
			for j := 4; j >= 0; j-- {
				five[j] = base85[v%85]
				v /= 85
			}
			p.Write(five[:])
		}
		p.WriteByte('\n')
		data = data[n:]
	}
	p.WriteByte('\n')
}

package changes

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// Kind is what a file is.
type Kind string

// The kinds.
const (
	Regular    Kind = "file"
	Executable Kind = "executable"
	Symlink    Kind = "link"
)

// File is a file of a record.
type File struct {
	Name string // slash-separated, below the workspace
	Kind Kind
	Size int64
	// Sum is the SHA-256 of its content, or of a link's target.
	Sum [sha256.Size]byte
}

// Record is what an agent was given.
type Record struct {
	// Ignore and GitIgnore say what was left out, as the manifest has it.
	Ignore    []string `json:"ignore,omitempty"`
	GitIgnore bool     `json:"gitignore"`

	Files []File `json:"-"`
}

// Tree is a digest of all files: names, kinds and contents.
func (r *Record) Tree() string {
	h := sha256.New()
	for _, f := range r.Files {
		_, _ = fmt.Fprintf(h, "%s %x %q\n", f.Kind, f.Sum, f.Name)
	}
	return hex.EncodeToString(h.Sum(nil))
}

const magic = "bottle workspace record 1\n"

// MaxRecord bounds an encoded record, in bytes.
const MaxRecord = 256 << 20

// NewKey makes the key of a seal.
func NewKey() string {
	key := make([]byte, sha256.Size)
	_, _ = rand.Read(key) // it never fails
	return hex.EncodeToString(key)
}

// Seal encodes a record under a key.
func (r *Record) Seal(key string) ([]byte, error) {
	var body bytes.Buffer
	z := gzip.NewWriter(&body)
	head, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	_, err = fmt.Fprintf(z, "%s\n", head)
	for _, f := range r.Files {
		if err == nil {
			_, err = fmt.Fprintf(z, "%s %d %x %s\n", f.Kind, f.Size, f.Sum, strconv.QuoteToASCII(f.Name))
		}
	}
	if err == nil {
		err = z.Close()
	}
	if err != nil {
		return nil, err
	}
	return slices.Concat([]byte(magic), mac(key, body.Bytes()), body.Bytes()), nil
}

func mac(key string, body []byte) []byte {
	h := hmac.New(sha256.New, []byte(key))
	_, _ = io.WriteString(h, magic) // it never fails
	_, _ = h.Write(body)
	return h.Sum(nil)
}

// ErrSeal is a record that is not the one that was sealed.
var ErrSeal = errors.New("the record of what the agent was given has been changed")

// Unseal reads what Seal wrote under the same key; else it is [ErrSeal].
func Unseal(data []byte, key string) (*Record, error) {
	body, ok := bytes.CutPrefix(data, []byte(magic))
	if !ok || len(body) < sha256.Size || key == "" || !hmac.Equal(body[:sha256.Size], mac(key, body[sha256.Size:])) {
		return nil, ErrSeal
	}
	z, err := gzip.NewReader(bytes.NewReader(body[sha256.Size:]))
	if err != nil {
		return nil, err
	}
	lines := bufio.NewReader(z)
	head, err := lines.ReadBytes('\n')
	if err != nil {
		return nil, err
	}
	r := &Record{}
	if err := json.Unmarshal(head, r); err != nil {
		return nil, err
	}
	for {
		line, err := lines.ReadString('\n')
		if errors.Is(err, io.EOF) && line == "" {
			return r, nil
		}
		if err != nil {
			return nil, err
		}
		f, err := parseFile(strings.TrimSuffix(line, "\n"))
		if err != nil {
			return nil, fmt.Errorf("%q: %w", line, err)
		}
		r.Files = append(r.Files, f)
	}
}

func parseFile(line string) (f File, err error) {
	fields := strings.SplitN(line, " ", 4)
	if len(fields) != 4 {
		return f, errors.New("it has not four fields")
	}
	f.Kind = Kind(fields[0])
	if f.Size, err = strconv.ParseInt(fields[1], 10, 64); err != nil {
		return f, err
	}
	if n, err := hex.Decode(f.Sum[:], []byte(fields[2][:min(len(fields[2]), 2*sha256.Size)])); err != nil || n != sha256.Size {
		return f, errors.New("the digest is none")
	}
	f.Name, err = strconv.Unquote(fields[3])
	return f, err
}

// LinkTo is a symbolic link as a record holds it.
func LinkTo(name, target string) File {
	return File{Name: name, Kind: Symlink, Size: int64(len(target)), Sum: sha256.Sum256([]byte(target))}
}

// SumOf is the digest of a content.
func SumOf(content []byte) [sha256.Size]byte { return sha256.Sum256(content) }

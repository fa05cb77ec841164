package intercept

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/textproto"
	"strconv"
	"strings"
	"sync/atomic"
)

const (
	maxFields    = 256     // header fields of a request
	maxChunkLine = 4 << 10 // a chunk's size with its extensions, in bytes
	readSize     = 4 << 10 // what is read at a time where it is not a body's, in bytes
)

// strictReader reads the requests of one connection, and only unambiguous HTTP/1. It is
// the one parser of what comes: where a request begins and ends is decided here, and by
// nobody again.
//
// After a CONNECT or an upgrade the bytes are the tunnel's: see [strictReader.tunnel].
type strictReader struct {
	src       io.Reader
	maxHead   int
	in        []byte // read, not yet judged
	spare     []byte // what in is in
	judged    int    // bytes of in that are in order, as far as lines go
	state     parseState
	remaining int64       // of a body or chunk
	trailer   http.Header // of the request, to be filled in: what it announced
	violated  *violation  // set once: nothing is read after it
	partial   func()      // if set, called when the first bytes of a head are there, but not all
	// whole says that the request was read to its end. Others may look at it.
	whole *atomic.Bool
}

type parseState int

const (
	inHead parseState = iota
	inFixed
	inChunkSize
	inChunk
	inChunkEnd
	inTrailer
	inTunnel
)

// violation is the error of a client that does not speak HTTP/1 as it should.
type violation struct{ reason string }

func (v *violation) Error() string { return v.reason }

func violatef(format string, args ...any) error { return &violation{fmt.Sprintf(format, args...)} }

func newStrictReader(src io.Reader, maxHead int, whole *atomic.Bool) *strictReader {
	return &strictReader{src: src, maxHead: maxHead, whole: whole}
}

// more reads more of the connection. An error comes alone.
func (r *strictReader) more() error {
	if len(r.in) == 0 {
		// What a long head took is not kept, nor is anything moved.
		if cap(r.spare) != readSize {
			r.spare = make([]byte, 0, readSize)
		}
		r.in = r.spare[:0]
	} else if len(r.in) == cap(r.in) {
		grown := make([]byte, len(r.in), 2*len(r.in)+readSize)
		copy(grown, r.in)
		r.in, r.spare = grown, grown[:0]
	}
	for range 100 {
		n, err := r.src.Read(r.in[len(r.in):cap(r.in)])
		r.in = r.in[:len(r.in)+n]
		if n > 0 {
			return nil // if there is an error too, it comes again
		}
		if err != nil {
			return err
		}
	}
	return io.ErrNoProgress
}

// take takes the first n bytes of what was read.
func (r *strictReader) take(n int) []byte {
	b := r.in[:n]
	r.in, r.judged = r.in[n:], 0
	return b
}

// refuse remembers a violation: whatever follows it is of no meaning.
func (r *strictReader) refuse(err error) error {
	if v := (*violation)(nil); errors.As(err, &v) && r.violated == nil {
		r.violated = v
	}
	return err
}

// next reads the head of the next request. The one before has to have been read to its
// end. What it returns refers to nothing of the reader's but its trailer.
func (r *strictReader) next() (*head, error) {
	if r.violated != nil {
		return nil, r.violated
	}
	if r.state != inHead {
		return nil, errors.New("the request before was not read to its end")
	}
	told := r.partial == nil
	for {
		// Parsers differ in how many of these they skip.
		if len(r.in) >= 2 && r.in[0] == '\r' && r.in[1] == '\n' {
			return nil, r.refuse(&violation{"an empty line stands where a request should begin"})
		}
		block, n, err := r.block("head of the request")
		if err != nil {
			return nil, r.refuse(err)
		}
		if n == 0 {
			if len(r.in) > 0 && !told {
				told = true
				r.partial()
			}
			if err := r.more(); err != nil {
				return nil, err
			}
			continue
		}
		h, err := readHead(block)
		if err == nil {
			err = h.checkHost()
		}
		if err == nil {
			err = h.framing()
		}
		if err != nil {
			return nil, r.refuse(err)
		}
		r.take(n)
		r.state, r.remaining, r.trailer = h.state, h.length, h.trailer
		r.whole.Store(r.state == inHead || r.state == inTunnel)
		return h, nil
	}
}

// block finds the end of a block of lines that ends with an empty one: its length with
// that is 0 if it is not all there. A bare line feed or carriage return is an error as
// soon as it is seen.
func (r *strictReader) block(what string) (string, int, error) {
	in := r.in
	for i := r.judged; i < len(in); i++ {
		if i > r.maxHead+3 {
			return "", 0, violatef("the %s is longer than %d bytes", what, r.maxHead)
		}
		switch in[i] {
		case '\n':
			if i == 0 || in[i-1] != '\r' {
				return "", 0, violatef("the %s holds a bare line feed", what)
			}
			if i >= 3 && in[i-2] == '\n' {
				return string(in[:i-3]), i + 1, nil
			}
		case '\r':
			if i+1 < len(in) && in[i+1] != '\n' {
				return "", 0, violatef("the %s holds a bare carriage return", what)
			}
		case 0:
			return "", 0, violatef("the %s holds a zero byte", what)
		}
	}
	// The last one may be a carriage return that is still to be seen whole.
	r.judged = max(0, len(in)-1)
	return "", 0, nil
}

// Read reads the body of the request whose head was read last. If the end is at hand it
// is told with the last bytes: who judges a body judges it before they are passed on.
func (r *strictReader) Read(p []byte) (n int, err error) {
	if r.violated != nil {
		return 0, r.malformedBody()
	}
	for {
		// All that is at hand comes first.
		for n < len(p) && (r.state == inFixed || r.state == inChunk) && len(r.in) > 0 {
			m := copy(p[n:min(int64(len(p)), int64(n)+r.remaining)], r.in)
			r.take(m)
			r.advance(m)
			n += m
		}
		progress := true
		for progress && r.state != inFixed && r.state != inChunk && r.state != inHead && r.state != inTunnel {
			if progress, err = r.between(); err != nil {
				_ = r.refuse(err)
				return n, r.malformedBody()
			}
		}
		switch {
		case r.state == inHead || r.state == inTunnel:
			return n, io.EOF
		case n == len(p) || n > 0 && len(r.in) == 0 || n > 0 && !progress:
			return n, nil
		case progress && len(r.in) > 0:
			continue
		case r.state == inFixed || r.state == inChunk && r.remaining >= readSize && len(p) >= readSize:
			// Straight into p: nothing of it is judged.
			n, err = r.src.Read(p[:min(int64(len(p)), r.remaining)])
			if r.advance(n); r.state == inHead {
				return n, io.EOF
			}
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return n, err
		}
		if err := r.more(); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return n, err
		}
	}
}

func (r *strictReader) malformedBody() error {
	return fmt.Errorf("malformed request body: %w", r.violated)
}

// advance takes note that bytes of a body, or of a chunk, have passed.
func (r *strictReader) advance(n int) {
	if r.remaining -= int64(n); r.remaining > 0 {
		return
	}
	if r.state == inFixed {
		r.end()
	} else {
		r.state = inChunkEnd
	}
}

func (r *strictReader) end() {
	r.state = inHead
	r.whole.Store(true)
}

// between judges what stands between chunks, and after them. It reports whether it got
// any further.
func (r *strictReader) between() (bool, error) {
	switch r.state {
	case inChunkSize:
		return r.chunkSize()
	case inChunkEnd:
		if len(r.in) < 2 {
			return false, nil
		}
		if string(r.take(2)) != "\r\n" {
			return false, &violation{"a chunk is not followed by a line end"}
		}
		r.state = inChunkSize
		return true, nil
	}
	return r.readTrailer()
}

func (r *strictReader) readTrailer() (bool, error) {
	if len(r.in) >= 2 && r.in[0] == '\r' && r.in[1] == '\n' {
		r.take(2)
		r.end()
		return true, nil
	}
	block, n, err := r.block("trailer")
	if err != nil || n == 0 {
		return false, err
	}
	fields := 0
	for line := range strings.SplitSeq(block, "\r\n") {
		if fields++; fields > maxFields {
			return false, violatef("the trailer has more than %d fields", maxFields)
		}
		name, value, err := field(line)
		if err != nil {
			return false, err
		}
		switch strings.ToLower(name) {
		case "content-length", "transfer-encoding", "host", "authorization", "trailer", "connection":
			return false, violatef("%s may not be a trailer", name)
		}
		// What was not announced, or was taken out since, nobody waits for.
		name = textproto.CanonicalMIMEHeaderKey(name)
		if values, announced := r.trailer[name]; announced {
			r.trailer[name] = append(values, value)
		}
	}
	r.take(n)
	r.end()
	return true, nil
}

func (r *strictReader) chunkSize() (bool, error) {
	i := bytes.IndexByte(r.in, '\n')
	if i < 0 {
		if len(r.in) > maxChunkLine {
			return false, &violation{"the size of a chunk is too long"}
		}
		return false, nil
	}
	if i == 0 || i > maxChunkLine || r.in[i-1] != '\r' {
		return false, &violation{"the size of a chunk is not followed by a line end"}
	}
	digits, extension, _ := strings.Cut(string(r.in[:i-1]), ";")
	digits = strings.TrimRight(digits, " \t")
	if digits == "" || len(digits) > 15 || strings.Trim(digits, "0123456789abcdefABCDEF") != "" {
		return false, &violation{"the size of a chunk is no hexadecimal number"}
	}
	if strings.ContainsFunc(extension, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
		return false, &violation{"the extension of a chunk holds a control character"}
	}
	size, err := strconv.ParseInt(digits, 16, 64)
	if err != nil {
		return false, &violation{"the size of a chunk is no hexadecimal number"}
	}
	r.take(i + 1)
	r.remaining = size
	if r.state = inChunk; size == 0 {
		r.state = inTrailer
	}
	return true, nil
}

// tunnel returns a reader of what follows a CONNECT or an upgrade, as it is.
func (r *strictReader) tunnel() io.Reader {
	if len(r.in) == 0 {
		return r.src
	}
	return io.MultiReader(bytes.NewReader(r.take(len(r.in))), r.src)
}

// field splits a header line.
func field(line string) (name, value string, err error) {
	if line == "" || line[0] == ' ' || line[0] == '\t' {
		return "", "", &violation{"a header is folded over several lines"}
	}
	name, value, ok := strings.Cut(line, ":")
	if !ok || name == "" {
		return "", "", &violation{"a header has no name"}
	}
	for i := range len(name) {
		if !tokens[name[i]] {
			return "", "", &violation{"the name of a header holds a character that it may not hold"}
		}
	}
	for i := range len(value) {
		if b := value[i]; b < ' ' && b != '\t' || b == 0x7f {
			return "", "", violatef("the header %s holds a control character", name)
		}
	}
	return name, strings.Trim(value, " \t"), nil
}

// tokens are the characters of methods and of names of headers.
var tokens = func() (set [256]bool) {
	for _, c := range "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%&'*+-.^_`|~" {
		set[c] = true
	}
	return set
}()

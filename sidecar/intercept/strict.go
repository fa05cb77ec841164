package intercept

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync/atomic"
)

const (
	maxFields    = 256     // header fields of a request
	maxChunkLine = 4 << 10 // a chunk's size with its extensions, in bytes
)

// strictConn is a connection of which only unambiguous HTTP/1 requests can be read.
//
// It follows the framing of what passes through it. When that is not as it should be
// where a request begins, it yields one harmless request instead, and then the end: the
// handler sees [strictConn.violation] and answers. Within a body, reading fails.
//
// After a CONNECT or an upgrade the bytes are the tunnel's and pass as they are; the
// handler has to take the connection over or close it.
type strictConn struct {
	net.Conn
	tunnel    *tunnel
	maxHead   int
	violated  atomic.Pointer[violation]
	opened    atomic.Bool // passes everything
	state     parseState
	in        []byte // read from the connection, not yet judged
	out       []byte // judged, not yet read
	spare     []byte // what out is in
	remaining int64  // of a body or chunk
	err       error
	buf       [4 << 10]byte
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
	atEnd
)

type violation struct{ reason string }

// standIn is what is read instead of a request that violates the rules.
const standIn = "GET / HTTP/1.1\r\nHost: malformed.invalid\r\nConnection: close\r\n\r\n"

func newStrictConn(c net.Conn, t *tunnel, maxHead int) *strictConn {
	return &strictConn{Conn: c, tunnel: t, maxHead: maxHead}
}

// violation returns why the last request was refused, "" if none was.
func (c *strictConn) violation() string {
	if v := c.violated.Load(); v != nil {
		return v.reason
	}
	return ""
}

func (c *strictConn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for len(c.out) == 0 {
		if c.state == inTunnel && len(c.in) == 0 {
			return c.Conn.Read(p)
		}
		if c.state == atEnd {
			return 0, io.EOF
		}
		if c.err != nil && len(c.in) == 0 {
			return 0, c.err
		}
		progress, err := c.parse()
		if err != nil {
			return c.refuse(p, err)
		}
		if progress {
			continue
		}
		if c.err != nil {
			return 0, c.err
		}
		if (c.state == inFixed || c.state == inChunk) && len(c.in) == 0 {
			return c.readBody(p)
		}
		n, err := c.Conn.Read(c.buf[:])
		c.in, c.err = append(c.in, c.buf[:n]...), err
		if n == 0 && err == nil {
			return 0, nil
		}
		var ne net.Error
		if errors.As(err, &ne) && ne.Timeout() {
			// net/http sets deadlines in the past to get hold of the connection; what is
			// read later is still good.
			c.err = nil
			if n == 0 {
				return 0, err
			}
		}
	}
	n := copy(p, c.out)
	c.out = c.out[n:]
	return n, nil
}

// readBody reads what is certainly of a body straight into p.
func (c *strictConn) readBody(p []byte) (int, error) {
	n, err := c.Conn.Read(p[:min(int64(len(p)), c.remaining)])
	c.advance(n)
	return n, err
}

// advance takes note that bytes of a body, or of a chunk, have passed.
func (c *strictConn) advance(n int) {
	if c.remaining -= int64(n); c.remaining > 0 {
		return
	}
	if c.state == inFixed {
		c.state = inHead
	} else {
		c.state = inChunkEnd
	}
}

func (c *strictConn) refuse(p []byte, err error) (int, error) {
	c.violated.CompareAndSwap(nil, &violation{reason: err.Error()})
	if c.state != inHead {
		c.state = atEnd
		return 0, fmt.Errorf("malformed request body: %w", err)
	}
	c.state, c.in, c.out = atEnd, nil, []byte(standIn)
	n := copy(p, c.out)
	c.out = c.out[n:]
	return n, nil
}

// pass moves the first n bytes of in to out.
func (c *strictConn) pass(n int) {
	c.out = append(c.spare[:0], c.in[:n]...) // of which nothing is left to read
	if c.spare = c.out; cap(c.spare) > len(c.buf) {
		c.spare = nil // what a long head took is not kept
	}
	c.in = c.in[:copy(c.in, c.in[n:])]
}

// parse judges some of what is at hand. It reports whether something became readable.
func (c *strictConn) parse() (bool, error) {
	switch c.state {
	case inHead:
		return c.parseHead()
	case inFixed, inChunk:
		n := int(min(int64(len(c.in)), c.remaining))
		if n == 0 {
			return false, nil
		}
		c.advance(n)
		c.pass(n)
		return true, nil
	case inChunkSize:
		return c.parseChunkSize()
	case inChunkEnd:
		if len(c.in) < 2 {
			return false, nil
		}
		if string(c.in[:2]) != "\r\n" {
			return false, errors.New("a chunk is not followed by a line end")
		}
		c.state = inChunkSize
		c.pass(2)
		return true, nil
	case inTrailer:
		return c.parseTrailer()
	case inTunnel:
		if len(c.in) == 0 {
			return false, nil
		}
		c.pass(len(c.in))
		return true, nil
	}
	return false, nil
}

// fields finds the end of a block of lines that ends with an empty one, and splits it.
// A bare line feed or carriage return is an error as soon as it is seen.
func (c *strictConn) fields(what string) ([]string, int, error) {
	end := bytes.Index(c.in, []byte("\r\n\r\n"))
	if what == "trailer" && bytes.HasPrefix(c.in, []byte("\r\n")) {
		return nil, 2, nil
	}
	block := c.in
	if end >= 0 {
		block = c.in[:end]
	}
	if len(block) > c.maxHead {
		return nil, 0, fmt.Errorf("the %s is longer than %d bytes", what, c.maxHead)
	}
	for i, b := range block {
		switch {
		case b == '\n' && (i == 0 || block[i-1] != '\r'):
			return nil, 0, fmt.Errorf("the %s holds a bare line feed", what)
		case b == '\r' && i+1 < len(block) && block[i+1] != '\n':
			return nil, 0, fmt.Errorf("the %s holds a bare carriage return", what)
		case b == 0:
			return nil, 0, fmt.Errorf("the %s holds a zero byte", what)
		}
	}
	if end < 0 {
		return nil, 0, nil
	}
	lines := strings.Split(string(block), "\r\n")
	if len(lines) > maxFields {
		return nil, 0, fmt.Errorf("the %s has more than %d fields", what, maxFields)
	}
	return lines, end + 4, nil
}

// field splits a header line.
func field(line string) (name, value string, err error) {
	if line == "" || line[0] == ' ' || line[0] == '\t' {
		return "", "", errors.New("a header is folded over several lines")
	}
	name, value, ok := strings.Cut(line, ":")
	if !ok || name == "" {
		return "", "", errors.New("a header has no name")
	}
	for i := range len(name) {
		if !tokenChar(name[i]) {
			return "", "", errors.New("the name of a header holds a character that it may not hold")
		}
	}
	for i := range len(value) {
		if b := value[i]; b < ' ' && b != '\t' || b == 0x7f {
			return "", "", fmt.Errorf("the header %s holds a control character", name)
		}
	}
	return name, strings.Trim(value, " \t"), nil
}

func (c *strictConn) parseTrailer() (bool, error) {
	lines, n, err := c.fields("trailer")
	if err != nil || n == 0 {
		return false, err
	}
	for _, line := range lines {
		name, _, err := field(line)
		if err != nil {
			return false, err
		}
		switch strings.ToLower(name) {
		case "content-length", "transfer-encoding", "host", "authorization", "trailer", "connection":
			return false, fmt.Errorf("%s may not be a trailer", name)
		}
	}
	c.state = inHead
	c.pass(n)
	return true, nil
}

func (c *strictConn) parseChunkSize() (bool, error) {
	i := bytes.IndexByte(c.in, '\n')
	if i < 0 {
		if len(c.in) > maxChunkLine {
			return false, errors.New("the size of a chunk is too long")
		}
		return false, nil
	}
	if i == 0 || i > maxChunkLine || c.in[i-1] != '\r' {
		return false, errors.New("the size of a chunk is not followed by a line end")
	}
	digits, extension, _ := strings.Cut(string(c.in[:i-1]), ";")
	digits = strings.TrimRight(digits, " \t")
	if digits == "" || len(digits) > 15 || strings.Trim(digits, "0123456789abcdefABCDEF") != "" {
		return false, errors.New("the size of a chunk is no hexadecimal number")
	}
	if strings.ContainsFunc(extension, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
		return false, errors.New("the extension of a chunk holds a control character")
	}
	size, err := strconv.ParseInt(digits, 16, 64)
	if err != nil {
		return false, errors.New("the size of a chunk is no hexadecimal number")
	}
	c.remaining = size
	if c.state = inChunk; c.remaining == 0 {
		c.state = inTrailer
	}
	c.pass(i + 1)
	return true, nil
}

func tokenChar(b byte) bool {
	return b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || b >= '0' && b <= '9' || strings.IndexByte("!#$%&'*+-.^_`|~", b) >= 0
}

// Package pktline reads and writes the packets that git's protocols are made of
// (gitprotocol-common): four hexadecimal digits of length, which count themselves, and
// what they announce; and the special packets without content.
//
// # Promises
//
//   - Reading takes no more than one packet of memory, and nothing of what follows it.
//   - A length that git would not write is an error, never a guess.
package pktline

import (
	"bufio"
	"errors"
	"fmt"
	"io"
)

// Kind tells packets apart.
type Kind uint8

// The kinds of packets.
const (
	Data        Kind = iota
	Flush            // 0000: the end of a message
	Delim            // 0001: the end of a section of one
	ResponseEnd      // 0002: the end of a response, between git and its helpers
)

const (
	// MaxData is the most that one packet holds, in bytes.
	MaxData = 65516
	// header is the length of a length.
	header = 4
)

// ErrMalformed is wrapped by the errors of what is no packet.
var ErrMalformed = errors.New("malformed packet")

// Packet is one packet. Its data is valid until the next one is read.
type Packet struct {
	Kind Kind
	Data []byte
	// Raw is the packet as it was read.
	Raw []byte
}

// Text returns the data without the line feed that may end it.
func (p Packet) Text() string {
	d := p.Data
	if n := len(d); n > 0 && d[n-1] == '\n' {
		d = d[:n-1]
	}
	return string(d)
}

// Reader reads packets.
type Reader struct {
	// R is where packets are read from. What follows the last one is left there.
	R   *bufio.Reader
	buf []byte
}

// NewReader makes a reader. What r has buffered beyond its packets can be read from R.
func NewReader(r io.Reader) *Reader {
	if br, ok := r.(*bufio.Reader); ok {
		return &Reader{R: br}
	}
	return &Reader{R: bufio.NewReaderSize(r, 64<<10)}
}

// Next reads a packet. The error is io.EOF only if there is nothing at all.
func (r *Reader) Next() (Packet, error) {
	if r.buf == nil {
		r.buf = make([]byte, header, 1<<10)
	}
	if _, err := io.ReadFull(r.R, r.buf[:header]); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) {
			return Packet{}, fmt.Errorf("%w: it ends within a length", io.ErrUnexpectedEOF)
		}
		return Packet{}, err
	}
	n, ok := length(r.buf[:header])
	switch {
	case !ok:
		return Packet{}, fmt.Errorf("%w: %q is no length", ErrMalformed, r.buf[:header])
	case n < header:
		if n == 3 {
			return Packet{}, fmt.Errorf("%w: the length 0003 stands for nothing", ErrMalformed)
		}
		return Packet{Kind: Kind(n + 1), Raw: r.buf[:header]}, nil
	case n-header > MaxData:
		return Packet{}, fmt.Errorf("%w: it announces %d bytes, more than %d", ErrMalformed, n-header, MaxData)
	}
	if cap(r.buf) < n {
		grown := make([]byte, header, max(n, min(2*cap(r.buf), header+MaxData)))
		copy(grown, r.buf)
		r.buf = grown
	}
	r.buf = r.buf[:n]
	if _, err := io.ReadFull(r.R, r.buf[header:]); err != nil {
		return Packet{}, fmt.Errorf("%w: it ends within a packet", io.ErrUnexpectedEOF)
	}
	return Packet{Kind: Data, Data: r.buf[header:], Raw: r.buf}, nil
}

// length reads a length: digits and letters in either case, as git does.
func length(b []byte) (int, bool) {
	n := 0
	for _, c := range b {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		n = n<<4 | int(c)
	}
	return n, true
}

// Append appends a packet with data, which is at most [MaxData] long.
func Append(b, data []byte) []byte {
	if len(data) > MaxData {
		panic("pktline: the data does not fit in a packet")
	}
	b = AppendLength(b, header+len(data))
	return append(b, data...)
}

// AppendString appends a packet with a text.
func AppendString(b []byte, s string) []byte {
	b = AppendLength(b, header+len(s))
	return append(b, s...)
}

// AppendLength appends a length, which counts its own four bytes.
func AppendLength(b []byte, n int) []byte {
	const digits = "0123456789abcdef"
	return append(b, digits[n>>12&15], digits[n>>8&15], digits[n>>4&15], digits[n&15])
}

// AppendFlush appends a packet that ends a message.
func AppendFlush(b []byte) []byte { return append(b, "0000"...) }

// AppendDelim appends a packet that ends a section.
func AppendDelim(b []byte) []byte { return append(b, "0001"...) }

// Bands of the side-band capability.
const (
	BandData     = 1
	BandProgress = 2
	BandError    = 3
)

// Sideband returns a writer that puts what it is given into packets of a band.
func Sideband(w io.Writer, band byte) io.Writer { return &sideband{w: w, band: band} }

type sideband struct {
	w    io.Writer
	band byte
	buf  []byte
}

func (s *sideband) Write(p []byte) (int, error) {
	written := 0
	for len(p) > 0 {
		n := min(len(p), MaxData-1)
		s.buf = append(AppendLength(s.buf[:0], header+1+n), s.band)
		s.buf = append(s.buf, p[:n]...)
		if _, err := s.w.Write(s.buf); err != nil {
			return written, err
		}
		written += n
		p = p[n:]
	}
	return written, nil
}

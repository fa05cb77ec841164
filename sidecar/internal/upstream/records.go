package upstream

import (
	"net"
	"sync"
)

const (
	recordHead = 5
	// fullRecord is how long a record is at least that is worth waiting for none of the
	// others, in bytes: what is said of a connection itself is shorter.
	fullRecord = 8 << 10
	readAhead  = 64 << 10
)

var aheads = sync.Pool{New: func() any { b := make([]byte, readAhead); return &b }}

// records is a connection under TLS. While much comes it is read ahead, many records with
// one system call, and it is known whether the next one is there as a whole.
type records struct {
	net.Conn
	ahead *[]byte // read and not passed on: from at to end
	at    int
	end   int
	left  int // of the record that is being passed on, in bytes
	head  [recordHead]byte
	seen  int  // of the head of the next record, in bytes
	much  bool // came at the last time
}

func (r *records) Read(p []byte) (int, error) {
	if r.at < r.end {
		n := copy(p, (*r.ahead)[r.at:min(r.end, r.at+r.whole())])
		r.follow(p[:n])
		if r.at += n; r.at == r.end {
			r.release()
		}
		return n, nil
	}
	if r.much || len(p) >= fullRecord && r.left >= fullRecord { // in the middle of a long one
		r.ahead = aheads.Get().(*[]byte)
		n, err := r.Conn.Read(*r.ahead)
		if r.much = n >= fullRecord; n == 0 {
			r.release()
			return 0, err
		}
		r.at, r.end = 0, n // if there is an error too, it comes again
		return r.Read(p)
	}
	n, err := r.Conn.Read(p)
	r.follow(p[:n])
	return n, err
}

// whole returns how much of what was read ahead may be passed on at once: to the end of a
// record and no further, so that what is left begins with one.
func (r *records) whole() int {
	if r.left > 0 {
		return r.left
	}
	return recordHead - r.seen
}

// follow takes note of what is passed on.
func (r *records) follow(p []byte) {
	for len(p) > 0 {
		if r.left == 0 {
			n := copy(r.head[r.seen:], p)
			if r.seen, p = r.seen+n, p[n:]; r.seen == recordHead {
				r.left, r.seen = int(r.head[3])<<8|int(r.head[4]), 0
			}
			continue
		}
		n := min(r.left, len(p))
		r.left, p = r.left-n, p[n:]
	}
}

func (r *records) release() {
	aheads.Put(r.ahead)
	r.ahead, r.at, r.end = nil, 0, 0
}

// ready reports whether the next record, a long one, is there as a whole.
func (r *records) ready() bool {
	if r.left > 0 || r.seen > 0 || r.end-r.at < recordHead+fullRecord {
		return false
	}
	head := (*r.ahead)[r.at:]
	n := int(head[3])<<8 | int(head[4])
	return n >= fullRecord && r.end-r.at >= recordHead+n
}

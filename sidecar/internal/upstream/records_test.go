package upstream

import (
	"bytes"
	"io"
	"math/rand/v2"
	"net"
	"testing"
)

// scripted is a connection from which pieces are read.
type scripted struct {
	net.Conn
	pieces [][]byte
	reads  int
}

func (s *scripted) Read(p []byte) (int, error) {
	s.reads++
	if len(s.pieces) == 0 {
		return 0, io.EOF
	}
	n := copy(p, s.pieces[0])
	if s.pieces[0] = s.pieces[0][n:]; len(s.pieces[0]) == 0 {
		s.pieces = s.pieces[1:]
	}
	return n, nil
}

// FuzzRecords reads a stream in pieces: what comes out is what went in, and what is said
// to be ready is read without asking the connection again.
func FuzzRecords(f *testing.F) {
	f.Add(uint64(1), []byte{})
	f.Add(uint64(2), []byte{23, 3, 3, 0xff, 0xff, 1, 2, 3})
	f.Fuzz(func(t *testing.T, seed uint64, tail []byte) {
		r := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // a test
		var all []byte
		for range r.IntN(24) {
			n := []int{0, 1, 100, fullRecord - 1, fullRecord, 16 << 10}[r.IntN(6)]
			all = append(all, 23, 3, 3, byte(n>>8), byte(n))
			for range n {
				all = append(all, byte(len(all)))
			}
		}
		all = append(all, tail...)
		src := &scripted{}
		for rest := all; len(rest) > 0; {
			n := min(len(rest), 1+r.IntN([]int{4, 5000, 200000}[r.IntN(3)]))
			src.pieces, rest = append(src.pieces, rest[:n]), rest[n:]
		}
		c := &records{Conn: src}
		var got []byte
		for {
			if c.ready() {
				at, reads := len(got), src.reads
				head := make([]byte, recordHead)
				if _, err := io.ReadFull(c, head); err != nil {
					t.Fatal(err)
				}
				record := make([]byte, int(head[3])<<8|int(head[4]))
				if _, err := io.ReadFull(c, record); err != nil {
					t.Fatal(err)
				}
				got = append(append(got, head...), record...)
				if src.reads != reads {
					t.Fatalf("at %d the connection was read %d times", at, src.reads-reads)
				}
				continue
			}
			p := make([]byte, 1+r.IntN([]int{4, 600, 20000}[r.IntN(3)]))
			n, err := c.Read(p)
			got = append(got, p[:n]...)
			if err != nil {
				break
			}
		}
		if !bytes.Equal(got, all) {
			t.Fatalf("%d bytes became %d", len(all), len(got))
		}
	})
}

package pack

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/klauspost/compress/zlib"
)

// Visit is shown an object of a pack: its number, its type, its length and its content,
// which is valid until Visit returns. Several objects are shown at a time. If it does not
// read the content to its end that is done for it.
type Visit func(i int, kind Type, size int64, content io.Reader) error

const (
	// small is the length up to which an object is looked at beside others, in bytes.
	small = 256 << 10
	// queue is how many of them may wait.
	queue = 64
)

// Receive reads a pack from r, up to its end, writes it to a file, and shows every
// object in it. Nothing may follow the pack in what r has at hand.
func Receive(r io.Reader, file File, format Format, limits Limits, visit Visit) (*Pack, error) {
	in := &intake{r: r, file: file, hash: format.hash(), trailer: format.size, limit: limits.Bytes}
	p := &Pack{format: format, limits: limits, file: file, work: limits.Inflated}
	rc := &receiver{p: p, in: in, br: bufio.NewReaderSize(in, 64<<10), visit: visit}
	rc.jobs = make(chan job, queue)
	for range max(1, min(runtime.GOMAXPROCS(0), 4)) {
		rc.workers.Go(rc.work)
	}
	err := rc.entries()
	rc.pending.Wait()
	if err == nil {
		err = rc.resolve()
	}
	close(rc.jobs)
	rc.workers.Wait()
	if failed := rc.failure.Load(); failed != nil && (err == nil || errors.Is(err, errStopped)) {
		err = *failed
	}
	if err != nil {
		return nil, err
	}
	p.index()
	p.work = limits.Inflated
	return p, nil
}

// intake reads what is sent, keeps it and sums it up. The bytes of the checksum that ends
// it are not summed up.
type intake struct {
	r       io.Reader
	file    io.Writer
	hash    hash.Hash
	trailer int
	tail    []byte
	n       int64
	limit   int64
}

func (in *intake) Read(b []byte) (int, error) {
	n, err := in.r.Read(b)
	if n == 0 {
		return 0, err
	}
	if in.n += int64(n); in.n > in.limit {
		return 0, &Refused{Reason: fmt.Sprintf("the pack is larger than %d bytes", in.limit), Advice: "push in several steps, or ask the operator for a higher limit"}
	}
	if _, err := in.file.Write(b[:n]); err != nil {
		return 0, fmt.Errorf("storing the pack: %w", err)
	}
	in.tail = append(in.tail, b[:n]...)
	if excess := len(in.tail) - in.trailer; excess > 0 {
		in.hash.Write(in.tail[:excess])
		in.tail = in.tail[:copy(in.tail, in.tail[excess:])]
	}
	return n, err
}

type job struct {
	i       int32
	kind    Type
	content []byte
	done    *[]byte // to be used again
}

type receiver struct {
	p       *Pack
	in      *intake
	br      *bufio.Reader
	zr      io.ReadCloser
	visit   Visit
	jobs    chan job
	workers sync.WaitGroup
	pending sync.WaitGroup
	failure atomic.Pointer[error]
	buffers sync.Pool
	bases   []ID // of the deltas that name their base, by what base is in an entry
}

// errStopped says that a visit failed: its error is the one to tell.
var errStopped = errors.New("stopped")

func (rc *receiver) fail(err error) { rc.failure.CompareAndSwap(nil, &err) }

func (rc *receiver) work() {
	for j := range rc.jobs {
		if rc.failure.Load() == nil {
			if err := rc.show(j.i, j.kind, int64(len(j.content)), bytes.NewReader(j.content)); err != nil {
				rc.fail(err)
			}
		}
		if j.done != nil {
			rc.buffers.Put(j.done)
		}
		rc.pending.Done()
	}
}

// show finds out the id of an object and shows it.
func (rc *receiver) show(i int32, kind Type, size int64, content io.Reader) error {
	h := rc.p.format.hash()
	header := append(append(append(make([]byte, 0, 32), kind.String()...), ' '), strconv.FormatInt(size, 10)...)
	h.Write(append(header, 0))
	if b, ok := content.(*bytes.Reader); ok {
		if _, err := b.WriteTo(h); err != nil {
			return err
		}
		if _, err := b.Seek(0, io.SeekStart); err != nil {
			return err
		}
		h.Sum(rc.p.ids[i][:0])
		return rc.visit(int(i), kind, size, b)
	}
	tee := io.TeeReader(content, h)
	err := rc.visit(int(i), kind, size, tee)
	if err == nil {
		_, err = io.Copy(io.Discard, tee)
	}
	h.Sum(rc.p.ids[i][:0])
	return err
}

func (rc *receiver) offset() int64 { return rc.in.n - int64(rc.br.Buffered()) }

// cut turns the end of what is read into an error that says what is missing.
func cut(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("the pack ends too early: %w", io.ErrUnexpectedEOF)
	}
	return err
}

// entries reads the pack and shows what is stored whole.
func (rc *receiver) entries() error {
	head := make([]byte, 12)
	if _, err := io.ReadFull(rc.br, head); err != nil {
		return cut(err)
	}
	if string(head[:4]) != "PACK" {
		return malformed("it does not begin as one")
	}
	if v := binary.BigEndian.Uint32(head[4:]); v != 2 {
		return malformed("its version is %d, not 2", v)
	}
	n := binary.BigEndian.Uint32(head[8:])
	if int64(n) > int64(rc.p.limits.Objects) {
		return &Refused{Reason: fmt.Sprintf("the pack holds %d objects, more than %d", n, rc.p.limits.Objects), Advice: "push in several steps, or ask the operator for a higher limit"}
	}
	// Workers write ids: they are never moved.
	rc.p.entries, rc.p.ids = make([]entry, n), make([]ID, n)
	for i := range rc.p.entries {
		if rc.failure.Load() != nil {
			return errStopped
		}
		if err := rc.entry(int32(i)); err != nil {
			return cut(err)
		}
	}
	end := rc.offset()
	trailer := make([]byte, rc.p.format.size)
	if _, err := io.ReadFull(rc.br, trailer); err != nil {
		return cut(err)
	}
	if rc.br.Buffered() > 0 {
		return malformed("something follows it")
	}
	if !bytes.Equal(rc.in.hash.Sum(nil), trailer) {
		return malformed("its checksum is wrong")
	}
	rc.p.size = end + int64(len(trailer))
	return nil
}

func (rc *receiver) entry(i int32) error {
	e := entry{offset: rc.offset(), base: -1}
	c, err := rc.br.ReadByte()
	if err != nil {
		return err
	}
	e.stored = Type(c >> 4 & 7)
	e.size = int64(c & 15)
	for shift := 4; c&0x80 != 0; shift += 7 {
		if c, err = rc.br.ReadByte(); err != nil {
			return err
		}
		if shift > 53 {
			return malformed("the length of an object is out of range")
		}
		e.size |= int64(c&0x7f) << shift
	}
	switch e.stored {
	case Commit, Tree, Blob, Tag:
		e.kind = e.stored
	case ofsDelta:
		err = rc.ofsBase(&e, rc.p.entries[:i])
	case refDelta:
		id := ID{}
		_, err = io.ReadFull(rc.br, id[:rc.p.format.size])
		e.base = int32(len(rc.bases))
		rc.bases = append(rc.bases, id)
	default:
		return malformed("an object has the unknown type %d", e.stored)
	}
	if err != nil {
		return err
	}
	e.head = uint8(rc.offset() - e.offset)
	if err := rc.p.fits(e.size, e.stored != Blob); err != nil {
		return err
	}
	if rc.p.work -= e.size; rc.p.work < 0 {
		return rc.p.tooMuch()
	}
	rc.p.entries[i] = e
	if rc.zr == nil {
		rc.zr, err = zlib.NewReader(rc.br)
	} else {
		err = rc.zr.(zlib.Resetter).Reset(rc.br, nil)
	}
	if err != nil {
		return broken(err)
	}
	stored := &exactly{r: rc.zr, left: e.size}
	switch {
	case e.delta():
		_, err = io.Copy(io.Discard, stored)
	case e.size > small:
		err = rc.show(i, e.kind, e.size, stored)
	default:
		buf, _ := rc.buffers.Get().(*[]byte)
		if buf == nil {
			buf = new([]byte)
		}
		*buf = slices.Grow((*buf)[:0], int(e.size))[:e.size]
		if _, err = io.ReadFull(stored, *buf); err == nil {
			err = stored.end()
		}
		if err != nil {
			return err
		}
		rc.pending.Add(1)
		rc.jobs <- job{i, e.kind, *buf, buf}
	}
	return err
}

// ofsBase reads how far before a delta its base is.
func (rc *receiver) ofsBase(e *entry, before []entry) error {
	c, err := rc.br.ReadByte()
	if err != nil {
		return err
	}
	back := int64(c & 0x7f)
	for c&0x80 != 0 {
		if c, err = rc.br.ReadByte(); err != nil {
			return err
		}
		if back > 1<<47 {
			return malformed("the base of a delta is out of range")
		}
		back = (back+1)<<7 | int64(c&0x7f)
	}
	at, ok := slices.BinarySearchFunc(before, e.offset-back, func(e entry, offset int64) int {
		return int(min(max(e.offset-offset, -1), 1))
	})
	if !ok {
		return malformed("the base of a delta is where no object begins")
	}
	e.base = int32(at)
	return nil
}

// fits says whether an object is not too long.
func (p *Pack) fits(size int64, whole bool) error {
	if size > p.limits.Object {
		return &Refused{Reason: fmt.Sprintf("an object of %d bytes is in the pack, more than %d", size, p.limits.Object), Advice: "leave large files out of the repository, or ask the operator for a higher limit"}
	}
	if whole && size > p.limits.Whole {
		return &Refused{
			Reason: fmt.Sprintf("an object of %d bytes is in the pack that has to be looked at as a whole, more than %d", size, p.limits.Whole),
			Advice: fmt.Sprintf("if it is a large file, have it sent whole: git -c core.bigFileThreshold=%d push", p.limits.Whole),
		}
	}
	return nil
}

func (p *Pack) tooMuch() error {
	return &Refused{Reason: fmt.Sprintf("the objects of the pack are larger than %d bytes together", p.limits.Inflated), Advice: "push in several steps, or ask the operator for a higher limit"}
}

func broken(err error) error {
	if errors.Is(err, zlib.ErrHeader) || errors.Is(err, zlib.ErrChecksum) || errors.Is(err, zlib.ErrDictionary) {
		return malformed("an object cannot be inflated: %v", err)
	}
	return err
}

// exactly reads what has a known length, no less and no more.
type exactly struct {
	r    io.Reader
	left int64
}

func (x *exactly) Read(b []byte) (int, error) {
	if x.left == 0 {
		if err := x.end(); err != nil {
			return 0, err
		}
		return 0, io.EOF
	}
	n, err := x.r.Read(b[:min(int64(len(b)), x.left)])
	x.left -= int64(n)
	switch {
	case err == nil || errors.Is(err, io.EOF) && x.left == 0:
		return n, nil
	case errors.Is(err, io.EOF):
		return n, malformed("an object is shorter than it says")
	}
	return n, inflating(err)
}

// end says whether nothing is left, and reads what follows the last byte.
func (x *exactly) end() error {
	var one [1]byte
	n, err := x.r.Read(one[:])
	for n == 0 && err == nil {
		n, err = x.r.Read(one[:])
	}
	if n > 0 {
		return malformed("an object is longer than it says")
	}
	if !errors.Is(err, io.EOF) {
		return inflating(err)
	}
	return nil
}

// inflating tells errors of the data from those of reading it.
func inflating(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, ErrRefused) {
		return err
	}
	if corrupt(err) {
		return malformed("an object cannot be inflated: %v", err)
	}
	return broken(err)
}

package pack

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/zlib"
)

// held is how many bytes of bases are kept while what stands on them is made.
const held = 48 << 20

// frame is an object whose deltas are being applied.
type frame struct {
	i       int32
	depth   int
	kind    Type
	content []byte // nil if it was let go
	next    []int32
}

// resolver makes objects of deltas, from each that is stored whole: what stands on it, then
// what stands on that. The child that most stands on comes last, when its parent is needed
// no more: the number of bases that are needed again is at most the logarithm of that of the
// objects.
type resolver struct {
	*receiver
	children [][]int32
	weight   []int32
	named    map[ID][]int32 // deltas by the id of their base
	stack    []frame
	held     int64
}

func (rc *receiver) resolve() error {
	p := rc.p
	r := &resolver{receiver: rc, children: make([][]int32, len(p.entries)), weight: make([]int32, len(p.entries))}
	deltas := 0
	for i := len(p.entries) - 1; i >= 0; i-- {
		e := &p.entries[i]
		if !e.delta() {
			continue
		}
		deltas++
		if e.stored == refDelta {
			if r.named == nil {
				r.named = map[ID][]int32{}
			}
			base := rc.bases[e.base]
			r.named[base] = append(r.named[base], int32(i))
			e.base = -1
			continue
		}
		r.children[e.base] = append(r.children[e.base], int32(i))
		r.weight[e.base] += r.weight[i] + 1
	}
	if deltas == 0 {
		return nil
	}
	for i := range p.entries {
		if e := &p.entries[i]; !e.delta() {
			if err := r.from(int32(i), e.kind); err != nil {
				return err
			}
		}
	}
	rc.pending.Wait()
	for base := range r.named {
		return &Refused{
			Reason: fmt.Sprintf("the pack holds a delta against the object %s, which is not in it", p.format.Hex(base)),
			Advice: "push with --no-thin",
		}
	}
	return nil
}

// below returns what stands on an object, the one that bears most last.
func (r *resolver) below(i int32) []int32 {
	next := r.children[i]
	r.children[i] = nil
	if len(r.named) > 0 {
		id := r.p.ids[i]
		if more, ok := r.named[id]; ok {
			next = append(next, more...)
			delete(r.named, id)
		}
	}
	slices.SortStableFunc(next, func(a, b int32) int { return int(r.weight[a]) - int(r.weight[b]) })
	return next
}

// from makes everything that stands on an object.
func (r *resolver) from(root int32, kind Type) error {
	next := r.below(root)
	if len(next) == 0 {
		return nil
	}
	r.stack, r.held = append(r.stack[:0], frame{i: root, kind: kind, next: next}), 0
	for len(r.stack) > 0 {
		if r.failure.Load() != nil {
			return errStopped
		}
		f := &r.stack[len(r.stack)-1]
		i := f.next[0]
		depth := f.depth + 1
		if depth > r.p.limits.Depth {
			return &Refused{Reason: fmt.Sprintf("more than %d deltas stand on one another in the pack", r.p.limits.Depth), Advice: "push with git -c pack.depth=50 push"}
		}
		if f.content == nil {
			content, err := r.p.rebuild(f.i, r.kept)
			if err != nil {
				return err
			}
			f.content = content
			r.held += int64(len(content))
		}
		base := f.content
		parent := f.i
		if f.next = f.next[1:]; len(f.next) == 0 {
			r.held -= int64(len(base))
			r.stack = r.stack[:len(r.stack)-1]
		}
		e := &r.p.entries[i]
		e.base, e.kind = parent, kind
		content, err := r.p.apply(e, base)
		if err != nil {
			return err
		}
		if err := r.made(i, kind, content); err != nil {
			return err
		}
		if next := r.below(i); len(next) > 0 {
			r.stack = append(r.stack, frame{i: i, depth: depth, kind: kind, content: content, next: next})
			r.held += int64(len(content))
			r.letGo()
		}
	}
	return nil
}

// made shows an object that a delta made.
func (r *resolver) made(i int32, kind Type, content []byte) error {
	// Another delta may wait for this id.
	if len(content) > small || len(r.named) > 0 {
		return r.show(i, kind, int64(len(content)), bytes.NewReader(content))
	}
	r.pending.Add(1)
	r.jobs <- job{i: i, kind: kind, content: content}
	return nil
}

// letGo drops contents that are needed latest, but not that of the last frame.
func (r *resolver) letGo() {
	for i := 0; r.held > held && i < len(r.stack)-1; i++ {
		f := &r.stack[i]
		r.held -= int64(len(f.content))
		f.content = nil
	}
}

// kept returns the content of an object that is kept.
func (r *resolver) kept(i int32) []byte {
	for at := len(r.stack) - 1; at >= 0; at-- {
		if f := &r.stack[at]; f.i == i && f.content != nil {
			return f.content
		}
	}
	return nil
}

// rebuild returns the content of an object, from whatever is kept or from the file.
func (p *Pack) rebuild(i int32, kept func(int32) []byte) ([]byte, error) {
	var chain []int32
	var content []byte
	last := i
	for {
		e := &p.entries[i]
		if kept != nil {
			if content = kept(i); content != nil {
				break
			}
		}
		if !e.delta() {
			var err error
			if content, err = p.stored(e); err != nil {
				return nil, err
			}
			if i != last {
				p.remember(i, content)
			}
			break
		}
		chain = append(chain, i)
		i = e.base
	}
	for _, i := range slices.Backward(chain) {
		var err error
		if content, err = p.apply(&p.entries[i], content); err != nil {
			return nil, err
		}
		p.remember(i, content)
	}
	return content, nil
}

// stored returns what is stored of an object.
func (p *Pack) stored(e *entry) ([]byte, error) {
	if err := p.fits(e.size, true); err != nil {
		return nil, err
	}
	if p.work -= e.size; p.work < 0 {
		return nil, p.tooMuch()
	}
	r, err := p.inflate.at(p.file, e.offset+int64(e.head), p.size)
	if err != nil {
		return nil, err
	}
	content := make([]byte, e.size)
	if _, err := io.ReadFull(r, content); err != nil {
		return nil, fmt.Errorf("reading the pack again: %w", inflating(err))
	}
	return content, nil
}

// apply makes an object of its base and its delta.
func (p *Pack) apply(e *entry, base []byte) ([]byte, error) {
	delta, err := p.stored(e)
	if err != nil {
		return nil, err
	}
	size, err := deltaSize(delta, int64(len(base)))
	if err != nil {
		return nil, err
	}
	if err := p.fits(size, true); err != nil {
		return nil, err
	}
	if p.work -= size; p.work < 0 {
		return nil, p.tooMuch()
	}
	return applyDelta(base, delta)
}

// inflater inflates from a file.
type inflater struct {
	section *bufio.Reader
	zr      io.ReadCloser
}

func (f *inflater) at(file io.ReaderAt, offset, end int64) (io.Reader, error) {
	section := io.NewSectionReader(file, offset, end-offset)
	if f.section == nil {
		f.section = bufio.NewReaderSize(section, 4<<10)
	} else {
		f.section.Reset(section)
	}
	var err error
	if f.zr == nil {
		f.zr, err = zlib.NewReader(f.section)
	} else {
		err = f.zr.(zlib.Resetter).Reset(f.section, nil)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the pack again: %w", err)
	}
	return f.zr, nil
}

// corrupt says whether an error is about compressed data.
func corrupt(err error) bool {
	var ce flate.CorruptInputError
	var ie flate.InternalError
	return errors.As(err, &ce) || errors.As(err, &ie)
}

package pack

// varint reads a length at the beginning of a delta.
func varint(b []byte) (n int64, rest []byte, ok bool) {
	for shift := 0; len(b) > 0 && shift <= 49; shift += 7 {
		c := b[0]
		b = b[1:]
		n |= int64(c&0x7f) << shift
		if c&0x80 == 0 {
			return n, b, true
		}
	}
	return 0, nil, false
}

// deltaSize returns the length of what a delta makes of a base of a length.
func deltaSize(delta []byte, base int64) (int64, error) {
	from, rest, ok := varint(delta)
	if !ok {
		return 0, malformed("a delta has no length")
	}
	if from != base {
		return 0, malformed("a delta is for a base of %d bytes, and its base has %d", from, base)
	}
	to, _, ok := varint(rest)
	if !ok {
		return 0, malformed("a delta has no length")
	}
	return to, nil
}

// applyDelta makes an object. The lengths in the delta were checked.
func applyDelta(base, delta []byte) ([]byte, error) {
	_, delta, _ = varint(delta)
	size, delta, _ := varint(delta)
	out := make([]byte, 0, size)
	for len(delta) > 0 {
		op := delta[0]
		delta = delta[1:]
		switch {
		case op&0x80 != 0:
			var offset, n int64
			for bit := range 7 {
				if op>>bit&1 == 0 {
					continue
				}
				if len(delta) == 0 {
					return nil, malformed("a delta ends within an instruction")
				}
				if bit < 4 {
					offset |= int64(delta[0]) << (8 * bit)
				} else {
					n |= int64(delta[0]) << (8 * (bit - 4))
				}
				delta = delta[1:]
			}
			if n == 0 {
				n = 0x10000
			}
			if offset+n > int64(len(base)) || int64(len(out))+n > size {
				return nil, malformed("a delta copies what is not there")
			}
			out = append(out, base[offset:offset+n]...)
		case op != 0:
			n := int(op)
			if n > len(delta) || int64(len(out)+n) > size {
				return nil, malformed("a delta inserts what is not there")
			}
			out = append(out, delta[:n]...)
			delta = delta[n:]
		default:
			return nil, malformed("a delta has the instruction 0, which is reserved")
		}
	}
	if int64(len(out)) != size {
		return nil, malformed("a delta makes %d bytes and says %d", len(out), size)
	}
	return out, nil
}

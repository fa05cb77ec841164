// Package deflate reads what HTTP calls deflate.
package deflate

import (
	"bufio"
	"compress/flate"
	"compress/zlib"
	"io"
)

// NewReader decompresses what is zlib (RFC 1950), as RFC 9110, 8.4.1.2 says, or the bare
// compressed data (RFC 1951), as some senders mean it. It reads no byte of src beyond the
// end of what is compressed.
func NewReader(src *bufio.Reader) (io.Reader, error) {
	if head, err := src.Peek(2); err == nil && head[0]&0x0f == 8 && (uint(head[0])<<8|uint(head[1]))%31 == 0 {
		return zlib.NewReader(src)
	}
	return flate.NewReader(src), nil
}

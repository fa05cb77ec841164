package safetar

import (
	"bufio"
	"bytes"
)

// Empty reports whether an archive that is about to be read holds nothing. It takes nothing
// from r, and an archive that cannot be read is not empty: whoever reads it sees why.
func Empty(r *bufio.Reader) bool {
	first, err := r.Peek(blockSize)
	return err == nil && bytes.Equal(first, make([]byte, blockSize))
}

// blockSize is that of a tar archive's blocks; one of zeros is its end.
const blockSize = 512

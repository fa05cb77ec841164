package runtime

import (
	"fmt"
	"io"
)

// Handshake is what Run and a container's first process say to each other when it starts:
// the process is given what it needs on its standard input, and says on its standard error
// whether that will do. No engine records what is given: it is in no description of the
// container and in no log. What the process says is in its log as ever.
type Handshake struct {
	// Input is what the process reads on its standard input, to its end, which the process
	// sees. It is read when the process has been started, and not before: until then its
	// content need not be known. It may wait; after the handshake nothing waits for its Read
	// to return, and what of it has not been passed on by then is not.
	//
	// An error of Input is Run's. The process is killed before its input ends, so that
	// it does not take a part for the whole; if this program dies, its input just ends.
	Input io.Reader
	// Answer is called with each line that the process writes to its standard error, without
	// its end, one after the other, until it returns true, which ends the handshake. Of a line
	// longer than MaxAnswer the rest is left out. An error ends the handshake, too, and is
	// Run's. When Run has returned Answer is not called any more.
	Answer func(line []byte) (done bool, err error)
}

// MaxAnswer is how much of a line a [Handshake] is told, in bytes.
const MaxAnswer = 64 << 10

// EndedError is a first process that ended before its [Handshake] had.
type EndedError struct{ Status ExitStatus }

// Error gives the status.
func (e *EndedError) Error() string {
	return fmt.Sprintf("its process has ended with status %d before it answered", e.Status.Code)
}

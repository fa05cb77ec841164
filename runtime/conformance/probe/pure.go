package probe

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

// Pure reports whether a command needs nothing of the machine it runs on, and
// changes nothing there: only its arguments, environment and streams.
func Pure(command string) bool { return pure[command] != nil }

var pure = map[string]command{
	// args A…: the arguments, as JSON.
	"args": func(_ context.Context, c *Call) int { return c.json(c.rest(0)) },
	// env: the environment, as JSON.
	"env": func(_ context.Context, c *Call) int { return c.json(c.Env) },
	// exit N
	"exit": exit,
	// cat: stdin to stdout.
	"cat": func(_ context.Context, c *Call) int {
		_, err := io.Copy(c.Stdout, c.Stdin)
		return c.done(err)
	},
	// count: reads stdin to its end.
	"count": count,
	// gen N: N bytes as Pattern gives them.
	"gen": gen,
	// gen-text N: N bytes as Text gives them.
	"gen-text": func(_ context.Context, c *Call) int {
		n, err := strconv.Atoi(c.arg(0))
		if err != nil {
			return c.done(err)
		}
		_, err = io.WriteString(c.Stdout, Text(n))
		return c.done(err)
	},
	// print TEXT: without a line end of its own.
	"print": func(_ context.Context, c *Call) int {
		_, err := io.WriteString(c.Stdout, c.arg(0))
		return c.done(err)
	},
	// echo TEXT…
	"echo": func(_ context.Context, c *Call) int {
		_, err := fmt.Fprintln(c.Stdout, strings.Join(c.rest(0), " "))
		return c.done(err)
	},
	// both OUT ERR: one line to each stream.
	"both": func(_ context.Context, c *Call) int {
		_, err := fmt.Fprintln(c.Stdout, c.arg(0))
		if err == nil {
			_, err = fmt.Fprintln(c.Stderr, c.arg(1))
		}
		return c.done(err)
	},
	// sleep [DURATION]: for ever if none is given.
	"sleep": sleep,
	// lines N DURATION: N numbered lines, one each DURATION.
	"lines": lines,
	// heed: reads stdin to its end, says as JSON on stderr what it has read, and stays.
	"heed": heed,
	// greet: repeats each line of stdin with "got " before it, at once.
	"greet": greet,
}

func init() { register(pure) }

func exit(_ context.Context, c *Call) int {
	n, err := strconv.Atoi(c.arg(0))
	if err != nil {
		return c.done(err)
	}
	return n
}

// Count is the result of count.
type Count struct {
	Bytes  int64
	SHA256 string
}

func (c *Call) count() (Count, error) {
	sum := sha256.New()
	n, err := io.CopyBuffer(sum, c.Stdin, make([]byte, 256<<10))
	return Count{n, hex.EncodeToString(sum.Sum(nil))}, err
}

func count(_ context.Context, c *Call) int {
	got, err := c.count()
	if err != nil {
		return c.done(err)
	}
	return c.json(got)
}

func heed(ctx context.Context, c *Call) int {
	_, _ = fmt.Fprintln(c.Stderr, "listening")
	got, err := c.count()
	if err == nil {
		err = json.NewEncoder(c.Stderr).Encode(got)
	}
	if err != nil {
		return c.done(err)
	}
	return sleep(ctx, &Call{Args: []string{"sleep"}})
}

func gen(_ context.Context, c *Call) int {
	n, err := strconv.ParseInt(c.arg(0), 10, 64)
	if err != nil {
		return c.done(err)
	}
	_, err = io.CopyBuffer(struct{ io.Writer }{c.Stdout}, Pattern(n), make([]byte, 256<<10))
	return c.done(err)
}

// Text is n bytes of numbered lines.
func Text(n int) string {
	var b strings.Builder
	for i := 0; b.Len() < n; i++ {
		_, _ = fmt.Fprintf(&b, "this is line number %d\n", i)
	}
	return b.String()[:n]
}

// Pattern is a stream of n bytes that differ from place to place.
func Pattern(n int64) io.Reader {
	block := make([]byte, 1<<16+1) // a length that no buffer size divides
	x := uint32(1)
	for i := range block {
		x = x*1664525 + 1013904223
		block[i] = byte(x >> 24)
	}
	return io.LimitReader(&repeat{block: block}, n)
}

type repeat struct {
	block []byte
	at    int
}

func (r *repeat) Read(p []byte) (int, error) {
	n := copy(p, r.block[r.at:])
	r.at = (r.at + n) % len(r.block)
	return n, nil
}

func sleep(ctx context.Context, c *Call) int {
	if c.arg(0) == "" {
		// A timer keeps the runtime from calling it a deadlock.
		for {
			select {
			case <-ctx.Done():
				return exitFailed
			case <-time.After(time.Hour):
			}
		}
	}
	d, err := time.ParseDuration(c.arg(0))
	if err != nil {
		return c.done(err)
	}
	select {
	case <-ctx.Done():
		return exitFailed
	case <-time.After(d):
		return 0
	}
}

func lines(ctx context.Context, c *Call) int {
	n, err := strconv.Atoi(c.arg(0))
	if err != nil {
		return c.done(err)
	}
	pause := time.Duration(0)
	if c.arg(1) != "" {
		if pause, err = time.ParseDuration(c.arg(1)); err != nil {
			return c.done(err)
		}
	}
	for i := range n {
		if _, err := fmt.Fprintf(c.Stdout, "line %d\n", i+1); err != nil {
			return c.done(err)
		}
		select {
		case <-ctx.Done():
			return exitFailed
		case <-time.After(pause):
		}
	}
	return 0
}

func greet(_ context.Context, c *Call) int {
	r := bufio.NewReader(c.Stdin)
	for {
		line, err := r.ReadBytes('\n')
		if err == io.EOF {
			return 0
		}
		if err != nil {
			return c.done(err)
		}
		if _, err := fmt.Fprintf(c.Stdout, "got %s\n", bytes.TrimSpace(line)); err != nil {
			return c.done(err)
		}
	}
}

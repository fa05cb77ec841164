package core

import (
	"context"
	"sync"
	"time"

	"github.com/containerd/errdefs"
)

// feed is a log as it is read, line by line.
type feed[T any] struct {
	lines chan T
	count int   // lines that were read; valid when lines is closed
	err   error // the same
}

func newFeed[T any]() *feed[T] { return &feed[T]{lines: make(chan T)} }

// give passes a line on, unless it is one of the first that are to be left out.
func (f *feed[T]) give(ctx context.Context, line T, skip int) error {
	if f.count++; f.count <= skip {
		return nil
	}
	select {
	case f.lines <- line:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// merge gives the lines of feeds that end, oldest first. A line without a time comes when
// it is the next of its feed.
func merge[T any](ctx context.Context, feeds []*feed[T], at func(T) time.Time, each func(T) error) error {
	heads := map[*feed[T]]T{}
	next := func(f *feed[T]) error {
		line, ok := <-f.lines
		if !ok {
			delete(heads, f)
			return f.err
		}
		heads[f] = line
		return nil
	}
	for _, f := range feeds {
		if err := next(f); err != nil {
			return err
		}
	}
	for len(heads) > 0 {
		var first *feed[T]
		for _, f := range feeds {
			head, ok := heads[f]
			if ok && (first == nil || at(head).Before(at(heads[first]))) {
				first = f
			}
		}
		if err := each(heads[first]); err != nil {
			return err
		}
		if err := next(first); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// together gives the lines of feeds as they come, until all have ended.
func together[T any](ctx context.Context, feeds []*feed[T], each func(T) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var mu sync.Mutex // each is called by one at a time
	var wg sync.WaitGroup
	for _, f := range feeds {
		wg.Go(func() {
			for {
				select {
				case <-ctx.Done():
					return
				case line, ok := <-f.lines:
					if !ok {
						if f.err != nil && !errdefs.IsNotFound(f.err) { // the bottle has ended
							cancel(f.err)
						}
						return
					}
					mu.Lock()
					err := ctx.Err()
					if err == nil {
						err = each(line)
					}
					mu.Unlock()
					if err != nil {
						cancel(err)
						return
					}
				}
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

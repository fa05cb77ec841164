// Package atonce asks an engine many questions side by side, and not all of them at a time.
package atonce

import "sync"

// limit is how many questions are asked at a time.
const limit = 16

// Do calls f with 0 to n-1, some at a time, and returns the first error by number when all
// calls have returned.
func Do(n int, f func(i int) error) error {
	errs := make([]error, n)
	turn := make(chan struct{}, limit)
	var calls sync.WaitGroup
	for i := range n {
		turn <- struct{}{}
		calls.Go(func() {
			defer func() { <-turn }()
			errs[i] = f(i)
		})
	}
	calls.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

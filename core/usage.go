package core

import (
	"context"
	"sync"
	"time"

	"github.com/containerd/errdefs"

	"github.com/bottle-run/bottle/runtime"
)

// Usage is what one of a bottle's containers uses.
type Usage struct {
	Bottle string `json:"name"`
	Role   string `json:"role"`
	// CPU is in processors: 1.5 is one and a half, on the average since it was asked before.
	CPU float64 `json:"cpu"`
	// CPUTime is all processor time so far, in seconds.
	CPUTime float64 `json:"cpu_time"`
	Memory  int64   `json:"memory"`
	// MemoryLimit is 0 if there is none.
	MemoryLimit int64 `json:"memory_limit,omitempty"`
	PIDs        int64 `json:"pids"`
}

// Meter asks what bottles use, again and again.
type Meter struct {
	mu   sync.Mutex
	last map[string]sample // by container
}

type sample struct {
	at  time.Time
	cpu time.Duration
}

// Read asks what the containers of a bottle that run use. Where the engine cannot tell it is of
// KindUnsupported. CPU is 0 the first time.
func (m *Meter) Read(ctx context.Context, b *Bottle) ([]Usage, error) {
	containers, err := b.logged(ctx, nil)
	if err != nil {
		return nil, err
	}
	list := make([]*Usage, len(containers))
	errs := make([]error, len(containers))
	var wg sync.WaitGroup
	for i, c := range containers {
		wg.Go(func() {
			s, err := b.rt.Stats(ctx, c.Container)
			switch {
			case errdefs.IsNotFound(err) || errdefs.IsFailedPrecondition(err): // it has ended
			case err != nil:
				errs[i] = err
			default:
				u := m.usage(c.Container, time.Now(), s)
				u.Bottle, u.Role = b.Name, c.Role
				list[i] = &u
			}
		})
	}
	wg.Wait()
	var usage []Usage
	for i, u := range list {
		if errs[i] != nil {
			return nil, errs[i]
		}
		if u != nil {
			usage = append(usage, *u)
		}
	}
	return usage, nil
}

func (m *Meter) usage(container string, now time.Time, s runtime.Stats) Usage {
	m.mu.Lock()
	defer m.mu.Unlock()
	u := Usage{CPUTime: s.CPU.Seconds(), Memory: s.Memory, MemoryLimit: s.MemoryLimit, PIDs: s.PIDs}
	if last, ok := m.last[container]; ok {
		if passed := now.Sub(last.at); passed > 0 && s.CPU > last.cpu {
			u.CPU = float64(s.CPU-last.cpu) / float64(passed)
		}
	}
	if m.last == nil {
		m.last = map[string]sample{}
	}
	m.last[container] = sample{now, s.CPU}
	return u
}

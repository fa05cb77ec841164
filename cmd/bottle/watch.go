package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"

	"github.com/bottle-run/bottle/core"
)

// watcher tells the user when a sidecar of a bottle dies: at once, and again at the end,
// when what the agent has written since does not stand in between.
type watcher struct {
	io   *streams
	b    *core.Bottle
	json bool
	// raw reports that the terminal is in raw mode while the agent runs.
	raw bool

	stop func()
	done chan struct{}

	mu     sync.Mutex
	deaths []core.Death
}

// watch begins to watch a bottle's sidecars. What cannot be watched is said, and no
// reason not to run the agent: it fails closed by itself.
func (f *factory) watch(ctx context.Context, b *core.Bottle, raw bool) *watcher {
	ctx, cancel := context.WithCancel(ctx)
	w := &watcher{io: f.io, b: b, json: f.globals.JSON, raw: raw, stop: cancel, done: make(chan struct{})}
	deaths, err := b.WatchSidecars(ctx)
	if err != nil {
		close(w.done)
		if ctx.Err() == nil {
			w.say(fmt.Sprintf("whether the sidecars run is not known: %v", err), core.Death{}, raw)
		}
		return w
	}
	go func() {
		defer close(w.done)
		for d := range deaths {
			w.mu.Lock()
			w.deaths = append(w.deaths, d)
			w.mu.Unlock()
			w.say(d.String(), d, w.raw)
		}
	}()
	return w
}

// end ends the watch, before the sidecars are removed, and says again who died. One whose
// death came so late that it was not told is told now; ctx bounds looking for it.
func (w *watcher) end(ctx context.Context) {
	w.stop()
	<-w.done
	late, err := w.b.DeadSidecars(ctx, w.deaths)
	if err != nil {
		late = nil // the engine is gone: what follows says so
	}
	for _, d := range late {
		w.say(d.String(), d, false)
	}
	if w.json {
		return // the first time is easy to find there
	}
	for _, d := range w.deaths {
		w.say("while the agent ran: "+d.String(), d, false)
	}
}

func (w *watcher) say(text string, d core.Death, raw bool) {
	if w.json {
		_ = json.NewEncoder(w.io.Stderr).Encode(map[string]any{"sidecar": d.Role, "status": d.Status.Code, "gone": d.Gone, "log": d.Log, "error": text})
		return
	}
	var b strings.Builder
	for i, line := range strings.Split(text, "\n") {
		if i == 0 {
			line = "bottle: " + line
		}
		b.WriteString(printable(line))
		if raw {
			b.WriteByte('\r')
		}
		b.WriteByte('\n')
	}
	_, _ = fmt.Fprint(w.io.Stderr, b.String())
}

package core

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"

	"github.com/bottle-run/bottle/core/internal/inside"
	"github.com/bottle-run/bottle/runtime"
)

// maxLogLine bounds a line of a log, in bytes; the rest of a longer one is left out.
const maxLogLine = 64 << 10

// LogLine is a line that the agent or a sidecar wrote.
type LogLine struct {
	// Time is when its first part was written, by the engine's clock.
	Time time.Time
	// Role is RoleAgent or a sidecar's.
	Role string
	// Stderr tells the stream.
	Stderr bool
	// Text is the line without its end. It is not safe to show: see [Escape].
	Text []byte
	// Cut reports that it was longer.
	Cut bool
}

// LogRoles are all that LogOptions.Roles may hold, whether a bottle has them or not.
func LogRoles() []string {
	return []string{RoleAgent, RoleFirewall, RoleEgressProxy, RoleGitGate, RoleSupervise}
}

// LogOptions say which lines are wanted.
type LogOptions struct {
	// Roles are whose logs are read; none means the agent's and those of all sidecars.
	Roles []string
	// Since leaves out what was written before.
	Since time.Time
	// Follow goes on with what comes, until ctx or the bottle ends.
	Follow bool
}

// ReadLogs gives each the lines of the bottle's logs, oldest first as far as they have been
// written, and then, with Follow, as they come. If each fails, reading ends with its error.
//
// The agent's log is what was written to the standard streams of its container's main process:
// what runs there without a terminal of the operator's writes to /proc/1/fd/1. What a command
// of [Bottle.Exec] writes goes to who runs it, and is kept nowhere.
//
// A role that the bottle has not is of KindNotFound.
func (b *Bottle) ReadLogs(ctx context.Context, opts LogOptions, each func(LogLine) error) error {
	containers, err := b.logged(ctx, opts.Roles)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	read := func(follow bool, skip func(i int) int) []*feed[LogLine] {
		var feeds []*feed[LogLine]
		for i, c := range containers {
			feeds = append(feeds, b.openLog(ctx, c, runtime.LogOptions{Since: opts.Since, Follow: follow}, !opts.Follow, skip(i)))
		}
		return feeds
	}
	past := read(false, func(int) int { return 0 })
	if err := merge(ctx, past, func(l LogLine) time.Time { return l.Time }, each); err != nil || !opts.Follow {
		return err
	}
	// What has been seen is not given again.
	return together(ctx, read(true, func(i int) int { return past[i].count }), each)
}

// logged finds the containers whose logs are wanted.
func (b *Bottle) logged(ctx context.Context, roles []string) ([]Sidecar, error) {
	sidecars, err := b.Sidecars(ctx)
	if err != nil {
		return nil, err
	}
	all := append([]Sidecar{{Role: RoleAgent, Container: b.agent()}}, sidecars...)
	if len(roles) == 0 {
		return all, nil
	}
	var list []Sidecar
	for _, role := range roles {
		i := slices.IndexFunc(all, func(s Sidecar) bool { return s.Role == role })
		if i < 0 {
			names := make([]string, len(all))
			for i, s := range all {
				names[i] = s.Role
			}
			return nil, Errorf(KindNotFound, "bottle %s has no %q: it has %s", b.Name, role, strings.Join(names, ", "))
		}
		list = append(list, all[i])
	}
	return list, nil
}

// openLog reads a log from its beginning; the first skip lines are left out. rest reports
// whether a last line without an end counts.
func (b *Bottle) openLog(ctx context.Context, from Sidecar, opts runtime.LogOptions, rest bool, skip int) *feed[LogLine] {
	f := newFeed[LogLine]()
	var at time.Time
	opts.Stamp = func(t time.Time) { at = t }
	first := true
	give := func(l LogLine) error {
		// The idle process says first that it has its variables: that is no word of the agent's.
		ours := first && from.Role == RoleAgent && l.Stderr && string(l.Text) == inside.Ready
		first = false
		if ours {
			return nil
		}
		l.Role = from.Role
		return f.give(ctx, l, skip)
	}
	stdout, stderr := &logStream{at: &at, give: give}, &logStream{at: &at, stderr: true, give: give}
	opts.Stdout, opts.Stderr = stdout, stderr
	go func() {
		defer close(f.lines)
		f.err = b.rt.Logs(ctx, from.Container, opts)
		for _, s := range []*logStream{stdout, stderr} {
			if f.err == nil && rest && s.begun {
				f.err = s.flush()
			}
		}
		if opts.Follow && errdefs.IsNotFound(f.err) {
			f.err = nil // the bottle has ended
		}
	}()
	return f
}

// logStream cuts one of the two streams of a log into lines.
type logStream struct {
	at     *time.Time // when what is written now was written
	stderr bool
	give   func(LogLine) error
	line   LogLine
	begun  bool
}

func (s *logStream) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		part, after, ends := bytes.Cut(rest, []byte("\n"))
		if !s.begun {
			s.begun, s.line = true, LogLine{Time: *s.at, Stderr: s.stderr}
		}
		room := maxLogLine - len(s.line.Text)
		s.line.Cut = s.line.Cut || len(part) > room
		s.line.Text = append(s.line.Text, part[:min(len(part), room)]...)
		if ends {
			if err := s.flush(); err != nil {
				return 0, err
			}
		}
		rest = after
	}
	return len(p), nil
}

func (s *logStream) flush() error {
	l := s.line
	s.begun, s.line = false, LogLine{}
	l.Text = bytes.TrimSuffix(l.Text, []byte("\r"))
	return s.give(l)
}

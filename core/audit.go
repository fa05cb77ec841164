package core

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"time"

	"github.com/bottle-run/bottle/runtime"
	"github.com/bottle-run/bottle/sidecar/audit"
)

// maxAuditLine bounds a line of an audit log, in bytes; what is longer is cut and is then
// no record.
const maxAuditLine = 64 << 10

// AuditLine is one decision of a bottle's sidecars.
type AuditLine struct {
	audit.Record
	// Role is the sidecar's whose log holds the line.
	Role string
	// Text is the line as it was written. It is not safe to show.
	Text []byte
	// Foreign is a line that is no record of ours: a firewall that is not the built-in one
	// writes its own. Then only Role and Text are set.
	Foreign bool
}

// AuditOptions say which lines are wanted.
type AuditOptions struct {
	// Since leaves out what was written before.
	Since time.Time
	// Follow goes on with what comes, until ctx or the bottle ends.
	Follow bool
}

// Audit gives each the lines of the audit logs of all of the bottle's sidecars, merged by
// time as far as they have been written, and then, with Follow, as they come. If each
// fails, reading ends with its error. A bottle without sidecars is of KindNotFound.
func (b *Bottle) Audit(ctx context.Context, opts AuditOptions, each func(AuditLine) error) error {
	list, err := b.needSidecars(ctx, "audit log")
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	a := auditor{bottle: b, since: opts.Since}
	var logs []*feed[AuditLine]
	for _, s := range list {
		logs = append(logs, a.open(ctx, s.Role, false, 0))
	}
	if err := merge(ctx, logs, auditTime, each); err != nil || !opts.Follow {
		return err
	}
	// What has been seen is not given again.
	var following []*feed[AuditLine]
	for i, l := range logs {
		following = append(following, a.open(ctx, list[i].Role, true, l.count))
	}
	return together(ctx, following, each)
}

func auditTime(l AuditLine) time.Time { return l.Time }

type auditor struct {
	bottle *Bottle
	since  time.Time
}

// open reads a log from its beginning; the first skip lines are left out.
func (a auditor) open(ctx context.Context, role string, follow bool, skip int) *feed[AuditLine] {
	l := newFeed[AuditLine]()
	r, w := io.Pipe()
	go func() {
		err := a.bottle.SidecarLogs(ctx, role, runtime.LogOptions{Follow: follow, Since: a.since, Stdout: w})
		_ = w.CloseWithError(err) // it never fails
	}()
	go func() {
		defer close(l.lines)
		l.err = readLines(r, func(line []byte) error {
			return l.give(ctx, parseAudit(role, line), skip)
		})
		_ = r.CloseWithError(l.err) // it never fails
	}()
	return l
}

// readLines calls f for each line, without its newline and cut to a bounded length.
func readLines(r io.Reader, f func([]byte) error) error {
	buf := bufio.NewReaderSize(r, maxAuditLine)
	for {
		line, err := buf.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			line = bytes.Clone(line)
			for errors.Is(err, bufio.ErrBufferFull) {
				_, err = buf.ReadSlice('\n')
			}
		}
		if line = bytes.TrimRight(line, "\r\n"); len(line) > 0 {
			if err := f(bytes.Clone(line)); err != nil {
				return err
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
	}
}

func parseAudit(role string, line []byte) AuditLine {
	a := AuditLine{Role: role, Text: line}
	if err := json.Unmarshal(line, &a.Record); err != nil || a.Decision == "" || a.Time.IsZero() {
		return AuditLine{Role: role, Text: line, Foreign: true}
	}
	return a
}

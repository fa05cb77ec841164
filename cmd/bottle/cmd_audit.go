package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/bottle-run/bottle/core"
	"github.com/bottle-run/bottle/sidecar/audit"
)

// auditOptions are those of bottle audit.
type auditOptions struct {
	Name   string
	Follow bool
	Denied bool
	Since  string
}

func newAuditCommand(f *factory, do func(auditOptions) error) *cli.Command {
	return &cli.Command{
		Name:      "audit",
		Usage:     "show what a bottle's sidecars have decided",
		ArgsUsage: "NAME",
		Description: "One line for each decision of the egress proxy, of the firewall and of the git gate,\n" +
			"oldest first: a request that the egress proxy passes on is decided by both. Each fetch and\n" +
			"push is one line of the git gate's. With --json the lines are those that the sidecars wrote.\n\n" +
			"Example: bottle audit dev --denied --since 1h",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "follow", Usage: "go on with what comes, until the bottle ends"},
			&cli.BoolFlag{Name: "denied", Usage: "show only what was denied"},
			&cli.StringFlag{Name: "since", Usage: "leave out what is older than `TIME`: 10m, or 2026-01-31T12:00:00Z"},
		},
		Action: func(c *cli.Context) error {
			if err := arity(c, 1, 1); err != nil {
				return err
			}
			if err := f.noCommand("audit"); err != nil {
				return err
			}
			opts := auditOptions{Name: c.Args().First(), Follow: c.Bool("follow"), Denied: c.Bool("denied"), Since: c.String("since")}
			if do != nil {
				return do(opts)
			}
			return f.audit(opts)
		},
	}
}

// sinceTime reads a time, or how long ago it was; empty is the zero time.
func sinceTime(s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if d, err := time.ParseDuration(s); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return t, usageErrorf("--since %s: it is how long ago, such as 10m, or a time such as 2026-01-31T12:00:00Z", s)
	}
	return t, nil
}

// audit is bottle audit.
func (f *factory) audit(opts auditOptions) error {
	since, err := sinceTime(opts.Since, time.Now())
	if err != nil {
		return err
	}
	return f.withBottle(opts.Name, func(sig *signals, b *core.Bottle) error {
		return b.Audit(sig.work, core.AuditOptions{Since: since, Follow: opts.Follow}, func(l core.AuditLine) error {
			if opts.Denied && (l.Foreign || l.Decision != audit.Deny) {
				return nil
			}
			return f.io.auditLine(l, f.globals.JSON)
		})
	})
}

// auditLine writes one decision.
func (s *streams) auditLine(l core.AuditLine, asJSON bool) error {
	var err error
	switch {
	case asJSON && !l.Foreign:
		_, err = fmt.Fprintf(s.Stdout, "%s\n", l.Text)
	case asJSON && json.Valid(l.Text):
		_, err = fmt.Fprintf(s.Stdout, `{"sidecar":%q,"foreign":%s}`+"\n", l.Role, l.Text)
	case asJSON:
		err = s.json(map[string]string{"sidecar": l.Role, "text": string(l.Text)})
	case l.Foreign:
		_, err = fmt.Fprintf(s.Stdout, "%-24s  %-12s  %s\n", "", l.Role, printable(string(l.Text)))
	default:
		_, err = fmt.Fprintln(s.Stdout, auditText(l.Record))
	}
	return err
}

// auditText words a decision in one line.
func auditText(r audit.Record) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s  %-12s  %-5s  %3s  %s", r.Time.UTC().Format("2006-01-02T15:04:05.000Z"), printable(r.Sidecar), printable(r.Decision), statusOf(r), requestText(r))
	fmt.Fprintf(&b, "  [%s]", printable(r.Rule))
	for _, ref := range r.Refs {
		b.WriteString("  " + refText(ref))
	}
	if r.Reason != "" {
		b.WriteString("  " + printable(r.Reason))
	}
	if r.BytesOut > 0 || r.BytesIn > 0 {
		fmt.Fprintf(&b, "  %d B out, %d B in", r.BytesOut, r.BytesIn)
	}
	if r.Duration > 0 {
		fmt.Fprintf(&b, "  %.1f ms", r.Duration)
	}
	return b.String()
}

// refText words what a push was to do with a reference: "OLD NEW NAME" in the record.
func refText(ref string) string {
	parts := strings.SplitN(ref, " ", 3)
	if len(parts) != 3 {
		return printable(ref)
	}
	short := func(id string) string {
		if strings.Trim(id, "0") == "" {
			return "none"
		}
		return id[:min(len(id), 12)]
	}
	return printable(parts[2] + " " + short(parts[0]) + " → " + short(parts[1]))
}

func statusOf(r audit.Record) string {
	if r.Status == 0 {
		return "-"
	}
	return fmt.Sprint(r.Status)
}

// requestText is the method and the URL, as far as they are known.
func requestText(r audit.Record) string {
	host := r.Host
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	if r.Port != 0 && !(r.Scheme == "https" && r.Port == 443) && !(r.Scheme == "http" && r.Port == 80) {
		host += fmt.Sprintf(":%d", r.Port)
	}
	if r.Scheme == "git" {
		// The upstream's host, and the repository as the gate calls it.
		return printable(strings.TrimSpace(r.Method + " " + strings.TrimPrefix(r.Path, "/") + " " + strings.TrimSuffix(host, ":443")))
	}
	if r.Scheme != "" {
		host = r.Scheme + "://" + host
	}
	return printable(strings.TrimSpace(r.Method + " " + host + r.Path))
}

package main

import (
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/bottle-run/bottle/core"
)

// logsOptions are those of bottle logs.
type logsOptions struct {
	Name       string
	Roles      []string
	Follow     bool
	Since      string
	Timestamps bool
	Raw        bool
}

func newLogsCommand(f *factory, do func(logsOptions) error) *cli.Command {
	return &cli.Command{
		Name:      "logs",
		Usage:     "show what a bottle's agent and sidecars wrote",
		ArgsUsage: "NAME [ROLE...]",
		Description: "ROLE is agent, firewall, egress-proxy, git-gate or supervise; without one the logs of all are merged\n" +
			"by time, each line after its role. The agent's log is what was written to its container's own output\n" +
			"(/proc/1/fd/1); what a command of run, exec or attach writes goes to your terminal, and is kept\n" +
			"nowhere. What could control a terminal is escaped, unless --raw says otherwise.\n\n" +
			"Example: bottle logs dev\n" +
			"Example: bottle logs dev firewall --follow --since 10m",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "follow", Usage: "go on with what comes, until the bottle ends"},
			&cli.StringFlag{Name: "since", Usage: "leave out what is older than `TIME`: 10m, or 2026-01-31T12:00:00Z"},
			&cli.BoolFlag{Name: "timestamps", Usage: "write when each line was written before it"},
			&cli.BoolFlag{Name: "raw", Usage: "write lines as they were written; not to a terminal"},
		},
		Action: func(c *cli.Context) error {
			if err := arity(c, 1, -1); err != nil {
				return err
			}
			if err := f.noCommand("logs"); err != nil {
				return err
			}
			opts := logsOptions{
				Name: c.Args().First(), Roles: c.Args().Tail(), Follow: c.Bool("follow"), Since: c.String("since"),
				Timestamps: c.Bool("timestamps"), Raw: c.Bool("raw"),
			}
			if do != nil {
				return do(opts)
			}
			return f.logs(opts)
		},
	}
}

// logs is bottle logs.
func (f *factory) logs(opts logsOptions) error {
	since, err := sinceTime(opts.Since, time.Now())
	if err != nil {
		return err
	}
	if opts.Raw && f.io.Display {
		return usageErrorf("--raw writes what the agent wrote as it is, which can take a terminal over: write it to a file or a pipe")
	}
	return f.withBottle(opts.Name, func(sig *signals, b *core.Bottle) error {
		return b.ReadLogs(sig.work, core.LogOptions{Roles: opts.Roles, Since: since, Follow: opts.Follow}, func(l core.LogLine) error {
			return f.io.logLine(l, opts, f.globals.JSON)
		})
	})
}

// roleColours are the colours of roles on a terminal.
var roleColours = map[string]int{core.RoleAgent: 32, core.RoleFirewall: 33, core.RoleEgressProxy: 36, core.RoleGitGate: 35, core.RoleSupervise: 34}

// logLine writes a line of a log.
func (s *streams) logLine(l core.LogLine, opts logsOptions, asJSON bool) error {
	if asJSON {
		line := map[string]any{"role": l.Role, "stream": "stdout", "text": string(l.Text)}
		if l.Stderr {
			line["stream"] = "stderr"
		}
		if !l.Time.IsZero() {
			line["time"] = l.Time.UTC()
		}
		if l.Cut {
			line["cut"] = true
		}
		return s.json(line)
	}
	text := string(l.Text)
	if !opts.Raw {
		text = core.Escape(text)
	}
	if l.Cut {
		text += "…"
	}
	if len(opts.Roles) != 1 {
		role := fmt.Sprintf("%-12s | ", l.Role)
		if s.Colours {
			role = fmt.Sprintf("\x1b[%dm%s\x1b[0m", roleColours[l.Role], role)
		}
		text = role + text
	}
	if opts.Timestamps {
		text = l.Time.UTC().Format("2006-01-02T15:04:05.000000Z") + "  " + text
	}
	_, err := fmt.Fprintln(s.Stdout, text)
	return err
}

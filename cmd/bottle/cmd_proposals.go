package main

import (
	"fmt"
	"io"
	"os"
	"os/user"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/hashicorp/go-multierror"
	"github.com/urfave/cli/v2"

	"github.com/bottle-run/bottle/core"
	"github.com/bottle-run/bottle/core/supervise"
	"github.com/bottle-run/bottle/sidecar/supervise/change"
	"github.com/bottle-run/bottle/sidecar/supervise/effect"
	"github.com/bottle-run/bottle/sidecar/supervise/ledger"
	"github.com/bottle-run/bottle/sidecar/supervise/operator"
)

// proposalsOptions are those of bottle proposals.
type proposalsOptions struct {
	Action string
	// Names are bottles; empty for list means all.
	Names  []string
	ID     string
	Reason string
	// Edit is a file with the change to make instead, "-" for standard input.
	Edit string
	// Revision and PolicyRevision are those that were shown; empty: those of now.
	Revision, PolicyRevision string
	TakeOver                 bool
	// Save writes it to the manifest, too.
	Save bool
}

func newProposalsCommand(f *factory, do func(proposalsOptions) error) *cli.Command {
	action := func(name string, least, most int) cli.ActionFunc {
		return func(c *cli.Context) error {
			if err := arity(c, least, most); err != nil {
				return err
			}
			if err := f.noCommand("proposals " + name); err != nil {
				return err
			}
			opts := proposalsOptions{
				Action: name, Names: c.Args().Slice(), Reason: c.String("reason"), Edit: c.String("edit"),
				Revision: c.String("revision"), PolicyRevision: c.String("policy-revision"), TakeOver: c.Bool("take-over"), Save: c.Bool("save"),
			}
			if name != "list" {
				opts.Names, opts.ID = opts.Names[:1], c.Args().Get(1)
			}
			if do != nil {
				return do(opts)
			}
			return f.proposals(opts)
		}
	}
	reason := &cli.StringFlag{Name: "reason", Usage: "`TEXT` that the agent is told"}
	shown := []cli.Flag{
		&cli.StringFlag{Name: "revision", Usage: "fail unless the proposal has the `REVISION` that show printed"},
		&cli.StringFlag{Name: "policy-revision", Usage: "fail unless the policy in force has the `REVISION` that show printed"},
	}
	return &cli.Command{
		Name:        "proposals",
		Usage:       "show and answer what agents propose to change",
		Description: "Example: bottle proposals list",
		Action:      noCommandNamed("proposals", "", "list", "show", "approve", "deny"),
		Subcommands: []*cli.Command{
			{
				Name: "list", Usage: "list the proposals of some or all bottles", ArgsUsage: "[NAME...]",
				Description: "Example: bottle proposals list dev --json",
				Action:      action("list", 0, -1),
			},
			{
				Name: "show", Usage: "print a proposal: what would become possible, and the revisions that an answer may name", ArgsUsage: "NAME ID",
				Description: "Example: bottle proposals show dev p1",
				Action:      action("show", 2, 2),
			},
			{
				Name: "approve", Usage: "bring a proposal into force, until the bottle ends or, with --save, for later bottles too", ArgsUsage: "NAME ID",
				Description: "The exit status is 109 if the proposal or the policy is not as it was shown.\n" +
					"A token that the bottle does not have yet is taken from your environment.\n\n" +
					"Example: bottle proposals approve dev p1",
				Flags: append([]cli.Flag{
					reason,
					&cli.StringFlag{Name: "edit", Usage: "make the change in `FILE` (- for standard input) instead: JSON, as show --json prints it under proposal.change"},
					&cli.BoolFlag{Name: "save", Usage: "write it to the manifest as well, from which later bottles are launched; a Dockerfile to the Dockerfile"},
					&cli.BoolFlag{Name: "take-over", Usage: "go on with what somebody else has begun to approve and not finished"},
				}, shown...),
				Action: action("approve", 2, 2),
			},
			{
				Name: "deny", Usage: "answer no to a proposal", ArgsUsage: "NAME ID",
				Description: "Example: bottle proposals deny dev p1 --reason \"not needed\"",
				Flags:       append([]cli.Flag{reason}, shown[0]),
				Action:      action("deny", 2, 2),
			},
		},
	}
}

// proposals is bottle proposals.
func (f *factory) proposals(opts proposalsOptions) error {
	if opts.Action == "list" {
		return f.listProposals(opts.Names)
	}
	var edited *change.Change
	if opts.Edit != "" {
		c, err := f.readChange(opts.Edit)
		if err != nil {
			return err
		}
		edited = &c
	}
	host, err := f.host()
	if err != nil {
		return err
	}
	observe, done := f.observer()
	defer done()
	return f.withObserved(opts.Names[0], observe, func(sig *signals, b *core.Bottle) error {
		asked := supervise.Of(b, host, f.globals.File)
		view, err := supervise.Show(sig.work, asked, opts.ID)
		if err != nil {
			return err
		}
		if opts.Action == "show" {
			return f.showProposal(view)
		}
		if err := opts.stale(view); err != nil {
			return err
		}
		if opts.Action == "deny" {
			p, err := supervise.Deny(sig.work, asked, view, operatorName(), opts.Reason)
			if err == nil && f.globals.JSON {
				err = f.io.json(p)
			}
			return err
		}
		approval := ledger.Approval{By: operatorName(), Reason: opts.Reason, Edited: edited, TakeOver: opts.TakeOver}
		if opts.Save {
			approval.Scope = ledger.ForManifest
		}
		begun, err := supervise.Approve(sig.work, asked, view, approval)
		if err == nil && f.globals.JSON {
			err = f.io.json(begun.Proposal)
		}
		return err
	})
}

// stale compares a proposal with what the operator was shown before.
func (o proposalsOptions) stale(v operator.View) error {
	if o.Revision != "" && o.Revision != v.Proposal.Revision {
		return fmt.Errorf("%w: proposal %s has the revision %s", supervise.ErrStale, o.ID, v.Proposal.Revision)
	}
	if o.PolicyRevision != "" && o.PolicyRevision != v.PolicyRevision {
		return fmt.Errorf("%w: the policy in force has the revision %s", supervise.ErrStale, v.PolicyRevision)
	}
	return nil
}

// operatorName says who decides, for the audit log.
func operatorName() string {
	name, host := "unknown", "unknown"
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	if h, err := os.Hostname(); err == nil {
		host = h
	}
	return name + "@" + host
}

// readChange reads a change from a file, or standard input for "-".
func (f *factory) readChange(file string) (change.Change, error) {
	name, data, err := f.readInput("change", file, change.MaxBytes+1)
	if err != nil {
		return change.Change{}, err
	}
	c, err := change.Decode(data)
	if err != nil {
		return c, core.Errorf(core.KindInput, "%s: %w", name, err)
	}
	return c, nil
}

// listed is a bottle's proposals, for JSON.
type listed struct {
	Bottle string `json:"bottle"`
	operator.List
}

func (f *factory) listProposals(names []string) error {
	host, err := f.host()
	if err != nil {
		return err
	}
	sig, rt, release, err := f.engine()
	if err != nil {
		return err
	}
	defer release()
	all, err := core.List(sig.work, rt)
	if err != nil {
		return interruptedOr(sig.work, err)
	}
	if len(names) == 0 {
		for _, s := range all {
			if slices.Contains(s.Sidecars, core.RoleSupervise) {
				names = append(names, s.Name)
			}
		}
	}
	var lists []listed
	var errs *multierror.Error
	for _, name := range names {
		b, err := core.OpenMatching(sig.work, rt, name, nil)
		if err == nil {
			var l operator.List
			if l, err = supervise.List(sig.work, supervise.Of(b, host, f.globals.File)); err == nil {
				lists = append(lists, listed{b.Name, l})
			}
		}
		if err != nil {
			errs = multierror.Append(errs, err)
		}
	}
	if err := f.writeProposals(lists); err != nil {
		return err
	}
	if err := errs.ErrorOrNil(); err != nil {
		return interruptedOr(sig.work, err)
	}
	return nil
}

func (f *factory) writeProposals(lists []listed) error {
	if f.globals.JSON {
		for _, l := range lists {
			if err := f.io.json(l); err != nil {
				return err
			}
		}
		return nil
	}
	w := tabwriter.NewWriter(f.io.Stdout, 0, 4, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "BOTTLE\tID\tSTATE\tAGE\tPROPOSAL\tREASON") // Flush tells
	for _, l := range lists {
		for _, p := range l.Proposals {
			age := "?"
			if made, err := time.Parse(time.RFC3339, p.Made); err == nil {
				age = time.Since(made).Round(time.Second).String()
			}
			_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", printable(l.Bottle), p.ID, p.State, age, p.Title, p.Reason)
		}
	}
	return w.Flush()
}

// showProposal prints what the operator decides by. The texts of a view are escaped.
func (f *factory) showProposal(v operator.View) error {
	if f.globals.JSON {
		return f.io.json(v)
	}
	var b strings.Builder
	p := v.Proposal
	fmt.Fprintf(&b, "proposal         %s, %s, made %s\n", p.ID, p.State, p.Made.Local().Format(time.DateTime))
	fmt.Fprintf(&b, "asks for         %s\n", v.Title)
	fmt.Fprintf(&b, "because          %s\n", strings.ReplaceAll(strings.TrimRight(v.Reason, "\n"), "\n", "\n                 "))
	if d := p.Decision; d != nil {
		fmt.Fprintf(&b, "answered by      %s\n", printable(d.By))
	}
	effectText(&b, "newly permitted  ", v.Effect.Permits)
	effectText(&b, "not any more     ", v.Effect.Revokes)
	if v.Conflict != "" {
		fmt.Fprintf(&b, "cannot be made   %s\n", v.Conflict)
	}
	fmt.Fprintf(&b, "revision         %s\npolicy revision  %s\n", p.Revision, v.PolicyRevision)
	if v.Diff != "" {
		fmt.Fprintf(&b, "\n%s", v.Diff)
	}
	_, err := io.WriteString(f.io.Stdout, b.String())
	return err
}

func effectText(b *strings.Builder, head string, items []effect.Item) {
	for _, it := range items {
		fmt.Fprintf(b, "%s%s\n", head, it.Text)
		head = strings.Repeat(" ", len(head))
		for _, w := range it.Warnings {
			fmt.Fprintf(b, "%s! %s\n", head, w)
		}
	}
}

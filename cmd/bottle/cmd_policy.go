package main

import (
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/bottle-run/bottle/core"
)

// maxPolicy bounds the file of a policy, in bytes: a little more than a manifest may have,
// so that who reads it says so.
const maxPolicy = 1<<20 + 1

// policyOptions are those of bottle policy.
type policyOptions struct {
	Action      string
	Name        string
	File        string // of set
	Method, URL string // of test
}

// deniedError is a request that the policy denies.
type deniedError struct{ text string }

func (e deniedError) Error() string { return e.text }

func newPolicyCommand(f *factory, do func(policyOptions) error) *cli.Command {
	action := func(name string, args int) cli.ActionFunc {
		return func(c *cli.Context) error {
			if err := arity(c, args, args); err != nil {
				return err
			}
			if err := f.noCommand("policy " + name); err != nil {
				return err
			}
			opts := policyOptions{Action: name, Name: c.Args().First()}
			switch name {
			case "set":
				opts.File = c.Args().Get(1)
			case "test":
				opts.Method, opts.URL = c.Args().Get(1), c.Args().Get(2)
			}
			if do != nil {
				return do(opts)
			}
			return f.policy(opts)
		}
	}
	return &cli.Command{
		Name:        "policy",
		Usage:       "show, change or try what may leave a bottle",
		Description: "Example: bottle policy show dev",
		Action:      noCommandNamed("policy", "NAME", "show", "set", "test"),
		Subcommands: []*cli.Command{
			{
				Name: "show", Usage: "print what is in force, in the form that set reads", ArgsUsage: "NAME",
				Description: "With --json the configurations of the sidecars are printed whole.\n\nExample: bottle policy show dev",
				Action:      action("show", 1),
			},
			{
				Name: "set", Usage: "put another policy into force while the bottle runs", ArgsUsage: "NAME FILE|-",
				Description: "FILE, or standard input, holds the sections egress and git of a bottle, or one of them, or\n" +
					"a manifest of which those of the agent's bottle are taken. Of git, what may be pushed and\n" +
					"fetched changes; repositories and their credentials stay. New tokens are taken from your environment.\n" +
					"If anything is wrong the old policy stays in force.\n\n" +
					"Example: bottle policy set dev bottle.yaml",
				Action: action("set", 2),
			},
			{
				Name: "test", Usage: "say which rule decides about a request, without sending it", ArgsUsage: "NAME METHOD URL",
				Description: "The exit status is 0 if it would be allowed and 121 if it would be denied. The methods\n" +
					"FETCH and PUSH are git's: the URL is a repository's, for PUSH with #refs/heads/NAME after it.\n\n" +
					"Example: bottle policy test dev GET https://pypi.org/simple/",
				Action: action("test", 3),
			},
		},
	}
}

// policy is bottle policy.
func (f *factory) policy(opts policyOptions) error {
	switch opts.Action {
	case "set":
		return f.setPolicy(opts)
	case "test":
		return f.testPolicy(opts)
	default:
		return f.showPolicy(opts)
	}
}

func (f *factory) showPolicy(opts policyOptions) error {
	return f.withBottle(opts.Name, func(sig *signals, b *core.Bottle) error {
		p, err := b.Policy(sig.work)
		if err != nil {
			return err
		}
		if f.globals.JSON {
			return f.io.json(p)
		}
		text, err := p.Section()
		if err == nil {
			_, err = f.io.Stdout.Write(text)
		}
		return err
	})
}

func (f *factory) setPolicy(opts policyOptions) error {
	host, err := f.host()
	if err != nil {
		return err
	}
	name, data, err := f.readInput("policy", opts.File, maxPolicy)
	if err != nil {
		return err
	}
	return f.withBottle(opts.Name, func(sig *signals, b *core.Bottle) error {
		return b.SetPolicy(sig.work, name, data, host)
	})
}

func (f *factory) testPolicy(opts policyOptions) error {
	if opts.Method == "" || strings.Trim(strings.ToUpper(opts.Method), "ABCDEFGHIJKLMNOPQRSTUVWXYZ-") != "" {
		return usageErrorf("%q is no HTTP method: usage: bottle policy test NAME METHOD URL", opts.Method)
	}
	return f.withBottle(opts.Name, func(sig *signals, b *core.Bottle) error {
		v, err := b.TestPolicy(sig.work, opts.Method, opts.URL)
		if err != nil {
			return err
		}
		if f.globals.JSON {
			err = f.io.json(v)
		} else {
			_, err = fmt.Fprintln(f.io.Stdout, verdictText(v))
		}
		if err != nil {
			return err
		}
		if !v.Allowed() {
			return deniedError{"the request would be denied"}
		}
		return nil
	})
}

func verdictText(v core.Verdict) string {
	text := fmt.Sprintf("%s by %s of the %s", printable(v.Decision), printable(v.Rule), strings.ReplaceAll(v.Sidecar, "-", " "))
	if v.Inject != "" {
		text += ", with " + printable(v.Inject)
	}
	if v.Reason != "" {
		text += ": " + printable(v.Reason)
	}
	return text
}

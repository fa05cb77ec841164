package main

import (
	"errors"
	"fmt"

	"github.com/bottle-run/bottle/sidecar/config"
	"github.com/bottle-run/bottle/sidecar/control"
	"github.com/bottle-run/bottle/sidecar/secrets"
)

// check says whether a configuration file is valid, without starting anything.
func check(c *call) error {
	fw := c.flags.String("firewall", "", "configuration of a firewall")
	ep := c.flags.String("egress-proxy", "", "configuration of an egress proxy")
	if err := c.parse(0); err != nil {
		return err
	}
	switch {
	case *fw != "" && *ep == "":
		_, err := config.ReadFirewall(*fw)
		return err
	case *ep != "" && *fw == "":
		_, err := config.ReadEgressProxy(*ep)
		return err
	}
	return &exitError{exitUsage, errors.New("one of --firewall and --egress-proxy is needed")}
}

func healthcheck(c *call) error {
	if err := c.parse(0); err != nil {
		return err
	}
	if err := control.NewClient(*c.dir).Health(); err != nil {
		return &exitError{exitNotReady, err}
	}
	return nil
}

func reload(c *call) error {
	if err := c.parse(0); err != nil {
		return err
	}
	return control.NewClient(*c.dir).Reload()
}

// putSecrets writes what it reads to the secrets file and has a running sidecar take
// them up.
func putSecrets(c *call) error {
	if err := c.parse(0); err != nil {
		return err
	}
	if _, err := secrets.Put(control.SecretsPath(*c.dir), c.stdin); err != nil {
		return err
	}
	if err := control.NewClient(*c.dir).Reload(); err != nil && !errors.Is(err, control.ErrNotRunning) {
		return fmt.Errorf("the secrets were put, but not taken up: %w", err)
	}
	return nil
}

func showPolicy(c *call) error {
	if err := c.parse(0); err != nil {
		return err
	}
	policy, err := control.NewClient(*c.dir).Policy()
	if err != nil {
		return err
	}
	_, err = c.stdout.Write(policy)
	return err
}

func testPolicy(c *call) error {
	if err := c.parse(2); err != nil {
		return err
	}
	verdict, allowed, err := control.NewClient(*c.dir).Test(c.args[0], c.args[1])
	if err != nil {
		return err
	}
	if _, err := c.stdout.Write(verdict); err != nil {
		return err
	}
	if !allowed {
		return &exitError{exitDenied, errors.New("the request would be denied")}
	}
	return nil
}

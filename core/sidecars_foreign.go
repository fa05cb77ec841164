package core

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/bottle-run/bottle/core/sidecarimage"
	"github.com/bottle-run/bottle/runtime"
)

// startForeignFirewall runs a firewall that does not speak our protocol and waits until it
// is ready. What it needs are files of its container, its authority's key among them: they
// are gone with the container.
func (l *launch) startForeignFirewall(ctx context.Context) error {
	foreign, err := l.egress.policy.Pipelock(l.facts(), l.pair.Agent.CertPEM, l.pair.Agent.KeyPEM)
	if err != nil {
		return err
	}
	spec := l.sidecarSpec(RoleFirewall, l.network.ID, l.egressNetwork.ID)
	spec.Command, spec.User = foreign.Command, fmt.Sprintf("%d:%d", sidecarimage.UID, sidecarimage.UID)
	for _, f := range foreign.Files {
		spec.Files = append(spec.Files, runtime.File{Path: f.Path, Mode: f.Mode, UID: sidecarimage.UID, GID: sidecarimage.UID, Content: f.Content})
	}
	if l.firewall, err = l.runSidecar(ctx, stepFirewall, spec); err != nil {
		return err
	}
	if err := l.probe(ctx, "http://"+RoleFirewall+":"+proxyPort+foreign.Health); err != nil {
		return l.notReady(ctx, RoleFirewall, l.firewall.ID, err)
	}
	return nil
}

// errEnded is a sidecar that ended while it was waited for.
var errEnded = errors.New("it has ended")

// probe returns when the firewall answers at a URL. The image need not hold a program that
// could ask: a container of our own does, from the agent's side of the firewall.
func (l *launch) probe(ctx context.Context, url string) (err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		if _, err := l.rt.Wait(ctx, l.firewall.ID); err == nil {
			cancel(errEnded)
		}
	}()
	spec := l.sidecarSpec(RoleProbe, l.network.ID)
	spec.Command, spec.User = []string{"healthcheck", "--url", url}, fmt.Sprintf("%d:%d", sidecarimage.UID, sidecarimage.UID)
	c, err := l.rt.Run(ctx, spec)
	if err == nil {
		id := c.ID
		remove := func(ctx context.Context) error { return l.rt.RemoveContainer(ctx, id) }
		l.undo.Push("remove probe container", spec.Name, remove)
		err = l.probed(ctx, id)
		// Whether or not this works, the undo is there.
		err = errors.Join(err, remove(context.WithoutCancel(ctx)))
	}
	if err != nil && errors.Is(context.Cause(ctx), errEnded) {
		return errEnded
	}
	return err
}

// probed waits for the end of the probe.
func (l *launch) probed(ctx context.Context, probe string) error {
	status, err := l.rt.Wait(ctx, probe)
	if err != nil || status.Code == 0 {
		return err
	}
	var said bytes.Buffer
	if err := l.rt.Logs(ctx, probe, runtime.LogOptions{Stdout: &said, Stderr: &said}); err != nil {
		return err
	}
	return errors.New(escaped(strings.TrimSpace(said.String())))
}

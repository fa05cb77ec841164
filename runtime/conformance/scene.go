package conformance

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/bottle-run/bottle/runtime"
	"github.com/bottle-run/bottle/runtime/conformance/probe"
	"github.com/bottle-run/bottle/runtime/conformance/world"
)

// scene is what a test of sealing looks at: a container that is sealed, and one
// that is not, which is the control.
type scene struct {
	inner, outer runtime.Network
	sealed, open *Box
}

// scene sets the scene; both containers have the capabilities.
func (e *Env) scene(ctx context.Context, capabilities ...string) (*scene, error) {
	s := &scene{}
	errs := make([]error, 2)
	var wg sync.WaitGroup
	box := func(internal bool, n *runtime.Network, b **Box) error {
		var err error
		if *n, err = e.Network(ctx, internal); err != nil {
			return err
		}
		*b, err = e.BoxOf(ctx, runtime.ContainerSpec{Capabilities: capabilities, Networks: Attach(*n)})
		return err
	}
	wg.Go(func() { errs[0] = box(true, &s.inner, &s.sealed) })
	wg.Go(func() { errs[1] = box(false, &s.outer, &s.open) })
	wg.Wait()
	return s, first(errs...)
}

// siege is a scene with the services of this host that the sealed container must not
// reach.
type siege struct {
	*scene
	host *hostListener
	// addrs are the host's, those on the scene's networks too.
	addrs []netip.Addr
	// link is the sealed container's interface.
	link string
}

// siege sets the scene, and then the host's services: by then all addresses are there.
func (e *Env) siege(ctx context.Context, capabilities ...string) (*siege, error) {
	s, err := e.scene(ctx, capabilities...)
	if err != nil {
		return nil, err
	}
	host, err := e.hostListener()
	if err != nil {
		return nil, err
	}
	addrs, err := hostAddresses()
	if err != nil {
		return nil, err
	}
	link, err := s.sealed.link(ctx, s.inner)
	return &siege{scene: s, host: host, addrs: addrs, link: link}, err
}

// settle waits until the IPv6 addresses of this host and of the sealed container may be used:
// before that nothing passes by them, however open the way is.
func (s *siege) settle(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := probe.Settle(ctx); err != nil {
		return failed("this host's IPv6 addresses stay tentative: %w", err)
	}
	_, err := s.sealed.Do(ctx, "settle")
	return err
}

// quiet is an error if the host's services received something with a token.
func (s *siege) quiet(token string) error {
	if from := s.host.received(token); len(from) > 0 {
		return failed("nothing should reach this host's services, but something came from %s", from[0])
	}
	return nil
}

// link is the name of the interface that a container has on a network.
func (b *Box) link(ctx context.Context, n runtime.Network) (string, error) {
	var links []probe.Interface
	if err := b.JSON(ctx, &links, "ifaces"); err != nil {
		return "", err
	}
	for _, l := range links {
		for _, p := range l.Addrs {
			if p.Addr().String() == b.Address(n) {
				return l.Name, nil
			}
		}
	}
	return "", failed("container %s has no interface with its address %s: %+v", b.Name, b.Address(n), links)
}

// unanswered tries targets from a container and fails if anything answers, with
// a refusal even. It returns the token that was sent.
func (b *Box) unanswered(ctx context.Context, targets ...string) (string, error) {
	token := b.env.Token()
	answers, err := b.dial(ctx, unreachTimeout, token, targets...)
	if err != nil {
		return token, err
	}
	var bad []string
	for _, a := range answers {
		if a.Answered() {
			what := "answered"
			if !a.OK {
				what = "refused, which is an answer"
			}
			bad = append(bad, a.Target+" "+what)
		}
	}
	if len(bad) > 0 {
		return token, failed("from container %s nothing should answer, but: %s", b.Name, strings.Join(bad, "; "))
	}
	return token, nil
}

// silent fails if anything of the query reached the world.
func (e *Env) silent(ctx context.Context, q world.Query) error {
	hits, err := e.World.Hits(ctx, q)
	if err != nil {
		return err
	}
	if len(hits) > 0 {
		return failed("nothing should reach the outside, but %d packets did, the first: %s", len(hits), hits[0])
	}
	return nil
}

// heard fails if nothing of the query reached the world.
func (e *Env) heard(ctx context.Context, q world.Query, what string) error {
	hits, err := e.World.Hits(ctx, q)
	if err != nil {
		return err
	}
	return check(len(hits) > 0, "control: %s should reach the outside, but nothing arrived", what)
}

// targets names an address by protocols.
func targets(at netip.AddrPort, protocols ...string) []string {
	var list []string
	for _, p := range protocols {
		if p == "icmp" {
			list = append(list, "icmp "+at.Addr().String())
		} else {
			list = append(list, p+" "+at.String())
		}
	}
	return list
}

// proveSealed tries a place of the world from the sealed container and, as the
// control, from the other one. prepare is called for each with the address, to
// do what an agent might do first.
func (s *scene) proveSealed(ctx context.Context, e *Env, place world.Place, protocols []string, prepare func(context.Context, *Box, netip.Addr) error) error {
	at, err := e.World.Listen(ctx, place)
	if err != nil {
		return err
	}
	all := targets(at, protocols...)
	if prepare != nil {
		if err := prepare(ctx, s.sealed, at.Addr()); err != nil {
			return err
		}
	}
	token, err := s.sealed.unanswered(ctx, all...)
	if err != nil {
		return err
	}
	// The metadata address is everybody's: there, the port or the token tells.
	query := world.Query{Addr: at.Addr(), Token: token}
	if place == world.Metadata {
		query.Port = at.Port()
	}
	if err := e.silent(ctx, query); err != nil {
		return err
	}
	if err := s.control(ctx, e, at, protocols); err != nil {
		return err
	}
	// Had anything been on its way still, it would have arrived before the control.
	return e.silent(ctx, world.Query{Token: token})
}

// control proves that the listener at an address lives and that the probe works:
// the container with a way out reaches it. Where this engine's way out does not
// carry IPv6 or ICMP, this host does, and the probe proves itself on a neighbour.
func (s *scene) control(ctx context.Context, e *Env, at netip.AddrPort, protocols []string) error {
	if at.Addr().Is6() {
		for _, p := range protocols {
			if p == "icmp" {
				continue
			}
			if err := echoed(p, at.String(), "control"); err != nil {
				return failed("control: this host should reach %s %s: %w", p, at, err)
			}
		}
		return e.heard(ctx, world.Query{Addr: at.Addr()}, "this host")
	}
	carried := slices.DeleteFunc(slices.Clone(protocols), func(p string) bool { return p == "icmp" })
	if len(carried) > 0 {
		if err := s.open.reaches(ctx, targets(at, carried...)...); err != nil {
			return fmt.Errorf("control: %w", err)
		}
		if err := e.heard(ctx, world.Query{Addr: at.Addr(), Port: at.Port()}, "a container with a way out"); err != nil {
			return err
		}
	}
	if !slices.Contains(protocols, "icmp") {
		return nil
	}
	token := e.Token()
	answers, err := s.open.dial(ctx, "1s", token, "icmp "+at.Addr().String())
	if err != nil {
		return err
	}
	if answers[0].OK {
		return e.heard(ctx, world.Query{Token: token}, "an echo request of a container with a way out")
	}
	e.Logf("this engine's way out carries no ICMP (%s): the control is a neighbour", answers[0].Err)
	neighbour, err := e.Box(ctx, s.inner)
	if err != nil {
		return err
	}
	if err := s.sealed.reaches(ctx, "icmp "+neighbour.Address(s.inner)); err != nil {
		return fmt.Errorf("control: %w", err)
	}
	return nil
}

// addressesIn lists the addresses of a subnet, but for some.
func addressesIn(subnet netip.Prefix, except ...string) []netip.Addr {
	var list []netip.Addr
	for a := subnet.Masked().Addr(); subnet.Contains(a) && len(list) < 256; a = a.Next() {
		if !slices.Contains(except, a.String()) {
			list = append(list, a)
		}
	}
	return list
}

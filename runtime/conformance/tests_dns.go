package conformance

import (
	"context"

	"github.com/bottle-run/bottle/runtime"
	"github.com/bottle-run/bottle/runtime/conformance/probe"
	"github.com/bottle-run/bottle/runtime/conformance/world"
)

var dnsTests = []Test{
	{
		Name: "sealing/dns-of-the-engine", Kernel: true, World: true,
		Doc: "From an internal network no query reaches a resolver outside through the engine's own: A, AAAA and TXT, by UDP and TCP, and as a program resolves names.",
		Run: dnsThroughEngine,
	},
	{
		Name: "sealing/dns-of-outside-servers", Kernel: true, World: true,
		Doc: "From an internal network no name server outside answers or is asked: neither one of the world, nor one at an address of this host.",
		Run: dnsDirect,
	},
	{
		Name: "sealing/dns-in-disguise", Kernel: true, World: true,
		Doc: "No form of name carries a query out of an internal network: below a container's name, a single label, with a dot at the end, one that the search list completes, a long one that carries data.",
		Run: dnsInDisguise,
	},
	{
		Name: "sealing/dns-of-a-container-on-both-networks", Kernel: true, World: true,
		Doc: "A neighbour that is also on a network with a way out changes nothing: the sealed container's queries do not leave.",
		Run: dnsBeside,
	},
}

// dnsControl proves that queries are recorded: this host's own is, and that of
// the container with a way out.
func (s *scene) dnsControl(ctx context.Context, e *Env) error {
	token := e.Token()
	var results []probe.Resolved
	if err := s.open.JSON(ctx, &results, "dns", reachTimeout, token+"."+world.Zone, e.World.Layout().DNS.String()); err != nil {
		return err
	}
	answered := false
	for _, r := range results {
		answered = answered || r.RCode == 0 && len(r.Addrs) > 0
	}
	if !answered {
		return failed("control: the world's name server should answer a container with a way out, got %+v", results)
	}
	return e.heard(ctx, world.Query{Token: token}, "a DNS query of a container with a way out")
}

// outsideName fails if a result holds an answer from outside.
func outsideName(results []probe.Resolved) error {
	for _, r := range results {
		if len(r.Addrs) > 0 {
			return failed("expected no answer for %q from %s, got %v", r.Name, r.Server, r.Addrs)
		}
	}
	return nil
}

func dnsThroughEngine(ctx context.Context, e *Env) error {
	s, err := e.scene(ctx)
	if err != nil {
		return err
	}
	token := e.Token()
	var results []probe.Resolved
	if err := s.sealed.JSON(ctx, &results, "resolve", "1s", token+"-a."+world.Zone); err != nil {
		return err
	}
	if err := outsideName(results); err != nil {
		return err
	}
	if err := s.sealed.JSON(ctx, &results, "dns", "1s", token+"-b."+world.Zone); err != nil {
		return err
	}
	if err := outsideName(results); err != nil {
		return err
	}
	if err := e.silent(ctx, world.Query{Token: token}); err != nil {
		return err
	}
	if err := s.dnsControl(ctx, e); err != nil {
		return err
	}
	return e.silent(ctx, world.Query{Token: token})
}

func dnsDirect(ctx context.Context, e *Env) error {
	s, err := e.scene(ctx)
	if err != nil {
		return err
	}
	servers := []string{e.World.Layout().DNS.String(), e.World.Layout().Metadata.String()}
	if addrs := addressesIn(s.inner.Subnet, s.sealed.Address(s.inner)); len(addrs) > 1 {
		servers = append(servers, addrs[1].String()) // where a gateway would be
	}
	if s.inner.Gateway.IsValid() {
		servers = append(servers, s.inner.Gateway.String())
	}
	hosts, err := hostAddresses()
	if err != nil {
		return err
	}
	for _, a := range hosts {
		if a.Zone() == "" {
			servers = append(servers, a.String())
		}
	}
	token := e.Token()
	var results []probe.Resolved
	if err := s.sealed.JSON(ctx, &results, append([]string{"dns", "1s", token + "." + world.Zone}, servers...)...); err != nil {
		return err
	}
	for _, r := range results {
		if r.RCode >= 0 {
			return failed("expected no name server to answer, but %s did, with code %d", r.Server, r.RCode)
		}
	}
	if err := e.silent(ctx, world.Query{Token: token}); err != nil {
		return err
	}
	return first(s.dnsControl(ctx, e), e.silent(ctx, world.Query{Token: token}))
}

func dnsInDisguise(ctx context.Context, e *Env) error {
	s, err := e.scene(ctx)
	if err != nil {
		return err
	}
	token := e.Token()
	long := token + "-" + random(20)
	names := []string{
		token + "." + s.sealed.Name,           // below a container's name
		s.sealed.Name + "." + token + ".test", // a container's name, completed
		token,                                 // a single label
		token + "." + world.Zone + ".",        // rooted
		long + "." + random(25) + "." + token + "." + world.Zone, // data
		"localhost." + token + ".test", "gateway." + token + ".test",
		token + ".localdomain", token + ".internal", token + ".local",
	}
	var results []probe.Resolved
	if err := s.sealed.JSON(ctx, &results, append([]string{"resolve", "1s"}, names...)...); err != nil {
		return err
	}
	if err := outsideName(results); err != nil {
		return err
	}
	for _, name := range names[:4] {
		if err := s.sealed.JSON(ctx, &results, "dns", "700ms", name); err != nil {
			return err
		}
		if err := outsideName(results); err != nil {
			return err
		}
	}
	return first(s.dnsControl(ctx, e), e.silent(ctx, world.Query{Token: token}))
}

func dnsBeside(ctx context.Context, e *Env) error {
	s, err := e.scene(ctx)
	if err != nil {
		return err
	}
	if _, err := e.BoxOf(ctx, runtime.ContainerSpec{Networks: Attach(s.inner, s.outer)}); err != nil {
		return err
	}
	token := e.Token()
	var results []probe.Resolved
	if err := s.sealed.JSON(ctx, &results, "resolve", "1s", token+"."+world.Zone); err != nil {
		return err
	}
	if err := outsideName(results); err != nil {
		return err
	}
	if err := s.sealed.JSON(ctx, &results, "dns", "1s", token+"."+world.Zone); err != nil {
		return err
	}
	return first(outsideName(results), s.dnsControl(ctx, e), e.silent(ctx, world.Query{Token: token}))
}

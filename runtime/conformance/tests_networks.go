package conformance

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/containerd/errdefs"

	"github.com/bottle-run/bottle/runtime"
	"github.com/bottle-run/bottle/runtime/conformance/probe"
)

var infoTests = []Test{
	{
		Name: "info/describes-the-engine",
		Doc:  "Info tells the engine's name, version, endpoint, platform, network stack and OCI runtimes, and a reason for each missing feature.",
		Run:  infoDescribes,
	},
	{
		Name: "info/brief-is-a-part-of-it",
		Doc:  "Brief tells the same as Info of what it tells: name, version, endpoint, platform and the missing limits.",
		Run:  infoBrief,
	},
	{
		Name: "info/inventory-lists-what-was-made",
		Doc:  "Inventory has the kinds containers, networks and images, and grows by what is made.",
		Run:  inventoryGrows,
	},
}

func infoBrief(ctx context.Context, e *Env) error {
	// First, since an engine may remember what it said at length.
	brief, err := e.Runtime.Brief(ctx)
	if err != nil {
		return err
	}
	whole, err := e.Runtime.Info(ctx)
	if err != nil {
		return err
	}
	part := func(i runtime.Info) string {
		var limits []string
		for _, f := range []runtime.Feature{runtime.FeatureMemoryLimit, runtime.FeaturePIDsLimit, runtime.FeatureCPULimit} {
			limits = append(limits, i.Missing[f])
		}
		return fmt.Sprintf("%s %s at %s (%v), %s/%s, limits %q", i.Engine, i.Version, i.Endpoint, i.Ephemeral, i.OS, i.Arch, limits)
	}
	if part(brief) != part(whole) {
		return failed("expected Brief to tell %s, got %s", part(whole), part(brief))
	}
	return nil
}

func infoDescribes(ctx context.Context, e *Env) error {
	i, err := e.Runtime.Info(ctx)
	if err != nil {
		return err
	}
	for what, value := range map[string]string{
		"Engine": i.Engine, "Version": i.Version, "Endpoint": i.Endpoint, "OS": i.OS, "Arch": i.Arch, "Kernel": i.Kernel,
		"NetworkStack": i.NetworkStack, "StorageDriver": i.StorageDriver, "Builder": i.Builder, "DefaultRuntime": i.DefaultRuntime,
	} {
		if value == "" {
			return failed("Info.%s: expected a value, got none", what)
		}
	}
	if i.CgroupVersion != "1" && i.CgroupVersion != "2" {
		return failed("Info.CgroupVersion: expected 1 or 2, got %q", i.CgroupVersion)
	}
	for f, reason := range i.Missing {
		if f.Doc() == "" || reason == "" {
			return failed("Info.Missing: expected known features with reasons, got %q: %q", f, reason)
		}
	}
	return check(slices.Contains(i.OCIRuntimes, i.DefaultRuntime), "the default OCI runtime %q is not among Info.OCIRuntimes %q", i.DefaultRuntime, i.OCIRuntimes)
}

func inventoryGrows(ctx context.Context, e *Env) error {
	before, err := e.Runtime.Inventory(ctx)
	if err != nil {
		return err
	}
	n, err := e.Network(ctx, true)
	if err != nil {
		return err
	}
	if _, err := e.Box(ctx, n); err != nil {
		return err
	}
	after, err := e.Runtime.Inventory(ctx)
	if err != nil {
		return err
	}
	for _, kind := range []string{"containers", "networks"} {
		if added, _ := compare(before[kind], after[kind]); len(added) != 1 {
			return failed("inventory of %s after one was made: expected one more, got %q", kind, added)
		}
	}
	return check(len(after["images"]) > 0, "inventory of images: expected the probe image, got none")
}

var networkTests = []Test{
	{
		Name: "networks/create-inspect-list-remove",
		Doc:  "A network is inspected by name and ID, listed with its labels, and gone when it has been removed.",
		Run:  networkLife,
	},
	{
		Name: "networks/subnet-as-asked",
		Doc:  "A network has the subnet that was asked for, and its containers have addresses in it.",
		Run:  subnetAsAsked,
	},
	{
		Name: "networks/subnet-is-chosen-and-reported",
		Doc:  "Without a subnet a free small one is taken and reported; no two networks overlap.",
		Run:  subnetChosen,
	},
	{
		Name: "networks/overlapping-subnet-is-refused",
		Doc:  "A subnet that overlaps another network's is FailedPrecondition.",
		Run:  subnetOverlap,
	},
	{
		Name:  "networks/subnet-of-a-host-route-is-refused",
		Doc:   "A subnet that this host routes elsewhere is FailedPrecondition, where the host is the engine's.",
		World: true, Kernel: true,
		Run: subnetOfHost,
	},
	{
		Name: "networks/duplicate-name-is-refused",
		Doc:  "A taken name is AlreadyExists, and the network that has it is unharmed.",
		Run:  duplicateNetwork,
	},
	{
		Name: "networks/duplicate-name-under-a-race",
		Doc:  "Of 8 parallel creates of one name exactly one wins; the others are AlreadyExists.",
		Run:  duplicateRace,
	},
	{
		Name: "networks/forty-in-a-row", Timeout: 2 * DefaultTimeout,
		Doc: "40 networks exist at once and exhaust no pool.",
		Run: fortyNetworks,
	},
	{
		Name: "networks/sixteen-at-once", Timeout: 2 * DefaultTimeout,
		Doc: "16 networks are made in parallel, and removed in parallel.",
		Run: sixteenNetworks,
	},
	{
		Name: "networks/removal-while-in-use-is-refused",
		Doc:  "A network with a container is FailedPrecondition to remove, and goes on working.",
		Run:  removalInUse,
	},
	{
		Name: "networks/removal-is-idempotent",
		Doc:  "Removing a network that is not there is no error.",
		Run: func(ctx context.Context, e *Env) error {
			n, err := e.Network(ctx, true)
			if err != nil {
				return err
			}
			return first(e.Runtime.RemoveNetwork(ctx, n.Name), e.Runtime.RemoveNetwork(ctx, n.Name), e.Runtime.RemoveNetwork(ctx, n.ID),
				e.Runtime.RemoveNetwork(ctx, e.Name("never")))
		},
	},
	{
		Name: "networks/name-is-free-after-removal",
		Doc:  "When RemoveNetwork returns, the name and the subnet can be used again.",
		Run:  networkAgain,
	},
}

func networkLife(ctx context.Context, e *Env) error {
	for _, internal := range []bool{true, false} {
		spec := runtime.NetworkSpec{Name: e.Name("life"), Internal: internal, Labels: map[string]string{LabelRun: e.suite.name, "colour": "blue=é"}}
		made, err := e.NetworkOf(ctx, spec)
		if err != nil {
			return err
		}
		listed, err := e.Runtime.ListNetworks(ctx, runtime.Filter{Labels: map[string]string{"colour": "blue=é", LabelRun: e.suite.name}})
		if err != nil {
			return err
		}
		if len(listed) != 1 {
			return failed("list by label: expected one network, got %+v", listed)
		}
		for _, ref := range []string{made.Name, made.ID} {
			seen, err := e.Runtime.InspectNetwork(ctx, ref)
			if err != nil {
				return err
			}
			for _, n := range []runtime.Network{made, seen, listed[0]} {
				switch {
				case n.ID == "" || n.ID != made.ID || n.Name != spec.Name:
					return failed("expected network %q of ID %q, got %+v", spec.Name, made.ID, n)
				case n.Internal != internal:
					return failed("expected Internal %v, got %+v", internal, n)
				case n.Labels["colour"] != "blue=é" || n.Labels[runtime.LabelManaged] != "true":
					return failed("expected the labels given and %s, got %q", runtime.LabelManaged, n.Labels)
				case !n.Subnet.IsValid() || n.Subnet != made.Subnet:
					return failed("expected subnet %s, got %s", made.Subnet, n.Subnet)
				case time.Since(n.Created).Abs() > 10*time.Minute:
					return failed("expected a time of creation near now, got %s", n.Created)
				}
			}
		}
		if err := e.Runtime.RemoveNetwork(ctx, made.ID); err != nil {
			return err
		}
		_, err = e.Runtime.InspectNetwork(ctx, made.Name)
		if err := kind(err, errdefs.IsNotFound, "NotFound", "inspect a network that was removed"); err != nil {
			return err
		}
	}
	return nil
}

// free finds a subnet that is free on the engine, by asking for one.
func (e *Env) free(ctx context.Context) (netip.Prefix, error) {
	n, err := e.Network(ctx, true)
	if err != nil {
		return netip.Prefix{}, err
	}
	return n.Subnet, e.Runtime.RemoveNetwork(ctx, n.ID)
}

func subnetAsAsked(ctx context.Context, e *Env) error {
	subnet, err := e.free(ctx)
	if err != nil {
		return err
	}
	// A part of it, so that it is not what would be chosen anyway.
	subnet = netip.PrefixFrom(subnet.Addr(), subnet.Bits()+1)
	n, err := e.NetworkOf(ctx, runtime.NetworkSpec{Internal: true, Subnet: subnet})
	if err != nil {
		return err
	}
	seen, err := e.Runtime.InspectNetwork(ctx, n.Name)
	if err != nil {
		return err
	}
	if n.Subnet != subnet || seen.Subnet != subnet {
		return failed("expected subnet %s, got %s at creation and %s at inspection", subnet, n.Subnet, seen.Subnet)
	}
	b, err := e.Box(ctx, n)
	if err != nil {
		return err
	}
	addr, err := netip.ParseAddr(b.Address(n))
	if err != nil || !subnet.Contains(addr) {
		return failed("expected the container's address in %s, got %+v", subnet, b.Networks)
	}
	if e.Info.Simulated {
		return nil
	}
	return b.hasAddress(ctx, addr)
}

// hasAddress checks what the container itself sees.
func (b *Box) hasAddress(ctx context.Context, addr netip.Addr) error {
	var links []probe.Interface
	if err := b.JSON(ctx, &links, "ifaces"); err != nil {
		return err
	}
	for _, l := range links {
		for _, p := range l.Addrs {
			if p.Addr() == addr {
				return nil
			}
		}
	}
	return failed("expected address %s inside container %s, got %+v", addr, b.Name, links)
}

func subnetChosen(ctx context.Context, e *Env) error {
	var seen []runtime.Network
	for i := range 4 {
		n, err := e.Network(ctx, i%2 == 0)
		if err != nil {
			return err
		}
		if !n.Subnet.IsValid() || !n.Subnet.Addr().Is4() || n.Subnet.Bits() < 24 || n.Subnet.Bits() > 29 {
			return failed("expected a small IPv4 subnet, /24 to /29, got %s", n.Subnet)
		}
		if n.Gateway.IsValid() && !n.Subnet.Contains(n.Gateway) {
			return failed("expected the gateway in subnet %s, got %s", n.Subnet, n.Gateway)
		}
		for _, other := range seen {
			if other.Subnet.Overlaps(n.Subnet) {
				return failed("networks %s and %s overlap: %s, %s", other.Name, n.Name, other.Subnet, n.Subnet)
			}
		}
		seen = append(seen, n)
	}
	return nil
}

func subnetOverlap(ctx context.Context, e *Env) error {
	n, err := e.Network(ctx, true)
	if err != nil {
		return err
	}
	for _, bits := range []int{n.Subnet.Bits() - 1, n.Subnet.Bits(), n.Subnet.Bits() + 1} {
		subnet := netip.PrefixFrom(n.Subnet.Addr(), bits).Masked()
		_, err := e.NetworkOf(ctx, runtime.NetworkSpec{Subnet: subnet})
		if err := kind(err, errdefs.IsFailedPrecondition, "FailedPrecondition", fmt.Sprintf("create a network of %s beside one of %s", subnet, n.Subnet)); err != nil {
			return err
		}
	}
	return nil
}

func subnetOfHost(ctx context.Context, e *Env) error {
	if e.Info.Rootless {
		// Its networks lie behind another network stack, where this route is not.
		return nil
	}
	subnet := netip.PrefixFrom(e.World.Layout().B.Addr(), 27)
	_, err := e.NetworkOf(ctx, runtime.NetworkSpec{Subnet: subnet})
	return kind(err, errdefs.IsFailedPrecondition, "FailedPrecondition", fmt.Sprintf("create a network of %s, which this host routes elsewhere", subnet))
}

func duplicateNetwork(ctx context.Context, e *Env) error {
	n, err := e.Network(ctx, true)
	if err != nil {
		return err
	}
	for _, internal := range []bool{true, false} {
		_, err = e.NetworkOf(ctx, runtime.NetworkSpec{Name: n.Name, Internal: internal})
		if err := kind(err, errdefs.IsAlreadyExists, "AlreadyExists", "create a network of a taken name"); err != nil {
			return err
		}
	}
	seen, err := e.Runtime.InspectNetwork(ctx, n.Name)
	if err != nil {
		return err
	}
	return check(seen.ID == n.ID && seen.Internal, "expected the first network, %s, under the name, got %+v", n.ID, seen)
}

func duplicateRace(ctx context.Context, e *Env) error {
	const racers = 8
	name := e.Name("race")
	errs := make([]error, racers)
	var wg sync.WaitGroup
	for i := range racers {
		wg.Go(func() { _, errs[i] = e.NetworkOf(ctx, runtime.NetworkSpec{Name: name, Internal: true}) })
	}
	wg.Wait()
	won := 0
	for _, err := range errs {
		switch {
		case err == nil:
			won++
		case !errdefs.IsAlreadyExists(err):
			return failed("expected AlreadyExists for those that lose, got %w", err)
		}
	}
	if won != 1 {
		return failed("expected one winner of %d, got %d", racers, won)
	}
	listed, err := e.Runtime.ListNetworks(ctx, runtime.Filter{Labels: e.Labels()})
	if err != nil {
		return err
	}
	if len(listed) != 1 || listed[0].Name != name {
		return failed("expected one network after the race, got %+v", listed)
	}
	// It is the one: it works, by its name.
	b, err := e.BoxOf(ctx, runtime.ContainerSpec{Networks: []runtime.NetworkAttachment{{Network: name}}})
	if err != nil {
		return err
	}
	return check(len(b.Networks) == 1, "expected one endpoint, got %+v", b.Networks)
}

func fortyNetworks(ctx context.Context, e *Env) error {
	var made []runtime.Network
	for i := range 40 {
		n, err := e.Network(ctx, i%2 == 0)
		if err != nil {
			return failed("network %d of 40: %w", i+1, err)
		}
		made = append(made, n)
	}
	// The last one works.
	b, err := e.Box(ctx, made[len(made)-1])
	if err != nil {
		return err
	}
	return check(b.Address(made[len(made)-1]) != "", "expected an address on the last network, got %+v", b.Networks)
}

func sixteenNetworks(ctx context.Context, e *Env) error {
	const many = 16
	made := make([]runtime.Network, many)
	errs := make([]error, many)
	var wg sync.WaitGroup
	for i := range many {
		wg.Go(func() { made[i], errs[i] = e.Network(ctx, i%2 == 0) })
	}
	wg.Wait()
	if err := first(errs...); err != nil {
		return err
	}
	for i, n := range made {
		for _, other := range made[:i] {
			if n.Subnet.Overlaps(other.Subnet) {
				return failed("networks made at once overlap: %s, %s", n.Subnet, other.Subnet)
			}
		}
	}
	for i, n := range made {
		wg.Go(func() { errs[i] = e.Runtime.RemoveNetwork(ctx, n.Name) })
	}
	wg.Wait()
	return first(errs...)
}

func removalInUse(ctx context.Context, e *Env) error {
	n, err := e.Network(ctx, true)
	if err != nil {
		return err
	}
	b, err := e.BoxOf(ctx, runtime.ContainerSpec{
		Command: []string{"listen", "tcp :7"}, Networks: []runtime.NetworkAttachment{{Network: n.Name, Aliases: []string{"first"}}},
	})
	if err != nil {
		return err
	}
	err = e.Runtime.RemoveNetwork(ctx, n.Name)
	if err := kind(err, errdefs.IsFailedPrecondition, "FailedPrecondition", "remove a network that a container is on"); err != nil {
		return err
	}
	if _, err := e.Runtime.InspectNetwork(ctx, n.Name); err != nil {
		return failed("after a refused removal: expected the network, got %w", err)
	}
	if !e.Info.Simulated {
		other, err := e.Box(ctx, n)
		if err != nil {
			return failed("after a refused removal: %w", err)
		}
		if err := other.reaches(ctx, "tcp first:7"); err != nil {
			return failed("after a refused removal: %w", err)
		}
		if err := e.Runtime.RemoveContainer(ctx, other.ID); err != nil {
			return err
		}
	}
	if err := e.Runtime.RemoveContainer(ctx, b.ID); err != nil {
		return err
	}
	return e.Runtime.RemoveNetwork(ctx, n.Name)
}

func networkAgain(ctx context.Context, e *Env) error {
	spec := runtime.NetworkSpec{Name: e.Name("again")}
	for i := range 3 {
		n, err := e.NetworkOf(ctx, spec)
		if err != nil {
			return failed("round %d: %w", i+1, err)
		}
		spec.Subnet = n.Subnet
		if err := e.Runtime.RemoveNetwork(ctx, n.Name); err != nil {
			return err
		}
	}
	return nil
}

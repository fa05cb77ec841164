package runtime

import (
	"context"
	"net/netip"
	"time"
)

// Networks makes and removes networks.
type Networks interface {
	// CreateNetwork makes a network. A taken name is AlreadyExists, also when
	// several callers race for it: exactly one of them wins. A subnet that
	// overlaps another network's or a route of the host is FailedPrecondition.
	CreateNetwork(ctx context.Context, spec NetworkSpec) (Network, error)

	// InspectNetwork describes one network; NotFound if there is none, and also
	// if it is not of bottle's making.
	InspectNetwork(ctx context.Context, network string) (Network, error)

	// ListNetworks lists bottle's networks, oldest first.
	ListNetworks(ctx context.Context, filter Filter) ([]Network, error)

	// RemoveNetwork removes a network. One that does not exist is no error; one
	// to which a container is still attached is FailedPrecondition.
	RemoveNetwork(ctx context.Context, network string) error
}

// NetworkSpec says what network to make.
//
// From a container whose only networks are internal ones, nothing outside those
// networks answers or is reached: TCP, UDP, ICMP, IPv6 including link-local,
// DNS (no query reaches a resolver outside), the host's own addresses, the
// bridge's gateway, other networks, the metadata address; also with a route
// added inside the container, and whatever the container's capabilities. A
// container on two networks does not forward between them.
//
// From a container on a network that is not internal the outside is reached,
// through address translation. Other bottles' networks are not.
type NetworkSpec struct {
	// Name must be unique on the engine: [a-z0-9] then [a-z0-9_.-], at most 63
	// characters.
	Name string
	// Internal seals the network.
	Internal bool
	// Subnet is the IPv4 network to use, /16 to /29. If it is the zero Prefix, the
	// implementation takes a free small one and reports it.
	Subnet netip.Prefix
	// Labels are kept with the network.
	Labels map[string]string
}

// Network describes an existing network.
type Network struct {
	ID       string
	Name     string
	Internal bool
	Subnet   netip.Prefix
	// Gateway is the address that the engine keeps for itself in Subnet, if it
	// does: it is not available to a container.
	Gateway netip.Addr
	Labels  map[string]string
	Created time.Time
}

package runtime

import (
	"context"
)

// LabelManaged marks every object that bottle makes, with the value "true".
// Implementations add it to networks, containers and built images; loaded and
// pulled images have it only if their configuration does.
const LabelManaged = "dev.bottle.managed"

// Runtime is a connection to one container engine. It is safe for concurrent
// use. Every name or reference that a method takes may be a name given at
// creation or an ID that the engine returned.
type Runtime interface {
	Networks
	Images
	Containers

	// Info describes the engine: it asks the daemon, so it also tells whether
	// the connection works (Unavailable otherwise).
	Info(ctx context.Context) (Info, error)

	// Brief is Info with what a launch decides by and no more, if the rest takes the daemon
	// time: Engine, Version, Endpoint, Ephemeral, OS, Arch, and in Missing the limits. It asks the
	// daemon, too, and what it tells does not differ from Info.
	Brief(ctx context.Context) (Info, error)

	// Inventory lists everything on the engine by kind ("containers", "networks",
	// "images", "volumes", and what else the engine keeps: snapshots, leases,
	// namespaces, firewall rules of the implementation's own), whether bottle made
	// it or not. Two inventories are compared to find what was left behind.
	Inventory(ctx context.Context) (Inventory, error)

	// Sweep removes what the implementation made for itself, in processes that died since:
	// what no list shows and no label of its caller's leads to. What a living process
	// needs is never touched. Opening a connection does the same, as far as it takes no
	// time; what such a process had asked the engine for may come to an end later.
	Sweep(ctx context.Context) error

	// Close releases the connection and ends what the implementation started
	// for itself (a service, a builder). Objects on the engine stay.
	Close() error
}

// Inventory maps a kind of object to the identifiers of all objects of that
// kind, each with its name where it has one.
type Inventory map[string][]string

// Filter selects objects of bottle's own in a list: those that carry every
// label given, with the value given. The zero Filter selects all of them.
type Filter struct {
	Labels map[string]string
}

// Match reports whether labels satisfy the filter, [LabelManaged] included.
func (f Filter) Match(labels map[string]string) bool {
	if labels[LabelManaged] != "true" {
		return false
	}
	for k, v := range f.Labels {
		if got, ok := labels[k]; !ok || got != v {
			return false
		}
	}
	return true
}

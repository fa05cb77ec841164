package docker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// newSealer looks whether this process may change the network namespace it is in.
// Whether that is the daemon's shows when the first bridge is to be sealed.
func newSealer(e *engine) sealer {
	if e.endpoint.scheme() != "unix" {
		return noSealer{"bottle does not run on the engine's host"}
	}
	if !mayAdminister() {
		return noSealer{"bottle is not root"}
	}
	return nftSealer{}
}

// mayAdminister reports whether this process has CAP_NET_ADMIN.
func mayAdminister() bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return false
	}
	return data[0].Effective&(1<<unix.CAP_NET_ADMIN) != 0
}

// nftSealer seals a bridge by an nftables chain at the bridge device's ingress
// hook, through which everything passes that goes up to the host's stack, of every
// protocol, and nothing that the bridge forwards between its ports. The chain has
// no rule: its policy is to drop.
type nftSealer struct{}

const (
	// sealTable begins the name of a seal's table; the bridge's name follows.
	sealTable = "bottle-seal-"
	sealChain = "ingress"
)

func (nftSealer) Local() bool                        { return true }
func (nftSealer) Unavailable(context.Context) string { return "" }

func (nftSealer) Seal(bridge string) error {
	if _, err := net.InterfaceByName(bridge); err != nil {
		return errNotLocal
	}
	conn, err := nftables.New()
	if err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	table := &nftables.Table{Name: sealTable + bridge, Family: nftables.TableFamilyNetdev}
	// A change takes ten times as long as a look. Where a chain does not outlive
	// its device, it is not there for a new device of the name; where it does, it
	// holds for the new one.
	if c, err := conn.ListChain(table, sealChain); err == nil && c.Policy != nil && *c.Policy == nftables.ChainPolicyDrop &&
		c.Hooknum != nil && *c.Hooknum == *nftables.ChainHookIngress {
		return nil
	}
	conn.AddTable(table)
	drop := nftables.ChainPolicyDrop
	conn.AddChain(&nftables.Chain{
		Name: sealChain, Table: table, Type: nftables.ChainTypeFilter, Policy: &drop,
		Hooknum: nftables.ChainHookIngress, Priority: nftables.ChainPriorityFirst, Device: bridge,
	})
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("nftables: cut bridge %s off from the host: %w", bridge, err)
	}
	return nil
}

func (nftSealer) Unseal(bridge string) error {
	conn, err := nftables.New()
	if err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	conn.DelTable(&nftables.Table{Name: sealTable + bridge, Family: nftables.TableFamilyNetdev})
	if err := conn.Flush(); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("nftables: remove the table of bridge %s: %w", bridge, err)
	}
	return nil
}

func (nftSealer) Seals() ([]string, error) {
	conn, err := nftables.New()
	if err != nil {
		return nil, fmt.Errorf("nftables: %w", err)
	}
	tables, err := conn.ListTablesOfFamily(nftables.TableFamilyNetdev)
	if err != nil {
		return nil, fmt.Errorf("nftables: list tables: %w", err)
	}
	var seals []string
	for _, t := range tables {
		if bridge, ok := strings.CutPrefix(t.Name, sealTable); ok {
			seals = append(seals, bridge)
		}
	}
	slices.Sort(seals)
	return seals, nil
}

package containerd

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// The names of bottle's devices, by which the rules tell them: nine characters
// of a hash follow.
const (
	devicePrefix   = "btl"
	internalBridge = "btlbi-"
	egressBridge   = "btlbe-"
	portPrefix     = "btlv"
	internalPort   = "btlvi-"
	egressPort     = "btlve-"
)

const (
	tableName = "bottle"
	// rulesChain is an empty chain whose name says which rules the tables hold.
	// Change it with the rules: a table with another one is made anew.
	rulesChain = "rules-1"
)

// foreignBridges are the bridges of other engines, which Docker's own rules
// protect from each other but not from what bottle accepts.
var foreignBridges = []string{"docker", "br-", "podman", "cni", "nerdctl", "lxcbr", "lxdbr", "virbr"}

// firewall speaks to nftables. Use it under the network lock.
type firewall struct {
	conn         *nftables.Conn
	inet, bridge *nftables.Table

	// pairs holds (bridge, bridge) for every bridge: traffic that comes and goes
	// by one bridge. Its elements are also the count of networks.
	pairs *nftables.Set
	// masquerade holds the addresses of containers on egress networks.
	masquerade *nftables.Set
	// resolvers holds the host's own addresses that are its nameservers.
	resolvers *nftables.Set
	// ports holds (port, MAC, address).
	ports *nftables.Set
}

var (
	pairType = nftables.MustConcatSetType(nftables.TypeIFName, nftables.TypeIFName)
	portType = nftables.MustConcatSetType(nftables.TypeIFName, nftables.TypeEtherAddr, nftables.TypeIPAddr)
)

// openFirewall connects and makes the tables if they are not there, with what
// belongs in them: somebody may have flushed the rules of the whole machine.
func (e *Engine) openFirewall() (*firewall, error) {
	fw, made, err := newFirewall()
	if err != nil || !made {
		return fw, err
	}
	networks, err := e.networks()
	if err != nil {
		return nil, err
	}
	for _, n := range networks {
		if err := fw.addNetwork(n.Bridge); err != nil {
			return nil, err
		}
		endpoints, err := e.endpoints(n.ID)
		if err != nil {
			return nil, err
		}
		for _, ep := range endpoints {
			if err := fw.addPort(ep, ep.Internal); err != nil {
				return nil, err
			}
		}
	}
	return fw, fw.allowResolvers(hostResolvers())
}

// newFirewall connects, makes the tables if they are not there, and reports whether
// it did.
func newFirewall() (_ *firewall, made bool, err error) {
	conn, err := nftables.New()
	if err != nil {
		return nil, false, fmt.Errorf("reach nftables: %w", err)
	}
	fw := &firewall{
		conn:   conn,
		inet:   &nftables.Table{Family: nftables.TableFamilyINet, Name: tableName},
		bridge: &nftables.Table{Family: nftables.TableFamilyBridge, Name: tableName},
	}
	fw.pairs = &nftables.Set{Table: fw.inet, Name: "pairs", KeyType: pairType, Concatenation: true}
	fw.masquerade = &nftables.Set{Table: fw.inet, Name: "masquerade", KeyType: nftables.TypeIPAddr}
	fw.resolvers = &nftables.Set{Table: fw.inet, Name: "resolvers", KeyType: nftables.TypeIPAddr}
	fw.ports = &nftables.Set{Table: fw.bridge, Name: "ports", KeyType: portType, Concatenation: true}
	if made, err = fw.ensure(); err != nil {
		return nil, false, fmt.Errorf("set up nftables (bottle needs a kernel with nftables for the inet and bridge families): %w", err)
	}
	return fw, made, nil
}

func (fw *firewall) ensure() (made bool, err error) {
	state, err := fw.installed()
	if err != nil || state == installedHere {
		return false, err
	}
	var saved map[*nftables.Set][]nftables.SetElement
	if state == installedOther {
		if saved, err = fw.takeDown(); err != nil {
			return false, err
		}
	}
	for _, t := range []*nftables.Table{fw.inet, fw.bridge} {
		fw.conn.AddTable(t)
	}
	for _, s := range fw.sets() {
		if err := fw.conn.AddSet(s, saved[s]); err != nil {
			return false, err
		}
	}
	fw.addInetRules()
	fw.addBridgeRules()
	fw.conn.AddChain(&nftables.Chain{Table: fw.inet, Name: rulesChain})
	return true, fw.conn.Flush()
}

func (fw *firewall) sets() []*nftables.Set {
	return []*nftables.Set{fw.pairs, fw.masquerade, fw.resolvers, fw.ports}
}

type installation int

const (
	notInstalled installation = iota
	installedHere
	installedOther // by another version
)

func (fw *firewall) installed() (installation, error) {
	chains, err := fw.conn.ListChainsOfTableFamily(nftables.TableFamilyINet)
	if err != nil {
		return notInstalled, err
	}
	state := notInstalled
	for _, c := range chains {
		if c.Table.Name != tableName {
			continue
		}
		if c.Name == rulesChain {
			return installedHere, nil
		}
		state = installedOther
	}
	return state, nil
}

// takeDown queues the removal of the tables of another version, for one
// transaction with their successors, and returns what their sets held.
func (fw *firewall) takeDown() (map[*nftables.Set][]nftables.SetElement, error) {
	saved := map[*nftables.Set][]nftables.SetElement{}
	for _, s := range fw.sets() {
		elements, err := fw.conn.GetSetElements(s)
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return nil, err
		}
		for _, e := range elements {
			saved[s] = append(saved[s], nftables.SetElement{Key: e.Key})
		}
	}
	for _, t := range []*nftables.Table{fw.inet, fw.bridge} {
		// Adding first makes the removal of a missing one succeed.
		fw.conn.AddTable(t)
		fw.conn.DelTable(t)
	}
	return saved, nil
}

// --- rules ---

func meta(key expr.MetaKey, op expr.CmpOp, data []byte) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: key, Register: 1},
		&expr.Cmp{Op: op, Register: 1, Data: data},
	}
}

// from and to match a device whose name begins with prefix.
func from(prefix string) []expr.Any {
	return meta(expr.MetaKeyIIFNAME, expr.CmpOpEq, []byte(prefix))
}
func to(prefix string) []expr.Any { return meta(expr.MetaKeyOIFNAME, expr.CmpOpEq, []byte(prefix)) }
func notFrom(prefix string) []expr.Any {
	return meta(expr.MetaKeyIIFNAME, expr.CmpOpNeq, []byte(prefix))
}

func lookup(s *nftables.Set) []expr.Any {
	return []expr.Any{&expr.Lookup{SourceRegister: 1, SetName: s.Name, SetID: s.ID}}
}

func verdict(kind expr.VerdictKind) []expr.Any {
	return []expr.Any{&expr.Verdict{Kind: kind}}
}

func established() []expr.Any {
	states := expr.CtStateBitESTABLISHED | expr.CtStateBitRELATED
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATE, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(states), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)},
	}
}

func isIPv4() []expr.Any {
	return meta(expr.MetaKeyNFPROTO, expr.CmpOpEq, []byte{unix.NFPROTO_IPV4})
}

func payload(base expr.PayloadBase, offset, length, register uint32) expr.Any {
	return &expr.Payload{DestRegister: register, Base: base, Offset: offset, Len: length}
}

func (fw *firewall) chain(t *nftables.Table, name string, kind nftables.ChainType, hook *nftables.ChainHook, priority nftables.ChainPriority) func(...[]expr.Any) {
	c := fw.conn.AddChain(&nftables.Chain{Table: t, Name: name, Type: kind, Hooknum: hook, Priority: &priority})
	return func(parts ...[]expr.Any) {
		var all []expr.Any
		for _, p := range parts {
			all = append(all, p...)
		}
		fw.conn.AddRule(&nftables.Rule{Table: t, Chain: c, Exprs: all})
	}
}

var (
	accept = verdict(expr.VerdictAccept)
	drop   = verdict(expr.VerdictDrop)
)

func (fw *firewall) addInetRules() {
	// Before the chains at the usual priority, after connection tracking.
	const early = nftables.ChainPriority(-10)

	rule := fw.chain(fw.inet, "input", nftables.ChainTypeFilter, nftables.ChainHookInput, early)
	rule(from(internalBridge), drop)
	rule(notFrom(egressBridge), accept)
	rule(established(), accept)
	for _, proto := range []byte{unix.IPPROTO_UDP, unix.IPPROTO_TCP} {
		rule(isIPv4(),
			meta(expr.MetaKeyL4PROTO, expr.CmpOpEq, []byte{proto}),
			[]expr.Any{
				payload(expr.PayloadBaseTransportHeader, 2, 2, 1),
				&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.BigEndian.PutUint16(53)},
				payload(expr.PayloadBaseNetworkHeader, 16, 4, 1),
			},
			lookup(fw.resolvers), accept)
	}
	rule(drop)

	rule = fw.chain(fw.inet, "forward", nftables.ChainTypeFilter, nftables.ChainHookForward, early)
	// With br_netfilter, what stays on a bridge passes here too.
	rule([]expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1},
		&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: 2},
	}, lookup(fw.pairs), accept)
	rule(from(internalBridge), drop)
	rule(to(internalBridge), drop)
	rule(from(egressBridge), to(egressBridge), drop)
	rule(to(egressBridge), established(), accept)
	rule(to(egressBridge), drop)
	for _, name := range foreignBridges {
		rule(from(egressBridge), to(name), drop)
	}
	rule(from(egressBridge), meta(expr.MetaKeyNFPROTO, expr.CmpOpNeq, []byte{unix.NFPROTO_IPV4}), drop)

	rule = fw.chain(fw.inet, "output", nftables.ChainTypeFilter, nftables.ChainHookOutput, early)
	rule(to(internalBridge), drop)

	rule = fw.chain(fw.inet, "postrouting", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, *nftables.ChainPriorityNATSource)
	rule(to(egressBridge), accept)
	rule(isIPv4(), []expr.Any{payload(expr.PayloadBaseNetworkHeader, 12, 4, 1)}, lookup(fw.masquerade), []expr.Any{&expr.Masq{}})
}

func (fw *firewall) addBridgeRules() {
	// Registers of 4 bytes: a set's key of several fields lies in them in a row,
	// from register 1 on: name 16 bytes, MAC 6 rounded up to 8, address 4.
	const second, third = 12, 14
	const first = nftables.ChainPriority(-400) // before br_netfilter

	etherType := func(t uint16) []expr.Any {
		return meta(expr.MetaKeyPROTOCOL, expr.CmpOpEq, binaryutil.BigEndian.PutUint16(t))
	}
	rule := fw.chain(fw.bridge, "prerouting", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, first)
	rule(notFrom(portPrefix), accept)
	rule(etherType(unix.ETH_P_IP), []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1},
		payload(expr.PayloadBaseLLHeader, 6, 6, second),
		payload(expr.PayloadBaseNetworkHeader, 12, 4, third),
	}, lookup(fw.ports), accept)
	rule(etherType(unix.ETH_P_ARP), []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1},
		payload(expr.PayloadBaseNetworkHeader, 8, 6, second),
		payload(expr.PayloadBaseNetworkHeader, 14, 4, third),
	}, lookup(fw.ports), accept)
	rule(drop)

	rule = fw.chain(fw.bridge, "input", nftables.ChainTypeFilter, nftables.ChainHookInput, first)
	rule(from(internalPort), drop)
	rule = fw.chain(fw.bridge, "output", nftables.ChainTypeFilter, nftables.ChainHookOutput, first)
	rule(to(internalPort), drop)
}

// --- elements ---

func ifname(name string) []byte {
	b := make([]byte, unix.IFNAMSIZ)
	copy(b, name)
	return b
}

func pairKey(bridge string) []nftables.SetElement {
	return []nftables.SetElement{{Key: append(ifname(bridge), ifname(bridge)...)}}
}

func portKey(port string, mac net.HardwareAddr, addr netip.Addr) []nftables.SetElement {
	key := append(ifname(port), mac...)
	key = append(key, 0, 0)
	return []nftables.SetElement{{Key: append(key, addr.AsSlice()...)}}
}

func addrKey(addr netip.Addr) []nftables.SetElement {
	return []nftables.SetElement{{Key: addr.AsSlice()}}
}

// addNetwork makes a bridge known.
func (fw *firewall) addNetwork(bridge string) error {
	if err := fw.conn.SetAddElements(fw.pairs, pairKey(bridge)); err != nil {
		return err
	}
	return fw.conn.Flush()
}

// delNetwork forgets a bridge, and takes everything down with the last one.
func (fw *firewall) delNetwork(bridge string) error {
	if err := fw.del(fw.pairs, pairKey(bridge)); err != nil {
		return err
	}
	left, err := fw.conn.GetSetElements(fw.pairs)
	if err != nil || len(left) > 0 {
		return err
	}
	fw.conn.DelTable(fw.inet)
	fw.conn.DelTable(fw.bridge)
	return errors.Join(fw.conn.Flush(), unacceptForwarding())
}

// addPort lets a container's port speak, from its own addresses.
func (fw *firewall) addPort(ep *endpoint, internal bool) error {
	if err := fw.conn.SetAddElements(fw.ports, portKey(ep.Port, ep.MAC, ep.Address)); err != nil {
		return err
	}
	if !internal {
		if err := fw.conn.SetAddElements(fw.masquerade, addrKey(ep.Address)); err != nil {
			return err
		}
	}
	return fw.conn.Flush()
}

func (fw *firewall) delPort(ep *endpoint, internal bool) error {
	err := fw.del(fw.ports, portKey(ep.Port, ep.MAC, ep.Address))
	if !internal {
		err = errors.Join(err, fw.del(fw.masquerade, addrKey(ep.Address)))
	}
	return err
}

// del removes elements; that they are not there is no error.
func (fw *firewall) del(s *nftables.Set, elements []nftables.SetElement) error {
	if err := fw.conn.SetDeleteElements(s, elements); err != nil {
		return err
	}
	if err := fw.conn.Flush(); err != nil && !errors.Is(err, unix.ENOENT) {
		return err
	}
	return nil
}

// allowResolvers lets egress networks ask those nameservers that are addresses
// of the host.
func (fw *firewall) allowResolvers(addrs []netip.Addr) error {
	for _, a := range addrs {
		if err := fw.conn.SetAddElements(fw.resolvers, addrKey(a)); err != nil {
			return err
		}
	}
	if len(addrs) == 0 {
		return nil
	}
	return fw.conn.Flush()
}

// firewallInventory lists bottle's tables and the elements of their sets.
func firewallInventory() ([]string, error) {
	conn, err := nftables.New()
	if err != nil {
		return nil, err
	}
	tables, err := conn.ListTables()
	if err != nil {
		return nil, err
	}
	var all []string
	for _, t := range tables {
		if t.Name != tableName || t.Family != nftables.TableFamilyINet && t.Family != nftables.TableFamilyBridge {
			continue
		}
		all = append(all, fmt.Sprintf("table %d %s", t.Family, t.Name))
		sets, err := conn.GetSets(t)
		if err != nil {
			return nil, err
		}
		for _, s := range sets {
			elements, err := conn.GetSetElements(s)
			if err != nil {
				return nil, err
			}
			for _, e := range elements {
				all = append(all, fmt.Sprintf("element %s %s", s.Name, printableKey(e.Key)))
			}
		}
	}
	return all, nil
}

func printableKey(key []byte) string {
	if name, rest, ok := bytes.Cut(key, []byte{0}); ok && bytes.HasPrefix(name, []byte(devicePrefix)) {
		return fmt.Sprintf("%s %x", name, bytes.TrimLeft(rest, "\x00"))
	}
	return net.IP(key).String()
}

// enableForwarding lets this host route IPv4.
func enableForwarding() error {
	const path = "/proc/sys/net/ipv4/ip_forward"
	old, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if bytes.HasPrefix(old, []byte("1")) {
		return nil
	}
	if err := os.WriteFile(path, []byte("1"), 0o644); err != nil {
		return fmt.Errorf("let this host route IPv4: %w", err)
	}
	return nil
}

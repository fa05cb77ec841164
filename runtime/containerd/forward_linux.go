package containerd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"sync"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Other software, Docker above all, makes iptables drop what is forwarded unless
// a rule of theirs accepts it. What bottle's own table accepts is dropped there
// all the same: so bottle's devices are accepted there in the form that iptables
// itself writes. Once accepted everywhere, the drops of bottle's table still hold.

// userChain is where Docker and its admins agreed that foreign rules go.
const userChain = "DOCKER-USER"

// acceptForwarding accepts bottle's devices where iptables drops by default.
// Use it under the network lock.
func acceptForwarding() error {
	conn, err := nftables.New()
	if err != nil {
		return err
	}
	chain, err := forwardChain(conn)
	if err != nil {
		return err
	}
	if chain == nil {
		return acceptLegacy()
	}
	present, err := forwardRules(conn, chain)
	if err != nil || len(present) == 2 {
		return err
	}
	for _, key := range []expr.MetaKey{expr.MetaKeyOIFNAME, expr.MetaKeyIIFNAME} {
		if slices.ContainsFunc(present, func(r *nftables.Rule) bool { return r.Exprs[0].(*expr.Meta).Key == key }) {
			continue
		}
		conn.InsertRule(&nftables.Rule{Table: chain.Table, Chain: chain, Exprs: []expr.Any{
			&expr.Meta{Key: key, Register: 1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte(devicePrefix)},
			&expr.Counter{},
			&expr.Verdict{Kind: expr.VerdictAccept},
		}})
	}
	return conn.Flush()
}

// unacceptForwarding removes what acceptForwarding added.
func unacceptForwarding() error {
	conn, err := nftables.New()
	if err != nil {
		return err
	}
	chains, err := filterChains(conn)
	if err != nil {
		return err
	}
	for _, chain := range chains {
		rules, err := forwardRules(conn, chain)
		if err != nil {
			return err
		}
		for _, r := range rules {
			if err := conn.DelRule(r); err != nil {
				return err
			}
		}
	}
	err = conn.Flush()
	if errors.Is(err, unix.ENOENT) {
		err = nil
	}
	legacy.Lock()
	defer legacy.Unlock()
	legacy.checked = time.Time{}
	return errors.Join(err, legacyForwarding(false))
}

// filterChains are the chains of iptables' filter table in which rules of
// bottle's may be.
func filterChains(conn *nftables.Conn) ([]*nftables.Chain, error) {
	chains, err := conn.ListChainsOfTableFamily(nftables.TableFamilyIPv4)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(chains, func(c *nftables.Chain) bool {
		return c.Table.Name != "filter" || c.Name != "FORWARD" && c.Name != userChain
	}), nil
}

// forwardChain is where rules have to go, or nil if nothing is dropped by default.
func forwardChain(conn *nftables.Conn) (*nftables.Chain, error) {
	chains, err := filterChains(conn)
	if err != nil {
		return nil, err
	}
	var forward *nftables.Chain
	for _, c := range chains {
		if c.Name == userChain {
			return c, nil
		}
		if c.Policy != nil && *c.Policy == nftables.ChainPolicyDrop {
			forward = c
		}
	}
	return forward, nil
}

// forwardRules finds bottle's own rules in a chain.
func forwardRules(conn *nftables.Conn, chain *nftables.Chain) ([]*nftables.Rule, error) {
	rules, err := conn.GetRules(chain.Table, chain)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(rules, func(r *nftables.Rule) bool {
		if len(r.Exprs) != 4 {
			return true
		}
		meta, isMeta := r.Exprs[0].(*expr.Meta)
		cmp, isCmp := r.Exprs[1].(*expr.Cmp)
		return !isMeta || !isCmp ||
			meta.Key != expr.MetaKeyIIFNAME && meta.Key != expr.MetaKeyOIFNAME ||
			!bytes.Equal(cmp.Data, []byte(devicePrefix))
	}), nil
}

// legacyInterval is how often it is looked whether the rules in the old tables are
// still there: it takes some processes.
const legacyInterval = 10 * time.Second

var legacy struct {
	sync.Mutex
	checked time.Time
}

func acceptLegacy() error {
	legacy.Lock()
	defer legacy.Unlock()
	if time.Since(legacy.checked) < legacyInterval {
		return nil
	}
	err := legacyForwarding(true)
	if err == nil {
		legacy.checked = time.Now()
	}
	return err
}

// legacyForwarding does the same in the tables of iptables before nftables, which
// have no other interface than its program. They exist only where somebody uses it.
func legacyForwarding(present bool) error {
	names, err := os.ReadFile("/proc/net/ip_tables_names")
	if err != nil || !bytes.Contains(names, []byte("filter\n")) {
		return nil
	}
	program, err := exec.LookPath("iptables-legacy")
	if err != nil {
		if program, err = exec.LookPath("iptables"); err != nil {
			return nil
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	iptables := func(args ...string) error {
		out, err := exec.CommandContext(ctx, program, append([]string{"-w"}, args...)...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%s: %w: %s", program, err, bytes.TrimSpace(out))
		}
		return nil
	}
	chain := "FORWARD"
	if iptables("-n", "-L", userChain) == nil {
		chain = userChain
	}
	for _, flag := range []string{"-o", "-i"} {
		rule := []string{chain, flag, devicePrefix + "+", "-j", "ACCEPT"}
		exists := iptables(append([]string{"-C"}, rule...)...) == nil
		switch {
		case present && !exists:
			err = iptables(append([]string{"-I"}, rule...)...)
		case !present && exists:
			err = iptables(append([]string{"-D"}, rule...)...)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// forwardInventory lists bottle's rules in iptables' tables.
func forwardInventory() ([]string, error) {
	conn, err := nftables.New()
	if err != nil {
		return nil, err
	}
	chains, err := filterChains(conn)
	if err != nil {
		return nil, err
	}
	var all []string
	for _, chain := range chains {
		rules, err := forwardRules(conn, chain)
		if err != nil {
			return nil, err
		}
		for _, r := range rules {
			all = append(all, fmt.Sprintf("rule %s %d", chain.Name, r.Exprs[0].(*expr.Meta).Key))
		}
	}
	return all, nil
}

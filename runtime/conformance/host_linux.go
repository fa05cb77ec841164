package conformance

import (
	"bufio"
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"

	"github.com/bottle-run/bottle/runtime/internal/dump"
)

// hostSnapshot is what an engine could leave on the host, as far as this process
// may see it.
func hostSnapshot(dirs []string) (map[string][]string, error) {
	links, err := hostLinks()
	if err != nil {
		return nil, err
	}
	mounts, err := hostMounts()
	if err != nil {
		return nil, err
	}
	all := map[string][]string{
		"links": links, "mounts": mounts, "network namespaces": namespaces("net"), "process namespaces": namespaces("pid"),
		"named network namespaces": list("/run/netns"), "temporary files": ours(dirs), "marked processes": markedProcesses(),
	}
	if rules, err := hostRules(); err == nil { // readable by root only
		all["firewall rules"] = rules
	}
	return all, nil
}

func hostLinks() ([]string, error) {
	links, err := dump.Whole(netlink.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	var names []string
	for _, l := range links {
		names = append(names, l.Type()+" "+l.Attrs().Name)
	}
	return names, nil
}

func hostMounts() ([]string, error) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	var mounts []string
	for line := range strings.Lines(string(b)) {
		fields := strings.Fields(line)
		_, fs, _ := strings.Cut(line, " - ")
		kind, _, _ := strings.Cut(fs, " ")
		mounts = append(mounts, kind+" "+fields[4])
	}
	return mounts, nil
}

// namespaces are those in which processes live, other than this process's: with all of their
// threads. A program in Go keeps its first thread for good, also when a goroutine has ended on
// it that had made a container's namespace, as Podman's service does with any other.
func namespaces(kind string) []string {
	seen := map[string]bool{}
	processes, _ := filepath.Glob("/proc/[0-9]*")
	for _, p := range processes {
		in := map[string]bool{}
		threads, _ := filepath.Glob(p + "/task/[0-9]*/ns/" + kind)
		for _, t := range threads {
			if ns, err := os.Readlink(t); err == nil { // it has not ended and is ours
				in[ns] = true
			}
		}
		if len(in) == 1 {
			maps.Copy(seen, in)
		}
	}
	if own, err := os.Readlink("/proc/self/ns/" + kind); err == nil {
		delete(seen, own)
	}
	var names []string
	for ns := range seen {
		names = append(names, ns)
	}
	slices.Sort(names)
	return names
}

// ours are files in shared directories that bear the product's name.
func ours(dirs []string) []string {
	var names []string
	slices.Sort(dirs)
	for _, dir := range slices.Compact(dirs) {
		for _, name := range list(dir) {
			if strings.Contains(filepath.Base(name), "bottle") {
				names = append(names, name)
			}
		}
	}
	return names
}

// markedProcesses are processes that bear the mark of an exec.
func markedProcesses() []string {
	var names []string
	files, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err == nil && (bytes.HasPrefix(b, []byte("BOTTLE_EXEC_ID=")) || bytes.Contains(b, []byte("\x00BOTTLE_EXEC_ID="))) {
			names = append(names, describeProcess(filepath.Base(filepath.Dir(f))))
		}
	}
	return names
}

// childProcesses are this process's own children.
func childProcesses() ([]string, error) {
	var names []string
	tasks, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		return nil, err
	}
	for _, t := range tasks {
		b, err := os.ReadFile(t)
		if err != nil {
			continue // the thread has ended
		}
		words := bufio.NewScanner(bytes.NewReader(b))
		words.Split(bufio.ScanWords)
		for words.Scan() {
			names = append(names, describeProcess(words.Text()))
		}
	}
	return names, nil
}

func describeProcess(pid string) string {
	line, _ := os.ReadFile("/proc/" + pid + "/cmdline")
	text := strings.TrimSpace(strings.ReplaceAll(string(line), "\x00", " "))
	return pid + " " + strconv.Quote(text[:min(len(text), 100)])
}

// hostRules are the rules of nftables, iptables' own among them where it is
// built on nftables; without counters and handles, which change by themselves.
func hostRules() ([]string, error) {
	conn, err := nftables.New()
	if err != nil {
		return nil, err
	}
	chains, err := conn.ListChains()
	if err != nil {
		return nil, err
	}
	var lines []string
	for _, c := range chains {
		where := fmt.Sprintf("%d %s %s", c.Table.Family, c.Table.Name, c.Name)
		lines = append(lines, "chain "+where)
		rules, err := conn.GetRules(c.Table, c)
		if err != nil {
			continue // it has gone meanwhile
		}
		for _, r := range rules {
			line := "rule " + where + ": " + describeRule(r)
			// An engine may put its jump for all packets in again with each network; of two at
			// once both stay, and the second changes nothing.
			if !unconditional(r) || !slices.Contains(lines, line) {
				lines = append(lines, line)
			}
		}
	}
	return lines, nil
}

// unconditional reports whether a rule is about all packets.
func unconditional(r *nftables.Rule) bool {
	return !slices.ContainsFunc(r.Exprs, func(e expr.Any) bool {
		switch e.(type) {
		case *expr.Counter, *expr.Verdict:
			return false
		}
		return true
	})
}

func describeRule(r *nftables.Rule) string {
	var parts []string
	for _, e := range r.Exprs {
		switch e := e.(type) {
		case *expr.Counter:
			parts = append(parts, "counter")
		case *expr.Match:
			parts = append(parts, fmt.Sprintf("match %s %+v", e.Name, e.Info))
		case *expr.Target:
			parts = append(parts, fmt.Sprintf("target %s %+v", e.Name, e.Info))
		default:
			parts = append(parts, fmt.Sprintf("%T%+v", e, e))
		}
	}
	return strings.Join(parts, " ")
}

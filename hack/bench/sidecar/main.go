// Command sidecar measures the two hops of a bottle, egress proxy and firewall as the
// processes that they are, against no proxy and against one hop of mitmdump: on loopback,
// in one run, in turn. It prints the medians and their ratios as Markdown tables.
//
//	hack/bench/sidecar/run [-n ROUNDS] [-connections N] [-size MIB]
//
// The origin is a process of its own, a TLS server of net/http. The load is a closed loop:
// a connection sends its next request when it has the whole answer. All ends and all
// proxies share the processors of the machine.
package main

import (
	"cmp"
	"flag"
	"fmt"
	"log"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// way is how the origin is reached.
type way struct {
	name  string
	route *route
	path  string // prefix of paths
}

func main() {
	log.SetFlags(0)
	log.SetPrefix("sidecar: ")
	if len(os.Args) == 4 && os.Args[1] == "origin" {
		log.Fatal(serveOrigin(os.Args[2], os.Args[3]))
	}
	program := flag.String("program", "", "the bottle-sidecar to measure")
	mitmdump := flag.String("mitmdump", "mitmdump", "the mitmdump to compare with")
	rounds := flag.Int("n", 5, "rounds, after one that does not count")
	connections := flag.Int("connections", 16, "connections of the load")
	size := flag.Int64("size", 512, "of the download, in MiB")
	span := flag.Duration("span", 2*time.Second, "how long one measurement of requests takes")
	profile := flag.Duration("hold", 0, "only load both hops for so long, for a profiler to look at")
	flag.Parse()
	if err := run(*program, *mitmdump, *rounds, *connections, *size<<20, *span, *profile); err != nil {
		log.Fatal(err)
	}
}

func run(program, mitmdump string, rounds, connections int, size int64, span, hold time.Duration) error {
	b, err := newBench(program, mitmdump)
	if err != nil {
		return err
	}
	defer b.close()
	idle, err := b.memory()
	if err != nil {
		return err
	}
	direct := way{"direct", &route{address: b.origin, roots: b.originRoots}, ""}
	mitm := way{"mitmdump, one hop", &route{address: b.origin, proxy: b.mitm, roots: b.mitmRoots}, ""}
	both := way{"both hops, by the allowlist", &route{address: b.origin, proxy: b.egress, roots: b.agentRoots}, ""}
	routed := way{"both hops, by a route that injects a credential", &route{address: b.routed, proxy: b.egress, roots: b.agentRoots}, ""}
	if hold > 0 {
		for _, p := range b.sidecars {
			log.Printf("%s is process %d", p.name, p.cmd.Process.Pid)
		}
		_, err := both.route.requests(connections, hold)
		return err
	}

	ways := []way{direct, mitm, both, routed}
	rates, latencies, downloads, cpu := table{}, table{}, table{}, table{}
	proxies := map[string][]*process{mitm.name: b.mitmdump, both.name: b.sidecars, routed.name: b.sidecars}
	for round := range rounds + 1 {
		for _, w := range ways {
			log.Printf("round %d of %d: %s", round, rounds, w.name)
			before := busy(proxies[w.name])
			many, err := w.route.requests(connections, span)
			if err != nil {
				return fmt.Errorf("%s: %w", w.name, err)
			}
			spent := busy(proxies[w.name]) - before
			one, err := w.route.requests(1, span)
			if err != nil {
				return fmt.Errorf("%s: %w", w.name, err)
			}
			var rate float64
			if w.name != mitm.name { // which reads a body whole before it sends it on
				if rate, err = w.route.download(size); err != nil {
					return fmt.Errorf("%s: %w", w.name, err)
				}
			}
			if round > 0 {
				rates.add(w.name, many.rate)
				cpu.add(w.name, float64(spent.Microseconds())/many.count)
				latencies.add(w.name, one.p50)
				downloads.add(w.name, rate)
			}
		}
	}
	loaded, err := b.memory()
	if err != nil {
		return err
	}
	version, err := exec.Command(mitmdump, "--version").Output()
	if err != nil {
		return err
	}
	first, _, _ := strings.Cut(string(version), "\n")
	fmt.Printf("%s, %d processors, %s; %s. Medians of %d rounds in turn, lowest and highest in brackets.\n\n", runtime.Version(), runtime.NumCPU(), kernel(), first, rounds)
	fmt.Printf("| way | requests/s, %d connections | processor time of the proxies, µs a request | p50 in µs, one connection | added to direct | download of %d MiB, MiB/s |\n|---|---:|---:|---:|---:|---:|\n", connections, size>>20)
	for _, w := range ways {
		download := "–"
		if w.name != mitm.name {
			download = downloads.show(w.name)
		}
		fmt.Printf("| %s | %s | %s | %s | %.0f | %s |\n", w.name, rates.show(w.name), cpu.show(w.name), latencies.show(w.name), latencies.median(w.name)-latencies.median(direct.name), download)
	}
	fmt.Printf("\n| goal | by the allowlist | by a route |\n|---|---:|---:|\n")
	ratio := func(title string, of func(way) float64) {
		fmt.Printf("| %s | %.2f | %.2f |\n", title, of(both), of(routed))
	}
	ratio("requests per second against mitmdump: at least 10", func(w way) float64 { return rates.median(w.name) / rates.median(mitm.name) })
	ratio("the same by processor time: what mitmdump takes against what both take", func(w way) float64 { return cpu.median(mitm.name) / cpu.median(w.name) })
	ratio("p50 added against what mitmdump adds: at most 0.2", func(w way) float64 {
		return (latencies.median(w.name) - latencies.median(direct.name)) / (latencies.median(mitm.name) - latencies.median(direct.name))
	})
	ratio("download against direct: at least 0.5", func(w way) float64 { return downloads.median(w.name) / downloads.median(direct.name) })
	fmt.Printf("\nMemory of both sidecars, idle: %s; after the load: %s.\n", idle, loaded)
	return nil
}

// ticks is how many clock ticks a second /proc counts in, on every Linux that Go runs on.
const ticks = 100

// busy returns the processor time that processes have taken.
func busy(processes []*process) (total time.Duration) {
	for _, p := range processes {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
		if err != nil {
			log.Fatalf("%s has ended: %v", p.name, err)
		}
		_, rest, _ := strings.Cut(string(data), ") ")
		fields := strings.Fields(rest)
		for _, f := range fields[11:13] { // utime and stime
			n, err := strconv.ParseInt(f, 10, 64)
			if err != nil {
				log.Fatal(err)
			}
			total += time.Duration(n) * time.Second / ticks
		}
	}
	return total
}

// table holds the measurements of each way.
type table map[string][]float64

func (t table) add(way string, v float64) { t[way] = append(t[way], v) }

func (t table) median(way string) float64 {
	v := slices.Sorted(slices.Values(t[way]))
	return (v[len(v)/2] + v[(len(v)-1)/2]) / 2
}

func (t table) show(way string) string {
	return fmt.Sprintf("%.0f (%.0f–%.0f)", t.median(way), slices.Min(t[way]), slices.Max(t[way]))
}

func kernel() string {
	data, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return "a kernel that does not tell its version"
	}
	return "kernel " + strings.TrimSpace(string(data))
}

// percentile returns the value below which a share of the values lies.
func percentile[T cmp.Ordered](values []T, share float64) T {
	slices.Sort(values)
	return values[int(float64(len(values)-1)*share)]
}

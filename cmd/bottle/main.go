// Command bottle runs agents in sealed containers on Docker, Podman or
// containerd. See docs/exit-codes.md for its exit statuses.
package main

import "os"

// version is set by the linker.
var version = "unknown"

func main() {
	if os.Args[0] == watchdogName {
		os.Exit(watchdogMain())
	}
	os.Exit(run(os.Args, systemIO()))
}

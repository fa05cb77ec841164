// Command bottle runs agents in sealed containers on Docker, Podman or
// containerd. See docs/exit-codes.md for its exit statuses.
package main

import "os"

// version is set by the linker.
var version = "unknown"

func main() { os.Exit(run(os.Args, systemIO())) }

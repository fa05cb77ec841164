//go:build !linux

package conformance

// The engine's host is another machine: there is nothing of its to see here.
func hostSnapshot([]string) (map[string][]string, error) { return nil, nil }

func childProcesses() ([]string, error) { return nil, nil }

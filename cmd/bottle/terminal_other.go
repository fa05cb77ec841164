//go:build !linux

package main

import "os"

// terminalState is what another process would need; only Linux tells it.
type terminalState struct {
	Name string `json:"name"`
}

func stateOf(*os.File) (terminalState, bool) { return terminalState{}, false }

func (terminalState) restore() {}

// Package gitgate is git in a bottle: from the manifest's repositories to what the git gate
// is told, and to the settings by which the agent's git speaks to it.
//
// The settings are a convenience for the agent and protect nothing: what the agent may
// reach is decided by its networks, and what it may push by the gate.
//
// What URLs, names and patterns mean is decided by sidecar/config, which the gate decides
// with: what [New] accepts the gate accepts.
package gitgate

package change

import (
	"github.com/bottle-run/bottle/sidecar/config"
	"github.com/bottle-run/bottle/sidecar/policy"
)

// Configuration is what the agent is told of its policy: what changes are proposed against.
type Configuration struct {
	// Revision names the policy by its content.
	Revision string        `json:"revision"`
	Policy   config.Policy `json:"policy"`
	// Kinds may be proposed, and Secrets may be named in a route.
	Kinds   []string `json:"kinds"`
	Secrets []string `json:"secrets"`
	// File is where the same is found as a file.
	File string `json:"file,omitempty"`
}

// ConfigurationOf returns that of a sidecar's configuration.
func ConfigurationOf(c *config.Supervise) Configuration {
	conf := Configuration{Revision: Revision(c.Policy), Policy: c.Policy, Kinds: c.Kinds, Secrets: c.Secrets, File: c.File}
	if conf.Kinds == nil {
		conf.Kinds = config.ProposalKinds()
	}
	if conf.Secrets == nil {
		conf.Secrets = []string{}
	}
	if conf.Policy.Allow == nil {
		conf.Policy.Allow = []policy.Rule{}
	}
	if conf.Policy.Routes == nil {
		conf.Policy.Routes = []policy.Route{}
	}
	return conf
}

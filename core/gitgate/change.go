package gitgate

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"

	"go.yaml.in/yaml/v3"

	"github.com/bottle-run/bottle/core/manifest"
	"github.com/bottle-run/bottle/sidecar/config"
)

// Change returns what a gate that has a configuration in force does by another section git:
// what may be pushed, and whether any object may be fetched. Which repositories there are,
// their URLs and credentials stay as they are: the agent's git has been told of them, and the
// gate has their keys. Everything that is wrong is told to fail; what is returned is then of
// no use.
func Change(live *config.GitGate, section map[string]manifest.Repository, fail func(keys []string, format string, args ...any)) *config.GitGate {
	changed := *live
	changed.Repositories = slices.Clone(live.Repositories)
	for i := range changed.Repositories {
		r := &changed.Repositories[i]
		m, ok := section[r.Name]
		if !ok {
			fail([]string{"git"}, "git: the repository %s is missing, and a bottle that runs keeps its repositories: without push nothing may be pushed to it", r.Name)
			continue
		}
		if m.URL != r.URL {
			fail([]string{"git", r.Name, "url"}, "url: the bottle was launched with %s: launch it again", r.URL)
		}
		if c := m.Credential; c != nil && (r.Credential == nil || c.Token != r.Credential.Secret || cmp.Or(c.Kind, manifest.GitBasic) != r.Credential.Kind || c.Username != r.Credential.Username) {
			fail([]string{"git", r.Name, "credential"}, "credential: the bottle was launched with another: launch it again")
		}
		r.Push, r.AnyObject = push(m.Push), m.AnyObject
		checkPush(fail, r.Name, r.Push)
	}
	for name := range section {
		if !slices.ContainsFunc(live.Repositories, func(r config.GitRepository) bool { return r.Name == name }) {
			fail([]string{"git", name}, "git: the bottle was launched without the repository %s: launch it again", name)
		}
	}
	return &changed
}

// The manifest's section git, for writing.
type (
	yamlRepository struct {
		URL        string          `yaml:"url"`
		Credential *yamlCredential `yaml:"credential,omitempty"`
		Push       *yamlPush       `yaml:"push,omitempty"`
		AnyObject  bool            `yaml:"any_object,omitempty"`
	}
	yamlCredential struct {
		Token    string `yaml:"token"`
		Kind     string `yaml:"kind"`
		Username string `yaml:"username,omitempty"`
	}
	yamlPush struct {
		Branches []string `yaml:"branches,omitempty,flow"`
		Tags     []string `yaml:"tags,omitempty,flow"`
		Notes    []string `yaml:"notes,omitempty,flow"`
		Force    bool     `yaml:"force,omitempty"`
		Delete   bool     `yaml:"delete,omitempty"`
	}
)

// Section writes what a gate has in force as the manifest's section git, as [Change] takes
// it. Where keys came from is not known any more.
func Section(c *config.GitGate) ([]byte, error) {
	all := map[string]yamlRepository{}
	for _, r := range c.Repositories {
		y := yamlRepository{URL: r.URL, AnyObject: r.AnyObject, Push: (*yamlPush)(r.Push)}
		if k := r.Credential; k != nil && k.Kind != config.GitSSHKey {
			y.Credential = &yamlCredential{Token: k.Secret, Kind: k.Kind, Username: k.Username}
		}
		all[r.Name] = y
	}
	var out bytes.Buffer
	enc := yaml.NewEncoder(&out)
	enc.SetIndent(2)
	if err := enc.Encode(map[string]any{"git": all}); err != nil {
		return nil, fmt.Errorf("writing the policy: %w", err)
	}
	return out.Bytes(), nil
}

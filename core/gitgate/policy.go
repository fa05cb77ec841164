package gitgate

import (
	"slices"

	"github.com/bottle-run/bottle/core/egress"
	"github.com/bottle-run/bottle/sidecar/config"
)

// Policy is which repositories there are and what may be pushed to them. It is made by [New]
// and holds no secret, only names of secrets.
type Policy struct {
	// Repositories are sorted by name.
	Repositories []Repository `json:"repositories"`
	// Image replaces the built-in gate.
	Image  string           `json:"image,omitempty"`
	Limits config.GitLimits `json:"limits"`
	// Way is how the upstreams are reached.
	Way egress.Way `json:"way"`
	// Open are the agent's secret variables that are none: they may be pushed.
	Open []string `json:"open,omitempty"`
	// Notes are what the operator should know.
	Notes []string `json:"notes,omitempty"`

	settings []Setting
}

// Repository is one upstream.
type Repository struct {
	Name string `json:"name"`
	URL  string `json:"url"`
	// Credential names the host's variable that holds a token, or [KeySecret] for a key.
	Credential *config.GitCredential `json:"credential,omitempty"`
	// SSHKey and KnownHosts are absolute paths.
	SSHKey     string          `json:"ssh_key,omitempty"`
	KnownHosts []string        `json:"known_hosts,omitempty"`
	Push       *config.GitPush `json:"push,omitempty"`
	AnyObject  bool            `json:"any_object,omitempty"`

	hosts []string // lines of KnownHosts, as they were when the policy was made
}

// KeySecret is the name of the secret that holds the key of a repository. No variable can
// have it.
func KeySecret(repository string) string { return "ssh-key:" + repository }

// Settings are those of the agent's git, see [Settings].
func (p *Policy) Settings() []Setting { return p.settings }

// Restore makes the settings of a policy that has been read back.
func (p *Policy) Restore() error {
	all := make([]config.GitRepository, len(p.Repositories))
	for i, r := range p.Repositories {
		all[i] = config.GitRepository{Name: r.Name, URL: r.URL}
	}
	settings, err := Settings(all)
	p.settings = settings
	return err
}

// Tokens returns the names of the host's variables that the gate needs, sorted.
func (p *Policy) Tokens() []string {
	var names []string
	for _, r := range p.Repositories {
		if r.Credential != nil && r.SSHKey == "" {
			names = append(names, r.Credential.Secret)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Keys returns the absolute paths of the keys' files, by the name of the repository.
func (p *Policy) Keys() map[string]string {
	keys := map[string]string{}
	for _, r := range p.Repositories {
		if r.SSHKey != "" {
			keys[r.Name] = r.SSHKey
		}
	}
	return keys
}

package manifest

import (
	"maps"
	"slices"
	"strconv"
)

// The kinds of a repository's credential.
const (
	GitBasic  = "basic"
	GitBearer = "bearer"
)

// Repository is a git repository that the agent may fetch from, and may push to as far as
// Push says. The agent uses its real URL and has no credential for it.
type Repository struct {
	URL        string         `yaml:"url" doc:"Its URL, as the agent uses it: over https, ssh (also user@host:path) or git." required:"true"`
	Credential *GitCredential `yaml:"credential" doc:"What is presented to a server over https. The agent never gets it."`
	SSHKey     string         `yaml:"ssh_key" doc:"File of the private key for a URL over ssh, without passphrase. The agent never gets it."`
	KnownHosts StringList     `yaml:"known_hosts" doc:"Files of the keys of ssh servers, as ssh-keyscan prints them and ~/.ssh/known_hosts holds them. A URL over ssh needs one that names its host."`
	Push       *Push          `yaml:"push" doc:"What may be pushed. Without it nothing may."`
	AnyObject  bool           `yaml:"any_object" doc:"Let the agent fetch objects that no reference names, if the server gives them: for partial clones, and for submodules at commits that are no tips."`
}

// GitCredential says where a credential for git over https comes from and how it travels.
type GitCredential struct {
	Token    string `yaml:"token" doc:"Name of the host's variable that holds it." required:"true"`
	Kind     string `yaml:"kind" doc:"How it travels: as the password of basic authentication, or as a bearer token. Default: basic." enum:"basic bearer"`
	Username string `yaml:"username" doc:"User name of kind basic. Default: git."`
}

// Push says what may be pushed.
type Push struct {
	Branches []string `yaml:"branches" doc:"Patterns of branches, without refs/heads/: * stands for characters but a slash, ** for any."`
	Tags     []string `yaml:"tags" doc:"Patterns of tags."`
	Notes    []string `yaml:"notes" doc:"Patterns of what may be pushed below refs/notes/."`
	Force    bool     `yaml:"force" doc:"Allow history to be replaced, and tags that are there to be moved."`
	Delete   bool     `yaml:"delete" doc:"Allow references to be deleted."`
}

// GitGate says how the gate between the agent and the repositories runs.
type GitGate struct {
	Image  string    `yaml:"image" doc:"Reference of an image to run instead of the built-in gate."`
	Limits GitLimits `yaml:"limits" doc:"Bounds on what the agent may use of the gate."`
}

// GitLimits bound what may be pushed. Zero means the default.
type GitLimits struct {
	Pack     Size  `yaml:"pack" doc:"Size of what one push sends. Two may be looked at at a time, in memory. Default: 128MiB."`
	Inflated Size  `yaml:"inflated" doc:"Sum of the sizes of all objects of one push. Default: 16GiB."`
	Objects  int64 `yaml:"objects" doc:"Objects of one push. Default: 500000." min:"1"`
	Refs     int64 `yaml:"refs" doc:"References of one push. Default: 100." min:"1"`
}

// The least and the most that one push may be bounded to send, in bytes. Twice as much is
// kept in memory.
const (
	minPack = 1 << 20
	maxPack = 16 << 30
)

// validateGit reports what the shape alone does not. What URLs, patterns and files mean is
// not this package's concern.
func (d *decoder) validateGit(b Bottle, at string) {
	for _, name := range slices.Sorted(maps.Keys(b.Git)) {
		d.validateRepository(b.Git[name], at+"/git/"+name)
	}
	if d.given(at+"/git") && len(b.Git) == 0 {
		d.add(d.positions[at+"/git"], "git names no repository: leave it out, or write git: {NAME: {url: …}}")
	}
	g := at + "/git_gate"
	if !d.given(g) {
		return
	}
	if !d.given(at + "/git") {
		d.add(d.positions[g], "git_gate has no meaning without git: there is no repository")
		return
	}
	d.notEmpty(g+"/image", "image", b.GitGate.Image)
	if p := b.GitGate.Limits.Pack; d.given(g+"/limits/pack") && p != 0 && (p < minPack || p > maxPack) {
		d.add(d.positions[g+"/limits/pack"], "pack: want from 1MiB to 16GiB")
	}
	const most = 1 << 30
	for key, value := range map[string]int64{"objects": b.GitGate.Limits.Objects, "refs": b.GitGate.Limits.Refs} {
		if value > most {
			d.add(d.positions[g+"/limits/"+key], "%s: %d is too large", key, value)
		}
	}
}

func (d *decoder) validateRepository(r Repository, at string) {
	d.notEmpty(at+"/url", "url", r.URL)
	d.notEmpty(at+"/ssh_key", "ssh_key", r.SSHKey)
	if d.given(at+"/known_hosts") && len(r.KnownHosts) == 0 {
		d.add(d.positions[at+"/known_hosts"], "known_hosts is empty")
	}
	for i, file := range r.KnownHosts {
		if file == "" {
			d.add(d.positions[at+"/known_hosts/"+strconv.Itoa(i)], "known_hosts: a file has no name")
		}
	}
	if c := r.Credential; c != nil {
		d.variable(at+"/credential/token", "token", c.Token)
		if c.Username != "" && c.Kind == GitBearer {
			d.add(d.positions[at+"/credential/username"], "username has no meaning with kind bearer")
		}
	}
	if p := r.Push; p != nil && len(p.Branches)+len(p.Tags)+len(p.Notes) == 0 && d.given(at+"/push") {
		d.add(d.positions[at+"/push"], "push names neither branches nor tags nor notes: leave it out if nothing may be pushed, or write branches: [\"agent/**\"]")
	}
}

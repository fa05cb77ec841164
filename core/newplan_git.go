package core

import (
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/bottle-run/bottle/core/egress"
	"github.com/bottle-run/bottle/core/gitgate"
)

// git makes the policy of the git gate, and takes the credentials that it needs.
func (p *planner) git() {
	b := p.bottle
	if b.Git == nil {
		return
	}
	if p.tokens == nil {
		p.tokens = map[string]string{}
	}
	var way egress.Way
	if p.plan.Egress != nil {
		way = p.plan.Egress.Firewall.Way
	} else {
		var more map[string]string
		way, more = egress.NewWay(p.egressSource())
		maps.Copy(p.tokens, more)
	}
	variables := p.variables()
	policy, more := gitgate.New(gitgate.Source{
		Git: b.Git, Gate: b.GitGate, Egress: p.plan.Egress, Way: way, SecretHosts: b.SecretHosts,
		Variables: variables, LookupEnv: p.host.LookupEnv, Path: p.path, Fail: p.atBottle,
	})
	p.plan.Git = policy
	maps.Copy(p.tokens, more)
	for _, name := range slices.Sorted(maps.Keys(variables)) {
		if isGitSetting(name) {
			p.atBottle([]string{"git"}, "git: the agent's variable %s would take the place of the settings by which its git uses the gate: give the agent gitconfig instead", name)
		}
	}
	if allowed, ok := variables["GIT_ALLOW_PROTOCOL"]; ok && !slices.Contains(strings.Split(allowed, ":"), "git") {
		p.atBottle([]string{"git"}, "git: the agent's variable GIT_ALLOW_PROTOCOL leaves out git, by which the gate is spoken to: add it")
	}
}

// noKey refuses a file of the agent's that is a key of the git gate's.
func (p *planner) noKey(i int, source string) {
	if p.plan.Git == nil {
		return
	}
	info, err := os.Stat(source)
	if err != nil {
		return // it has been reported
	}
	for name, key := range p.plan.Git.Keys() {
		if own, err := os.Stat(key); err == nil && os.SameFile(own, info) {
			p.atAgent([]string{"files", strconv.Itoa(i), "source"}, "source: this is the key of the repository %s, which the agent is not to see", name)
		}
	}
}

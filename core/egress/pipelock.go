package egress

// pipelock refuses what pipelock cannot be told: it would not be enforced.
func (b *builder) pipelock() {
	if len(b.Egress.Routes) > 0 {
		b.Fail(key("egress", "routes"), "routes: pipelock cannot tell the egress proxy from the agent, which could go past the routes: use the built-in firewall")
	}
	if b.Egress.AllowAll {
		b.Fail(key("egress", "allow_all"), "allow_all: pipelock is run with its allowlist alone: name the hosts, or use the built-in firewall")
	}
}

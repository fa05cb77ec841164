package main

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
)

// sequential is one command after another, as a script does it.
type sequential struct {
	w   *world
	cli cli
}

func (s *sequential) name() string { return "sequential, `" + s.cli.kind + "`" }

func (s *sequential) derived(round int) string {
	return fmt.Sprintf("localhost/bottle-bench/derived:%d", round)
}

// hardened is what bottle runs its containers with.
var hardened = []string{"--init", "--cap-drop=ALL", "--security-opt=no-new-privileges"}

func (s *sequential) up(_ context.Context, round int) error {
	p, dir := s.w.prefix, s.w.dir
	internal, egress := p+".internal", p+".egress"
	at := func(name string) string { return filepath.Join(dir, name) }
	commands := [][]string{
		{"build", "-q", "-t", agentImage, "-f", at("agent/Dockerfile"), at("agent")}, // cached
		{"build", "-q", "-t", s.derived(round), "-f", at("derived/Dockerfile"), dir},
		{"network", "create", "--internal", internal},
		{"network", "create", egress},
		{"network", "inspect", internal},
	}
	for range 2 {
		// Where the certificates would be made. Making them is not counted.
		commands = append(commands, []string{"run", "--rm", "--network=none", agentImage, "/bin/busybox", "true"})
	}
	for _, role := range roles {
		c := p + "." + role
		commands = append(commands,
			slices.Concat([]string{"create", "--name", c, "--network", internal, "--network-alias", role}, hardened, []string{s.w.sidecar, role}),
			[]string{"network", "connect", egress, c},
			[]string{"cp", at("bottle.yaml"), c + ":/var/lib/bottle/config.yaml"},
			[]string{"cp", at("ca.pem"), c + ":/var/lib/bottle/ca.pem"},
			[]string{"cp", at("key.pem"), c + ":/var/lib/bottle/key.pem"},
			[]string{"start", c},
		)
	}
	commands = append(commands,
		slices.Concat([]string{"run", "-d", "--name", p, "--network", internal}, hardened, []string{s.derived(round), "/bin/busybox", "sleep", "3600"}),
		[]string{"exec", p, "/bin/mkdir", "-p", "/home/robot/.bottle/skills"},
		[]string{"cp", at("ca.pem"), p + ":/tmp/ca.pem"},
		[]string{"exec", p, "/bin/cat", "/etc/passwd"},
		[]string{"cp", at("settings.json"), p + ":/home/robot/.settings.json"},
		[]string{"cp", at("bottle.yaml"), p + ":/home/robot/.bottle/prompt.md"},
		[]string{"cp", at("skill"), p + ":/home/robot/.bottle/skills/skill"},
		[]string{"exec", "--user=0", p, "/bin/ls", "-l", "/tmp/ca.pem"},
		[]string{"cp", at("settings.json"), p + ":/home/robot/.gitconfig"},
		[]string{"exec", p, "/bin/id"},
		[]string{"exec", p, "/bin/ls", "/workspace"},
		[]string{"exec", p, "/bin/busybox", "echo", "up"},
	)
	for _, c := range commands {
		if _, err := s.cli.do(c...); err != nil {
			return err
		}
	}
	return nil
}

// remove are the words that remove a container at once.
func (c cli) remove(name string) []string {
	if c.kind == "podman" {
		// Without it, it waits ten seconds for what ignores SIGTERM.
		return []string{"rm", "-f", "-t", "0", name}
	}
	return []string{"rm", "-f", name}
}

func (s *sequential) down(context.Context, int) error {
	for _, c := range s.removals() {
		if _, err := s.cli.do(c...); err != nil {
			return err
		}
	}
	return nil
}

// removals undo it in reverse.
func (s *sequential) removals() [][]string {
	p := s.w.prefix
	commands := [][]string{s.cli.remove(p)}
	for _, role := range slices.Backward(roles) {
		commands = append(commands, s.cli.remove(p+"."+role))
	}
	return append(commands, []string{"network", "rm", p + ".egress"}, []string{"network", "rm", p + ".internal"})
}

// clear removes the image of the round: others would slow down what comes after.
func (s *sequential) clear(_ context.Context, round int) { _, _ = s.cli.do("rmi", s.derived(round)) }

package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// composeWay is docker-compose with an equivalent definition: it knows of no readiness but
// that a container runs, and mounts configuration.
type composeWay struct {
	w *world
	o options
}

func (c *composeWay) name() string { return "`docker-compose`" }

func (c *composeWay) file() string { return filepath.Join(c.w.dir, "docker-compose.yaml") }

func (c *composeWay) write() error {
	var b strings.Builder
	service := func(name, image, command string, networks []string) {
		fmt.Fprintf(&b, "  %s:\n    %s\n    command: %s\n    init: true\n    cap_drop: [ALL]\n    security_opt: [no-new-privileges]\n    networks: [%s]\n", name, image, command, strings.Join(networks, ", "))
	}
	b.WriteString("version: '2.4'\nservices:\n")
	for _, role := range roles {
		service(role, "image: "+c.w.sidecar, "["+role+"]", []string{"internal", "egress"})
		fmt.Fprintf(&b, "    volumes: ['%s:/etc/sidecar:ro']\n", c.w.dir)
	}
	service("agent", "build: {context: ., dockerfile: derived/Dockerfile}", "[/bin/busybox, sleep, '3600']", []string{"internal"})
	fmt.Fprintf(&b, "    depends_on: [%s]\n", strings.Join(roles, ", "))
	b.WriteString("networks:\n  internal: {internal: true}\n  egress: {}\n")
	return os.WriteFile(c.file(), []byte(b.String()), 0o644)
}

func (c *composeWay) compose(args ...string) error {
	cmd := exec.Command("docker-compose", append([]string{"-p", "bench-compose", "-f", c.file()}, args...)...)
	cmd.Env = append(os.Environ(), "DOCKER_HOST="+c.o.host)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", cmd, err, out)
	}
	return nil
}

func (c *composeWay) up(context.Context, int) error {
	if err := c.write(); err != nil {
		return err
	}
	if err := c.compose("up", "-d", "--build"); err != nil {
		return err
	}
	return c.compose("exec", "-T", "agent", "/bin/busybox", "echo", "up")
}

func (c *composeWay) down(context.Context, int) error { return c.compose("down", "-t", "0") }

func (c *composeWay) clear(context.Context, int) {}

// kubeWay is podman kube play: a pod a container, so that each has an address and a name
// of its own, all on both networks, which are made before: its definition has no networks.
type kubeWay struct {
	w   *world
	cli cli
}

func (k *kubeWay) name() string { return "`podman kube play`" }

func (k *kubeWay) definition(round int) string {
	var b strings.Builder
	pod := func(name, image, args string) {
		fmt.Fprintf(&b, `---
apiVersion: v1
kind: Pod
metadata: {name: bench-kube-%s}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: main
    image: %s
    imagePullPolicy: Never
    %s
    securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
`, name, image, args)
	}
	for _, role := range roles {
		pod(role, k.w.sidecar, "args: ["+role+"]")
	}
	pod("agent", fmt.Sprintf("localhost/bottle-bench/derived:kube-%d", round), "command: [/bin/busybox, sleep, '3600']")
	return b.String()
}

func (k *kubeWay) play(round int, args ...string) error {
	cmd := k.cli.command(append([]string{"play", "kube"}, append(args, "-")...)...)
	cmd.Stdin = bytes.NewReader([]byte(k.definition(round)))
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", cmd, err, out)
	}
	return nil
}

func (k *kubeWay) up(_ context.Context, round int) error {
	for _, c := range [][]string{
		{"build", "-q", "-t", fmt.Sprintf("localhost/bottle-bench/derived:kube-%d", round), "-f", filepath.Join(k.w.dir, "derived/Dockerfile"), k.w.dir},
		{"network", "create", "--internal", "bench-kube-internal"},
		{"network", "create", "bench-kube-egress"},
	} {
		if _, err := k.cli.do(c...); err != nil {
			return err
		}
	}
	if err := k.play(round, "--network", "bench-kube-internal", "--network", "bench-kube-egress"); err != nil {
		return err
	}
	_, err := k.cli.do("exec", "bench-kube-agent-main", "/bin/busybox", "echo", "up")
	return err
}

func (k *kubeWay) down(_ context.Context, round int) error {
	if err := k.play(round, "--down"); err != nil {
		return err
	}
	_, err := k.cli.do("network", "rm", "bench-kube-internal", "bench-kube-egress")
	return err
}

func (k *kubeWay) clear(_ context.Context, round int) {
	_, _ = k.cli.do("rmi", fmt.Sprintf("localhost/bottle-bench/derived:kube-%d", round))
}

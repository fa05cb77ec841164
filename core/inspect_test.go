package core_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/bottle-run/bottle/core"
	"github.com/bottle-run/bottle/runtime/fake"
)

func TestABottleIsDescribedWithoutItsSecrets(t *testing.T) {
	b, s := sealedBench(t)
	bottle, err := b.launchSealed(t.Context(), sealedText)
	if err != nil {
		t.Fatal(err)
	}
	in, err := bottle.Inspect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var roles, health []string
	for _, c := range in.Containers {
		roles = append(roles, c.Role)
		health = append(health, c.Health)
		if len(c.Addresses) == 0 || c.Image == "" {
			t.Errorf("%+v", c)
		}
	}
	slices.Sort(roles)
	slices.Sort(health)
	if !slices.Equal(roles, []string{core.RoleAgent, core.RoleEgressProxy, core.RoleFirewall}) || !slices.Equal(health, []string{"", core.HealthReady, core.HealthReady}) {
		t.Errorf("containers %q, %q", roles, health)
	}
	if len(in.Networks) != 2 || !in.Networks[0].Internal || in.Engine.Name != fake.Name || in.State != "running" || in.Labels[core.LabelAgent] != "coder" {
		t.Errorf("%+v", in)
	}
	first := in.PolicyRevision
	if first == "" || len(in.Notes) > 0 {
		t.Errorf("revision %q, notes %q", first, in.Notes)
	}
	text, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{"token-value-kestrel", "canary-value-kestrel"} {
		if strings.Contains(string(text), secret) {
			t.Errorf("it holds %s", secret)
		}
	}
	// The revision follows the policy, and a sidecar that is not ready says why.
	if err := bottle.SetPolicy(t.Context(), "p", []byte("egress: {allow: [b.test], routes: [{host: api.test, credential: {token: TOKEN}}]}\n"), b.host); err != nil {
		t.Fatal(err)
	}
	if in, err = bottle.Inspect(t.Context()); err != nil || in.PolicyRevision == first || in.PolicyRevision == "" {
		t.Errorf("revision %q, then %q, %v", first, in.PolicyRevision, err)
	}
	s.mu.Lock()
	s.refuse[core.RoleFirewall] = "no authority"
	s.mu.Unlock()
	if err := b.rt.Kill(t.Context(), "bottle-coder.egress-proxy", "SIGKILL"); err != nil {
		t.Fatal(err)
	}
	in, err = bottle.Inspect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range in.Containers {
		switch c.Role {
		case core.RoleFirewall:
			if c.Health != core.HealthNotReady || c.Reason != "no authority" {
				t.Errorf("%+v", c)
			}
		case core.RoleEgressProxy:
			if c.Health != core.HealthNotReady || c.Status == nil || *c.Status != 137 {
				t.Errorf("%+v", c)
			}
		}
	}
	if err := bottle.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.empty()
}

func TestABrokenBottleIsDescribed(t *testing.T) {
	b, _ := sealedBench(t)
	bottle, err := b.launchSealed(t.Context(), sealedText)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.rt.RemoveContainer(t.Context(), "bottle-coder"); err != nil {
		t.Fatal(err)
	}
	found, err := core.Open(t.Context(), b.rt, "coder", nil)
	if err != nil {
		t.Fatal(err)
	}
	if in, err := found.Inspect(t.Context()); err != nil || in.State != core.StateBroken || len(in.Containers) != 2 || in.Created.IsZero() {
		t.Errorf("%+v, %v", in, err)
	}
	if err := bottle.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}

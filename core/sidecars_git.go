package core

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/bottle-run/bottle/core/gitgate"
	"github.com/bottle-run/bottle/runtime"
	"github.com/bottle-run/bottle/sidecar/delivery"
)

// startGitGate runs the git gate and waits until it is ready.
func (l *launch) startGitGate(ctx context.Context) (err error) {
	policy := l.plan.Git
	for _, note := range policy.Notes {
		l.report.note(stepGitGate, note)
	}
	spec := l.builtInSpec(RoleGitGate, l.network.ID, l.egressNetwork.ID)
	// Packs lie in memory, which counts as the container's.
	spec.Tmpfs = append(spec.Tmpfs, runtime.Tmpfs{Target: gitgate.QuarantineDir, Size: policy.QuarantineBytes()})
	if spec.Limits.Memory > 0 {
		spec.Limits.Memory += policy.QuarantineBytes()
	}
	config, err := json.Marshal(policy.Config(l.plan.Agent))
	if err != nil {
		return err
	}
	l.gitGate, err = l.runReady(ctx, stepGitGate, spec, delivery.Document{
		Config: config, CorporateRoots: string(policy.Way.CorporatePEM()),
		Secrets: policy.Secrets(gitgate.Values{Variables: l.opts.Secrets.values, Tokens: l.opts.Secrets.tokens}),
	})
	return err
}

// The variables by which git takes settings.
const (
	gitCount       = "GIT_CONFIG_COUNT"
	gitKeyPrefix   = "GIT_CONFIG_KEY_"
	gitValuePrefix = "GIT_CONFIG_VALUE_"
	// maxGitSettings is how many settings of an image's are gone on from.
	maxGitSettings = 10_000
)

// isGitSetting reports whether git takes settings from a variable.
func isGitSetting(name string) bool {
	return name == gitCount || strings.HasPrefix(name, gitKeyPrefix) || strings.HasPrefix(name, gitValuePrefix)
}

// gitEnv makes the agent's git speak to the gate. It goes on from the settings that the
// image has. Without a gate it is empty.
func (l *launch) gitEnv() (map[string]string, error) {
	if l.plan.Git == nil {
		return nil, nil
	}
	first := 0
	if own := imageEnv(l.image.Config.Env, gitCount); own != "" {
		n, err := strconv.Atoi(own)
		if err != nil || n < 0 || n > maxGitSettings {
			return nil, Errorf(KindInput, "the image sets %s to %q, which is no number of settings, and git refuses it: change the image", gitCount, own)
		}
		first = n
	}
	return gitgate.Environment(l.plan.Git.Settings(), first), nil
}

// refuseKeys refuses a copy for the agent that holds a key of the gate's.
func (l *launch) refuseKeys() error {
	if l.plan.Git == nil {
		return nil
	}
	for name, key := range l.plan.Git.Keys() {
		trees := map[string]string{} // for what is said
		if l.tree != nil {
			if held, err := l.tree.Holds(key); err != nil {
				return withKind(KindInput, err)
			} else if held {
				trees[l.tree.Root] = "leave it out by a line in .bottleignore"
			}
		}
		for source, tree := range l.trees {
			if held, err := tree.Holds(key); err != nil {
				return withKind(KindInput, err)
			} else if held {
				trees[source] = "keep it elsewhere"
			}
		}
		for root, advice := range trees {
			return withKind(KindInput, fmt.Errorf("the agent would get %s, the key of the repository %s, in its copy of %s: %s", key, name, root, advice))
		}
	}
	return nil
}

package main

import (
	"log/slog"

	"github.com/bottle-run/bottle/sidecar/gitgate"
)

func serveGitGate(c *call) error {
	return c.serve("git-gate", func(config, secrets string, log *slog.Logger, open opener) sidecar {
		gitgate.SetMemoryLimit() // packs need more than requests do
		return gitgate.New(config, secrets, log, open)
	})
}

package conformance

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"testing"
)

// EnvProbe names the probe's executable for the engine's architecture.
const EnvProbe = "BOTTLE_PROBE"

const probeName = "bottle-probe"

// findProbe returns the path of the probe: the one named by BOTTLE_PROBE, or the
// one beside this executable; under go test one is built.
func findProbe(ctx context.Context, arch string) (string, error) {
	if path := os.Getenv(EnvProbe); path != "" {
		return path, nil
	}
	exe, err := os.Executable()
	if err != nil {
		return "", err
	}
	beside := filepath.Join(filepath.Dir(exe), probeName)
	if _, err := os.Stat(beside); err == nil {
		return beside, nil
	}
	if testing.Testing() {
		return buildProbe(ctx, arch)
	}
	return "", fmt.Errorf("no %s beside %s: put it there or name it with %s", probeName, exe, EnvProbe)
}

// buildProbe builds it with the Go toolchain into the user's cache.
func buildProbe(ctx context.Context, arch string) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "bottle-conformance")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	_, source, _, ok := goruntime.Caller(0)
	if !ok || !filepath.IsAbs(source) {
		return "", errors.New("the test was built without paths: build cmd/bottle-probe and name it with " + EnvProbe)
	}
	out := filepath.Join(dir, probeName+"-"+arch)
	building, err := os.CreateTemp(dir, probeName)
	if err != nil {
		return "", err
	}
	if err := building.Close(); err != nil {
		return "", err
	}
	defer func() { _ = os.Remove(building.Name()) }()
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", building.Name(), "./cmd/bottle-probe")
	cmd.Dir = filepath.Join(filepath.Dir(source), "..", "..")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch, "GOFLAGS=-mod=mod", "GOPROXY=off")
	if text, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the probe: %w\n%s\nbuild cmd/bottle-probe yourself and name it with %s", err, text, EnvProbe)
	}
	// Renamed, since another test may be using it.
	return out, os.Rename(building.Name(), out)
}

package gitgate_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/bottle-run/bottle/core/gitgate"
	"github.com/bottle-run/bottle/sidecar/config"
)

// resolve asks the real git what it would dial.
func resolve(t *testing.T, settings []gitgate.Setting, url string) string {
	t.Helper()
	git, err := exec.LookPath("git")
	if err != nil {
		t.Fatalf("git is needed: %v", err)
	}
	cmd := exec.CommandContext(t.Context(), git, "ls-remote", "--get-url", url)
	cmd.Dir = t.TempDir()
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + cmd.Dir, "GIT_CONFIG_NOSYSTEM=1", "GIT_CEILING_DIRECTORIES=" + cmd.Dir}
	for name, value := range gitgate.Environment(settings, 0) {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", url, err, out)
	}
	return strings.TrimSpace(string(out))
}

func TestGitDialsTheGateForEveryFormOfAURL(t *testing.T) {
	settings, err := gitgate.Settings([]config.GitRepository{
		{Name: "one", URL: "https://code.example/team/repo.git"},
		{Name: "long", URL: "git@code.example:team/repo-long"},
		{Name: "odd", URL: "ssh://deploy@code.example:2222/team/odd.git"},
		{Name: "disk", URL: "file:///srv/git/disk.git"},
	})
	if err != nil {
		t.Fatal(err)
	}
	const gate = "git://git-gate/"
	for url, want := range map[string]string{
		"https://code.example/team/repo.git":             gate + "one.git",
		"https://code.example/team/repo":                 gate + "one.git/",
		"https://code.example:443/team/repo.git":         gate + "one.git",
		"https://git@code.example/team/repo.git":         gate + "one.git",
		"ssh://git@code.example/team/repo.git":           gate + "one.git",
		"ssh://git@code.example:22/team/repo":            gate + "one.git/",
		"git@code.example:team/repo.git":                 gate + "one.git",
		"git@code.example:/team/repo":                    gate + "one.git/",
		"code.example:team/repo.git":                     gate + "one.git",
		"git://code.example/team/repo.git":               gate + "one.git",
		"https://code.example/team/repo-long":            gate + "long.git/",
		"https://code.example/team/repo-long.git":        gate + "long.git",
		"ssh://deploy@code.example:2222/team/odd.git":    gate + "odd.git",
		"ssh://code.example:2222/team/odd":               gate + "odd.git/",
		"file:///srv/git/disk.git":                       gate + "disk.git",
		"https://code.example:2222/team/odd.git":         "https://code.example:2222/team/odd.git",
		"https://other.example/team/repo.git":            "https://other.example/team/repo.git",
		"https://code.example.evil.example/team/repo.gi": "https://code.example.evil.example/team/repo.gi",
		// Not another repository of the gate's, whatever that is called.
		"https://code.example/team/repo2.git": gate + "one.git/2.git",
	} {
		if got := resolve(t, settings, url); got != want {
			t.Errorf("%s leads to %s, want %s", url, got, want)
		}
	}
}

func TestAURLOfTwoRepositoriesIsRefused(t *testing.T) {
	_, err := gitgate.Settings([]config.GitRepository{
		{Name: "one", URL: "https://code.example/team/repo.git"}, {Name: "two", URL: "git@code.example:team/repo"},
	})
	if err == nil || !strings.Contains(err.Error(), "one and two") {
		t.Errorf("got %v", err)
	}
	for _, bad := range []config.GitRepository{{Name: "-x", URL: "https://code.example/r"}, {Name: "x", URL: "ext::sh -c id"}} {
		if _, err := gitgate.Settings([]config.GitRepository{bad}); err == nil {
			t.Errorf("%+v is taken", bad)
		}
	}
}

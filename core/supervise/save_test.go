package supervise

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bottle-run/bottle/sidecar/config"
	"github.com/bottle-run/bottle/sidecar/policy"
	"github.com/bottle-run/bottle/sidecar/supervise/change"
)

const savedText = `# Bottles of the project.
bottles:
  dev:
    image: img   # pinned elsewhere
    supervise: true
    egress:
      # What the build needs.
      allow:
        - registry.test # packages
        - {id: docs, host: docs.test, ports: [443]}
      routes:
        - host: api.test
          credential: {token: TOKEN} # from the environment
    git:
      project:
        url: https://git.test/p.git
        push: {branches: ["agent/**"]}
agents:
  coder: {bottle: dev} # the one
`

func TestAnApprovedChangeIsWrittenToTheManifest(t *testing.T) {
	for name, tc := range map[string]struct {
		change   change.Change
		old, new string // what is replaced
	}{
		"a host": {
			change.Change{Kind: config.ProposeAllow, Allow: &change.Allow{Add: []policy.Rule{{Host: "new.test:8443"}}}},
			"ports: [443]}\n", "ports: [443]}\n        - host: new.test\n          ports: [8443]\n",
		},
		"a host that goes": {
			change.Change{Kind: config.ProposeAllow, Allow: &change.Allow{Remove: []string{"docs"}}},
			"        - {id: docs, host: docs.test, ports: [443]}\n", "",
		},
		"a route": {
			change.Change{Kind: config.ProposeRoutes, Routes: &change.Routes{Add: []policy.Route{{Host: "b.test", Methods: []string{"get"}}}}},
			"# from the environment\n", "# from the environment\n        - host: b.test\n          methods: [GET]\n",
		},
		"a branch": {
			change.Change{Kind: config.ProposeGitPush, GitPush: &change.GitPush{Repository: "project", Add: &config.GitPush{Branches: []string{"fix/*"}, Force: true}}},
			`{branches: ["agent/**"]}`, `{branches: ["agent/**", fix/*], force: true}`,
		},
		"what is there already": {
			change.Change{Kind: config.ProposeAllow, Allow: &change.Allow{Add: []policy.Rule{{Host: "registry.test"}}}}, "x", "x",
		},
	} {
		got, err := Rewrite("bottle.yaml", []byte(savedText), "coder", "p1", tc.change)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if want := strings.Replace(savedText, tc.old, tc.new, 1); string(got) != want {
			t.Errorf("%s:\n%s\nwant\n%s", name, got, want)
		}
	}
}

func TestWhatCannotBeWrittenToAManifestIsSaid(t *testing.T) {
	gone := change.Change{Kind: config.ProposeAllow, Allow: &change.Allow{Remove: []string{"nowhere.test"}}}
	for name, tc := range map[string]struct {
		text, agent, says string
		change            change.Change
	}{
		"another agent":           {savedText, "eve", "no agent", gone},
		"no manifest":             {"x: 1", "coder", "bottle.yaml", gone},
		"what is not there":       {savedText, "coder", "does not fit", gone},
		"a Dockerfile":            {savedText, "coder", "not as the policy", change.Change{Kind: config.ProposeDockerfile, Dockerfile: &change.Dockerfile{Content: "FROM x"}}},
		"an unknown repository":   {savedText, "coder", "no repository", change.Change{Kind: config.ProposeGitPush, GitPush: &change.GitPush{Repository: "x", Add: &config.GitPush{Force: true}}}},
		"a policy that is no one": {strings.Replace(savedText, "docs.test", "'*.*'", 1), "coder", "bottle.yaml:", gone},
	} {
		if _, err := Rewrite("bottle.yaml", []byte(tc.text), tc.agent, "p1", tc.change); err == nil || !strings.Contains(err.Error(), tc.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAFileIsReplacedAsAWholeAndOnlyAsItWasRead(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "bottle.yaml")
	if err := os.WriteFile(file, []byte("old"), 0o640); err != nil {
		t.Fatal(err)
	}
	commit, err := replaceFile(file, []byte("old"), []byte("new"))
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(file); string(got) != "old" {
		t.Errorf("written before the commit: %q", got)
	}
	if err := commit(); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(file)
	if got, _ := os.ReadFile(file); err != nil || string(got) != "new" || info.Mode().Perm() != 0o640 {
		t.Errorf("%q, %v, %v", got, info.Mode(), err)
	}
	if err := commit(); err == nil || !strings.Contains(err.Error(), "changed meanwhile") {
		t.Error(err)
	}
	if list, _ := os.ReadDir(dir); len(list) != 1 {
		t.Errorf("left: %v", list)
	}
}

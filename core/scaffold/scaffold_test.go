package scaffold_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"

	"github.com/bottle-run/bottle/core"
	"github.com/bottle-run/bottle/core/manifest"
	"github.com/bottle-run/bottle/core/scaffold"
)

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func environment(names ...string) func(string) (string, bool) {
	return func(n string) (string, bool) {
		if slices.Contains(names, n) {
			return "a value of some length", true
		}
		return "", false
	}
}

// TestEveryCombinationIsAPlan writes each agent's files for each language, with its
// key and without, and plans a launch from them.
func TestEveryCombinationIsAPlan(t *testing.T) {
	combinations := [][]string{{"node", "python", "go", "rust", "java"}, {"python", "node"}}
	for _, l := range scaffold.Languages() {
		combinations = append(combinations, []string{l})
	}
	for _, agent := range scaffold.Agents() {
		for _, languages := range combinations {
			for _, env := range []func(string) (string, bool){environment(), environment("ANTHROPIC_API_KEY", "OPENAI_API_KEY")} {
				name := agent + " for " + strings.Join(languages, ", ")
				dir := t.TempDir()
				s, err := scaffold.New(os.DirFS(dir), scaffold.Options{Agent: agent, Languages: languages, LookupEnv: env})
				check(t, err)
				check(t, s.Write(dir, false))
				m, err := manifest.Load(filepath.Join(dir, scaffold.ManifestFile))
				if err != nil {
					t.Fatalf("%s: %v\n%s", name, err, s.Files[0].Content)
				}
				plan, _, err := core.NewPlan(m, core.Host{WorkDir: dir, HomeDir: dir, LookupEnv: env}, core.Wishes{})
				if err != nil {
					t.Fatalf("%s: %v\n%s", name, err, s.Files[0].Content)
				}
				if plan.Agent != agent || plan.Image.Build == nil || len(plan.Command) == 0 || plan.Egress == nil {
					t.Errorf("%s: %+v", name, plan)
				}
				if routes := len(m.Bottles["dev"].Egress.Routes); (routes == 1) != (agent != "shell" && s.Token == "") {
					t.Errorf("%s: %d routes, token %q", name, routes, s.Token)
				}
				builds(t, name, s.Files[1].Content)
			}
		}
	}
}

// TestTheCommentsAboutAKeyCanBeTakenAway does what they say.
func TestTheCommentsAboutAKeyCanBeTakenAway(t *testing.T) {
	for _, agent := range scaffold.Agents() {
		dir := t.TempDir()
		s, err := scaffold.New(os.DirFS(dir), scaffold.Options{Agent: agent, LookupEnv: environment()})
		check(t, err)
		if s.Token == "" {
			continue
		}
		text := regexp.MustCompile(`(?m)^( +)# ((routes:|  - id|    host|    credential|`+s.Token+`: |env: \{`+s.Token+`).*)$`).ReplaceAllString(string(s.Files[0].Content), "$1$2")
		s.Files[0].Content = []byte(text)
		check(t, s.Write(dir, false))
		m, err := manifest.Load(filepath.Join(dir, scaffold.ManifestFile))
		if err != nil {
			t.Fatalf("%s: %v\n%s", agent, err, text)
		}
		plan, _, err := core.NewPlan(m, core.Host{WorkDir: dir, HomeDir: dir, LookupEnv: environment(s.Token)}, core.Wishes{})
		if err != nil {
			t.Fatalf("%s: %v\n%s", agent, err, text)
		}
		if len(m.Bottles["dev"].Egress.Routes) != 1 || plan.Env[s.Token] == "" {
			t.Errorf("%s: %+v\n%s", agent, plan, text)
		}
	}
}

// TestTheCommentsAboutGitCanBeTakenAway does it, but for the sentences.
func TestTheCommentsAboutGitCanBeTakenAway(t *testing.T) {
	dir := t.TempDir()
	s, err := scaffold.New(os.DirFS(dir), scaffold.Options{Agent: "shell", LookupEnv: environment()})
	check(t, err)
	s.Files[0].Content = regexp.MustCompile(`(?m)^( +)# ((git:|  project:|  library:).*)$`).ReplaceAll(s.Files[0].Content, []byte("$1$2"))
	check(t, s.Write(dir, false))
	m, err := manifest.Load(filepath.Join(dir, scaffold.ManifestFile))
	check(t, err)
	if git := m.Bottles["dev"].Git; len(git) != 2 || git["project"].Push == nil || git["library"].SSHKey == "" {
		t.Errorf("%+v", git)
	}
}

// builds checks that a builder understands a Dockerfile.
func builds(t *testing.T, name string, content []byte) {
	t.Helper()
	tree, err := parser.Parse(bytes.NewReader(content))
	check(t, err)
	stages, _, err := instructions.Parse(tree.AST, nil)
	if err != nil {
		t.Fatalf("%s: %v\n%s", name, err, content)
	}
	last := stages[len(stages)-1]
	user := ""
	for _, c := range last.Commands {
		switch c := c.(type) {
		case *instructions.UserCommand:
			user = c.User
		case *instructions.CopyCommand:
			if c.From == "" {
				t.Errorf("%s: it copies from the project: %s", name, c)
			}
		}
	}
	if user != "agent" || len(tree.Warnings) > 0 || bytes.Contains(content, []byte("<<")) {
		t.Errorf("%s: user %q, warnings %+v", name, user, tree.Warnings)
	}
}

func TestProjectsAreRecognised(t *testing.T) {
	file := func(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }
	for want, dir := range map[string]fstest.MapFS{
		"plain debian:stable-slim":    {"README": file("")},
		"go golang:1.26":              {"go.mod": file("module x\n\ngo 1.26.1\n")},
		"rust rust:1":                 {"Cargo.toml": file("")},
		"java eclipse-temurin:21-jdk": {"build.gradle.kts": file("")},
		"python python:3.12-slim":     {"requirements.txt": file(""), ".python-version": file("3.12.4\n")},
		"node node:22-slim":           {"package.json": file(`{"engines":{"node":">=22.3"}}`)},
		"node node:20-slim":           {"package.json": file("{"), ".nvmrc": file("v20.1.0")},
		"node node:24-slim":           {"package.json": file("not json")},
		"go,python,node golang:1":     {"go.mod": file("module x\n"), "pyproject.toml": file(""), "package.json": file("{}")},
		"python python:3-slim":        {"setup.py": file(""), ".python-version": file("pypy; rm -rf /\n")},
	} {
		s, err := scaffold.New(dir, scaffold.Options{Agent: "shell", LookupEnv: environment()})
		check(t, err)
		names, image, _ := strings.Cut(want, " ")
		if got := strings.Join(s.Languages, ","); got != names || !strings.Contains(string(s.Files[1].Content), "\nFROM "+image+"\n") {
			t.Errorf("want %s, got %s:\n%s", want, got, s.Files[1].Content)
		}
	}
	// A directory of that name is no project file.
	if got := scaffold.Detect(fstest.MapFS{"package.json/x": file("")}); !slices.Equal(got, []string{"plain"}) {
		t.Errorf("got %q", got)
	}
}

func TestNothingIsReplacedUnasked(t *testing.T) {
	for _, there := range []string{scaffold.ManifestFile, scaffold.DockerFile} {
		dir := t.TempDir()
		s, err := scaffold.New(os.DirFS(dir), scaffold.Options{Agent: "shell", LookupEnv: environment()})
		check(t, err)
		check(t, os.MkdirAll(filepath.Join(dir, ".bottle"), 0o755))
		check(t, os.WriteFile(filepath.Join(dir, there), []byte("mine"), 0o644))
		var exists *scaffold.ExistsError
		if err := s.Write(dir, false); !errors.As(err, &exists) || !slices.Equal(exists.Files, []string{there}) {
			t.Errorf("%s: %v", there, err)
		}
		var files []string
		check(t, filepath.WalkDir(dir, func(p string, e os.DirEntry, err error) error {
			if err == nil && !e.IsDir() {
				files = append(files, p)
			}
			return err
		}))
		if content, err := os.ReadFile(filepath.Join(dir, there)); err != nil || string(content) != "mine" || len(files) != 1 {
			t.Errorf("%s: %q, %v; files %q", there, content, err, files)
		}
		check(t, s.Write(dir, true))
		if content, err := os.ReadFile(filepath.Join(dir, there)); err != nil || string(content) == "mine" {
			t.Errorf("%s: %q, %v", there, content, err)
		}
	}
}

func TestNothingIsWrittenOutsideOfTheProject(t *testing.T) {
	dir, outside := t.TempDir(), t.TempDir()
	check(t, os.Symlink(outside, filepath.Join(dir, ".bottle")))
	s, err := scaffold.New(os.DirFS(dir), scaffold.Options{Agent: "shell", LookupEnv: environment()})
	check(t, err)
	for _, force := range []bool{false, true} {
		if err := s.Write(dir, force); err == nil {
			t.Error("a symbolic link was followed")
		}
	}
	if left, err := os.ReadDir(outside); err != nil || len(left) > 0 {
		t.Errorf("%v, %v", left, err)
	}
	if _, err := os.Lstat(filepath.Join(dir, scaffold.ManifestFile)); err == nil {
		t.Error("a part was written")
	}
}

func TestUnknownNames(t *testing.T) {
	for _, o := range []scaffold.Options{{Agent: "hal"}, {Agent: "shell", Languages: []string{"cobol"}}} {
		o.LookupEnv = environment()
		if _, err := scaffold.New(fstest.MapFS{}, o); err == nil || !strings.Contains(err.Error(), "it is one of") {
			t.Errorf("%+v: %v", o, err)
		}
	}
}

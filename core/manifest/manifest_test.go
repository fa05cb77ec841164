package manifest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

const full = `
bottles:
  dev:
    dockerfile: docker/Dockerfile
    context: .
    build_args: {GO: 1.10, FAST: true}
    target: agent
    user: "1000:1000"
    env: {EDITOR: vi, EMPTY: ""}
    env_file: secrets.env
    forward: [API_KEY, TOKEN]
    limits: {memory: 4GiB, pids: 512, cpus: 1.5, nofile: 4096}
    oci_runtime: runsc
    workspace: {path: src, target: /work, ignore: ["*.o"], gitignore: false}
    tmpfs: [/scratch, {path: /cache, size: 100MB}]
  small:
    image: debian:bookworm-slim
    env_file: [a.env, b.env]
    workspace: false
agents:
  claude:
    bottle: dev
    description: Writes code.
    command: [claude, --verbose]
    workdir: /src
    env: {LEVEL: 3}
    prompt: |
      Be kind.
    prompt_path: ~/.claude/CLAUDE.md
    skills: [skills/review]
    skills_path: ~/.claude/skills
    files:
      - {source: conf, target: ~/.config/tool, mode: "0600"}
      - {content: "x\n", target: /etc/x}
    gitconfig: {user.name: Robot, url.https://a.example/x.insteadOf: "git@a.example:x"}
`

func TestEveryKeyIsRead(t *testing.T) {
	m, err := Parse("bottle.yaml", []byte(full))
	if err != nil {
		t.Fatal(err)
	}
	no := false
	want := &Manifest{
		Bottles: map[string]Bottle{
			"dev": {
				Dockerfile: "docker/Dockerfile", Context: ".", BuildArgs: map[string]string{"GO": "1.10", "FAST": "true"}, Target: "agent",
				User: "1000:1000", Env: map[string]string{"EDITOR": "vi", "EMPTY": ""}, EnvFile: StringList{"secrets.env"},
				Forward: []string{"API_KEY", "TOKEN"}, Limits: Limits{Memory: 4 << 30, PIDs: 512, CPUs: 1.5, NoFile: 4096},
				OCIRuntime: "runsc", Workspace: Workspace{Path: "src", Target: "/work", Ignore: []string{"*.o"}, GitIgnore: &no},
				Tmpfs: []Tmpfs{{Path: "/scratch"}, {Path: "/cache", Size: 100_000_000}},
			},
			"small": {Image: "debian:bookworm-slim", EnvFile: StringList{"a.env", "b.env"}, Workspace: Workspace{None: true}},
		},
		Agents: map[string]Agent{"claude": {
			Bottle: "dev", Description: "Writes code.", Command: []string{"claude", "--verbose"}, WorkDir: "/src", Env: map[string]string{"LEVEL": "3"},
			Prompt: "Be kind.\n", PromptPath: "~/.claude/CLAUDE.md", Skills: []string{"skills/review"}, SkillsPath: "~/.claude/skills",
			Files:     []File{{Source: "conf", Target: "~/.config/tool", Mode: 0o600}, {Content: "x\n", Target: "/etc/x"}},
			GitConfig: map[string]string{"user.name": "Robot", "url.https://a.example/x.insteadOf": "git@a.example:x"},
		}},
	}
	if diff := cmp.Diff(want, m, cmpopts.IgnoreUnexported(Manifest{})); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if got := m.Position("bottles", "dev", "forward", "1"); got != (Position{Line: 11, Column: 24}) {
		t.Errorf("the second forwarded variable is at %v", got)
	}
	if got, want := m.Errorf([]string{"bottles", "dev", "dockerfile"}, "gone").Error(), "bottle.yaml:4:17: gone"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// minimal is a valid manifest with one more line in the bottle and the agent.
func minimal(bottle, agent string) string {
	return "bottles:\n  b:\n    image: i\n" + bottle + "agents:\n  a:\n    bottle: b\n" + agent
}

func TestGitIsRead(t *testing.T) {
	m, err := Parse("m", []byte(minimal(`    git:
      web:
        url: https://code.example/web.git
        credential: {token: TOKEN, username: me, kind: basic}
        push: {branches: ["agent/**"], tags: [v*], notes: ["**"], force: true, delete: true}
        any_object: true
      shell: {url: "git@code.example:x", ssh_key: ~/key, known_hosts: [a, b]}
    git_gate: {image: mine, limits: {pack: 64MiB, inflated: 1GiB, objects: 5, refs: 6}}
    firewall: {dns: [198.51.100.53], scan: {off: true}}
    secret_hosts: {X: ["*"]}
`, "")))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]Repository{
		"web": {
			URL: "https://code.example/web.git", Credential: &GitCredential{Token: "TOKEN", Username: "me", Kind: "basic"}, AnyObject: true,
			Push: &Push{Branches: []string{"agent/**"}, Tags: []string{"v*"}, Notes: []string{"**"}, Force: true, Delete: true},
		},
		"shell": {URL: "git@code.example:x", SSHKey: "~/key", KnownHosts: StringList{"a", "b"}},
	}
	if diff := cmp.Diff(want, m.Bottles["b"].Git); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if diff := cmp.Diff(&GitGate{Image: "mine", Limits: GitLimits{Pack: 64 << 20, Inflated: 1 << 30, Objects: 5, Refs: 6}}, m.Bottles["b"].GitGate); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestMistakesAboutGitHaveTheirPlace(t *testing.T) {
	repo := "    git: {r: {url: u}}\n"
	for text, want := range map[string]string{
		"    git: {}\n":                                              "m:4:10: git names no repository: leave it out, or write git: {NAME: {url: …}}",
		"    git: {r: {}}\n":                                         `m:4:14: git "r" has no key "url", which it needs`,
		"    git: {r: https://x}\n":                                  `m:4:14: git "r": want a mapping (key: value), got "https://x"`,
		"    git: {\"a/b\": {url: u}}\n":                             `m:4:11: git: "a/b" is no name`,
		"    git: {r: {url: \"\"}}\n":                                "m:4:20: url is empty",
		"    git: {r: {url: u, user: x}}\n":                          `m:4:23: unknown key "user" in git "r"`,
		"    git: {r: {url: u, push: {}}}\n":                         `m:4:29: push names neither branches nor tags nor notes: leave it out if nothing may be pushed, or write branches: ["agent/**"]`,
		"    git: {r: {url: u, push: true}}\n":                       "m:4:29: push: want a mapping",
		"    git: {r: {url: u, credential: {token: \"ghp_x y\"}}}\n": "m:4:43: token: want the name of a variable of the host's environment (letters, digits and '_'), not the secret itself",
		"    git: {r: {url: u, credential: {token: T, kind: bearer, username: x}}}\n": "m:4:70: username has no meaning with kind bearer",
		"    git: {r: {url: u, credential: {token: T, kind: ssh}}}\n":                 `m:4:52: kind: "ssh" is not known`,
		"    git: {r: {url: u, ssh_key: \"\"}}\n":                                     "m:4:32: ssh_key is empty",
		"    git: {r: {url: u, known_hosts: []}}\n":                                   "m:4:36: known_hosts is empty",
		"    git: {r: {url: u, known_hosts: [a, \"\"]}}\n":                            "m:4:40: known_hosts: a file has no name",
		"    git_gate: {}\n":                                      "m:4:15: git_gate has no meaning without git: there is no repository",
		repo + "    git_gate: {image: \"\"}\n":                    "m:5:23: image is empty",
		repo + "    git_gate: {limits: {pack: 10KiB}}\n":          "m:5:31: pack: want from 1MiB to 16GiB",
		repo + "    git_gate: {limits: {refs: 0}}\n":              "m:5:31: refs: 0 is too small",
		repo + "    git_gate: {limits: {objects: 99999999999}}\n": "m:5:34: objects: 99999999999 is too large",
		repo + "    firewall: {engine: pipelock, image: x}\n":     "m:5:24: engine has no meaning without egress: no firewall runs",
		repo + "    firewall: {limits: {connections: 1}}\n":       "m:5:24: limits has no meaning without egress",
		repo + "    secret_hosts: {A: [x.test]}\n":                "m:5:23: secret_hosts: A: hosts have no meaning without egress: no push may hold a secret",
		repo + "    secret_hosts: {A: []}\n":                      "m:5:23: secret_hosts: A has no host",
	} {
		if _, err := Parse("m", []byte(minimal(text, ""))); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("for %q\ngot  %v\nwant %s", text, err, want)
		}
	}
}

func TestMistakesAreNamedWithTheirPlace(t *testing.T) {
	for name, test := range map[string]struct{ text, want string }{
		"a mistyped key":                      {minimal("    forwrad: [X]\n", ""), `m:4:5: unknown key "forwrad" in bottle "b": did you mean "forward"?`},
		"a key of another tool":               {minimal("", "    cmd: [x]\n"), `m:7:5: unknown key "cmd" in agent "a": did you mean "command"?`},
		"a dash for an underscore":            {minimal("    env-file: x\n", ""), `m:4:5: unknown key "env-file" in bottle "b": did you mean "env_file"?`},
		"a key of a later version":            {minimal("    checkpoint: true\n", ""), `m:4:5: unknown key "checkpoint" in bottle "b": valid are build_args, context, dockerfile, egress, env, env_file, firewall, forward, git, git_gate, image, limits, oci_runtime, read_only, secret_hosts, supervise, target, tmpfs, user, workspace`},
		"a mistyped section":                  {"bottels:\n  b: {image: i}\nagents: {a: {bottle: b}}\n", "m:1:1: unknown key \"bottels\" in the manifest: did you mean \"bottles\"?"},
		"a missing section":                   {"bottles:\n  b: {image: i}\n", `m:1:1: the manifest has no key "agents", which it needs`},
		"no file at all":                      {"", "m:1:1: the manifest is empty: it needs bottles and agents"},
		"only a comment":                      {"# hello\n", "m:1:1: the manifest is empty: it needs bottles and agents"},
		"a list where a mapping is wanted":    {"- x\n", "m:1:1: the manifest: want a mapping (key: value), got a list"},
		"an unknown bottle":                   {"bottles:\n  dev: {image: i}\nagents:\n  a:\n    bottle: dve\n", `m:5:13: there is no bottle "dve": did you mean "dev"?`},
		"an agent with no bottle":             {"bottles:\n  dev: {image: i}\nagents:\n  a:\n    command: [x]\n", `m:5:5: agent "a" has no key "bottle", which it needs`},
		"neither image nor Dockerfile":        {"bottles:\n  b:\n    user: x\nagents: {a: {bottle: b}}\n", "m:3:5: the bottle has neither image nor dockerfile: give one of them"},
		"both image and Dockerfile":           {minimal("    dockerfile: D\n", ""), "m:4:17: both image and dockerfile are given: one of them decides"},
		"build arguments without a build":     {minimal("    build_args: {A: b}\n", ""), "m:4:17: build_args has no meaning with image: it belongs to dockerfile"},
		"a key given twice":                   {minimal("    user: x\n    user: y\n", ""), `m:5:5: bottle "b": key "user" is already given at line 4`},
		"a command as one string":             {minimal("", "    command: run it\n"), `m:7:14: command: want a list, got "run it": write ["run", "it"]`},
		"an empty command":                    {minimal("", "    command: []\n"), "m:7:14: command is empty: leave the key out to run what the image says"},
		"a key with no value":                 {minimal("    user:\n", ""), "m:4:10: user: no value given: give one or leave the key out"},
		"a variable with no value":            {minimal("    env:\n      X:\n", ""), `m:5:9: env "X": no value given: write "" for an empty value, or name the variable in forward to take the host's`},
		"a bad name of a variable":            {minimal("    env: {1X: y}\n", ""), `m:4:11: env: "1X" is no name of a variable: letters, digits and '_', not beginning with a digit`},
		"a variable that bottle sets":         {minimal("    forward: [BOTTLE_EXEC_ID]\n", ""), "m:4:15: forward: BOTTLE_EXEC_ID cannot be set: bottle marks processes with it"},
		"a value forwarded instead of a name": {minimal("    forward: [A=b]\n", ""), `m:4:15: forward: "A=b" is no name of a variable: letters, digits and '_', not beginning with a digit`},
		"a name forwarded twice":              {minimal("    forward: [A, A]\n", ""), "m:4:18: forward: A is named twice"},
		"a bad size":                          {minimal("    limits: {memory: lots}\n", ""), `m:4:22: memory: want a size such as 512MiB or 4GiB, got "lots"`},
		"a limit of nothing":                  {minimal("    limits: {pids: 0}\n", ""), "m:4:20: pids: 0 is too small"},
		"processors that are no number":       {minimal("    limits: {cpus: .nan}\n", ""), `m:4:20: cpus: want a number, got ".nan"`},
		"a boolean in words":                  {minimal("    read_only: yes please\n", ""), `m:4:16: read_only: want true or false, got "yes please"`},
		"a mode in letters":                   {minimal("", "    files: [{content: x, target: /x, mode: rw}]\n"), `m:7:44: mode: want permissions in octal such as "0644", got "rw"`},
		"a target outside of the root":        {minimal("", "    files: [{content: x, target: /a/../b}]\n"), `m:7:34: target: "/a/../b": .. cannot be in a path inside the bottle`},
		"a relative target":                   {minimal("", "    files: [{content: x, target: a}]\n"), `m:7:34: target: "a" is not a path inside the bottle: it begins with / or ~/`},
		"a target in bottle's own directory":  {minimal("", "    files: [{content: x, target: /.bottle/init}]\n"), `m:7:34: target: "/.bottle/init": /.bottle is bottle's own directory`},
		"a file from nowhere":                 {minimal("", "    files: [{target: /x}]\n"), "m:7:13: the file has neither source nor content: give one of them"},
		"a workspace on the root":             {minimal("    workspace: {target: /}\n", ""), `m:4:25: workspace: "/" is the root directory`},
		"a workspace that is true":            {minimal("    workspace: true\n", ""), `m:4:16: workspace: want a directory, a mapping or false, got "true"`},
		"a workspace in a read-only bottle":   {minimal("    read_only: true\n", ""), "m:4:16: read_only leaves no place for a workspace: write workspace: false too"},
		"a prompt in a read-only bottle":      {minimal("    read_only: true\n    workspace: false\n", "    prompt: x\n"), `m:9:13: prompt cannot be put into bottle "b", which is read_only`},
		"a git setting without a section":     {minimal("", "    gitconfig: {name: x}\n"), `m:7:17: gitconfig: "name" is no name of a git setting: want section.name or section.subsection.name, such as user.email`},
		"two skills of one name":              {minimal("", "    skills: [a/x, b/x]\n"), `m:7:19: skills: another skill is named "x" too`},
		"a skill with no name":                {minimal("", "    skills: [..]\n"), `m:7:14: skills: ".." has no name of its own: give a directory by its name`},
		"a tab":                               {"bottles:\n\tb: {image: i}\n", "m:2: this is not YAML: found character that cannot start any token (the line is indented with a tab; YAML wants spaces)"},
		"a second document":                   {minimal("", "") + "---\nx: y\n", "m:7:1: a second YAML document begins here: a manifest is one"},
		"a merge key":                         {"bottles:\n  b: &b {image: i}\n  c:\n    <<: *b\nagents: {a: {bottle: b}}\n", "m:4:5: bottle \"c\": merge keys (<<) are not supported: repeat the keys"},
		"an alias of itself":                  {"bottles: &b\n  b: *b\nagents: {a: {bottle: b}}\n", ""},
		"a firewall without egress":           {minimal("    firewall: {dns: [198.51.100.53]}\n", ""), "m:4:15: firewall has no meaning without egress: the bottle has no way out; write egress: {} for one that denies everything"},
		"secret hosts without egress":         {minimal("    secret_hosts: {A: [a.test]}\n", ""), "m:4:19: secret_hosts has no meaning without egress: the bottle has no way out; write egress: {} for one that denies everything"},
		"egress with no value":                {minimal("    egress:\n", ""), "m:4:12: egress: no value given: give one or leave the key out"},
		"an unknown key of egress":            {minimal("    egress: {alow: [a.test]}\n", ""), `m:4:14: unknown key "alow" in egress: did you mean "allow"?`},
		"a route without a host":              {minimal("    egress: {routes: [{id: x}]}\n", ""), `m:4:23: routes, item 1 has no key "host", which it needs`},
		"an empty host":                       {minimal("    egress: {allow: [\"\"]}\n", ""), "m:4:22: host is empty"},
		"a port that is none":                 {minimal("    egress: {allow: [{host: a.test, ports: [65536]}]}\n", ""), `m:4:45: ports, item 1: want a port from 1 to 65535, got "65536"`},
		"a secret for a token":                {minimal("    egress: {routes: [{host: a.test, credential: {token: ghp-x}}]}\n", ""), "m:4:58: token: want the name of a variable of the host's environment (letters, digits and '_'), not the secret itself"},
		"a kind of credential":                {minimal("    egress: {routes: [{host: a.test, credential: {token: T, kind: bearer}}]}\n", ""), `m:4:67: kind: "bearer" is not known: did you mean "header"?`},
		"an engine of a firewall":             {minimal("    egress: {}\n    firewall: {engine: squid}\n", ""), `m:5:24: engine: "squid" is not known: valid are builtin, pipelock`},
		"pipelock without an image":           {minimal("    egress: {}\n    firewall: {engine: pipelock}\n", ""), "m:5:24: engine pipelock needs an image: name one in image"},
		"an egress proxy without routes":      {minimal("    egress: {image: x}\n", ""), "m:4:21: image has no meaning without routes: the egress proxy runs for them alone"},
		"a time without a unit":               {minimal("    egress: {}\n    firewall: {limits: {idle_timeout: 30}}\n", ""), `m:5:39: idle_timeout: want a time such as 30s or 15m, got "30"`},
		"a small header":                      {minimal("    egress: {}\n    firewall: {limits: {header_bytes: 10}}\n", ""), "m:5:39: header_bytes: want from 1KiB to 2GiB"},
		"no connections":                      {minimal("    egress: {}\n    firewall: {limits: {connections: 0}}\n", ""), "m:5:38: connections: 0 is too small"},
		"a password for its name":             {minimal("    egress: {}\n    firewall: {proxy: {url: x, password: \"a b\"}}\n", ""), "m:5:42: password: want the name of a variable of the host's environment (letters, digits and '_'), not the secret itself"},
		"a secret for nowhere":                {minimal("    egress: {}\n    secret_hosts: {A: []}\n", ""), "m:5:23: secret_hosts: A has no host: leave it out if it may go nowhere"},
		"a secret that is none":               {minimal("    egress: {}\n    secret_hosts: {A: [\"*\", a.test]}\n", ""), `m:5:23: secret_hosts: "*" means that A is no secret, so it stands alone`},
		"a name with a slash":                 {"bottles:\n  a/b: {image: i}\nagents: {a: {bottle: a/b}}\n", `m:2:3: bottles: "a/b" is no name: letters, digits, '-', '_' and '.', beginning with a letter or digit, at most 63`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Parse("m", []byte(test.text))
			if err == nil {
				t.Fatalf("no error for\n%s", test.text)
			}
			if test.want == "" {
				return
			}
			if first, _, _ := strings.Cut(err.Error(), "\n"); first != test.want {
				t.Errorf("for\n%s\ngot  %s\nwant %s", test.text, err, test.want)
			}
		})
	}
}

func TestAllMistakesAreReportedInOrder(t *testing.T) {
	_, err := Parse("m", []byte("bottles:\n  b:\n    imgae: i\n    user: [x]\nagents:\n  a:\n    bottle: c\n    propmt: y\n"))
	want := strings.Join([]string{
		`m:3:5: unknown key "imgae" in bottle "b": did you mean "image"?`,
		`m:4:11: user: want a string, got a list`,
		`m:7:13: there is no bottle "c": valid are b`,
		`m:8:5: unknown key "propmt" in agent "a": did you mean "prompt"?`,
	}, "\n")
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
}

func TestAliasesCannotBlowTheDocumentUp(t *testing.T) {
	var b strings.Builder
	b.WriteString("a: &a [x,x,x,x,x,x,x,x,x,x]\n")
	for c := 'b'; c < 'k'; c++ {
		b.WriteString(string(c) + ": &" + string(c) + " [")
		b.WriteString(strings.TrimSuffix(strings.Repeat("*"+string(c-1)+",", 10), ",") + "]\n")
	}
	b.WriteString("bottles: {b: {forward: *j}}\n")
	if _, err := Parse("m", []byte(b.String())); err == nil {
		t.Error("no error")
	}
}

func TestSizes(t *testing.T) {
	for text, want := range map[string]Size{
		"1": 1, "512MiB": 512 << 20, "4GiB": 4 << 30, "2g": 2 << 30, "1.5 KiB": 1536, "10kb": 10_000, "7B": 7,
	} {
		if got, ok := ParseSize(text); !ok || got != want {
			t.Errorf("%q is read as %d, %v; want %d", text, got, ok, want)
		}
	}
	for _, text := range []string{"", "0", "-1", "1XB", "1e9", "0.1", "9999999999TiB", "MiB"} {
		if got, ok := ParseSize(text); ok {
			t.Errorf("%q is read as %d, and is no size", text, got)
		}
	}
}

func TestTheNearestManifestIsFound(t *testing.T) {
	root, config := t.TempDir(), t.TempDir()
	deep := filepath.Join(root, "a", "b")
	if err := os.MkdirAll(deep, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(config, "bottle"), 0o755); err != nil {
		t.Fatal(err)
	}
	put := func(path string, mode os.FileMode) string {
		t.Helper()
		if err := os.WriteFile(path, nil, mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	check := func(want string) {
		t.Helper()
		if got, err := Find(deep, config); err != nil || got != want {
			t.Errorf("found %q, %v; want %q", got, err, want)
		}
	}
	put(filepath.Join(root, "bottle.yml"), 0o644)
	if _, err := Find(deep, config); err == nil || !strings.Contains(err.Error(), "rename it?") {
		t.Errorf("a misnamed manifest gives %v", err)
	}
	check2 := put(filepath.Join(config, "bottle", FileName), 0o644)
	check(check2)
	check(put(filepath.Join(root, FileName), 0o600))
	check(put(filepath.Join(deep, FileName), 0o644))
	put(filepath.Join(deep, FileName), 0o666)
	if _, err := Find(deep, config); err == nil || !strings.Contains(err.Error(), "everyone may write") {
		t.Errorf("a manifest that everyone may write to gives %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(full)
	f.Add(minimal("    tmpfs: [{path: /x, size: 1}]\n", "    files: [{}]\n"))
	f.Add("a: &a [*a]\n? {b: c}\n: d\n")
	f.Fuzz(func(t *testing.T, text string) {
		m, err := Parse("m", []byte(text))
		if (m == nil) == (err == nil) {
			t.Fatalf("manifest %v and error %v", m, err)
		}
		if err == nil {
			for name, a := range m.Agents {
				if _, ok := m.Bottles[a.Bottle]; !ok {
					t.Errorf("agent %q is valid without its bottle %q", name, a.Bottle)
				}
			}
		}
	})
}

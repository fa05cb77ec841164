package scaffold

import (
	"fmt"
	"strconv"
	"strings"
)

// project is what the files are written from.
type project struct {
	agent     Agent
	languages []language
	// version is that of the first language's image.
	version  string
	hasToken bool
}

// placeholder is what an agent has in its key's place: it wants one to begin at all.
const placeholder = "put-in-outside-of-the-bottle"

func (p project) titles() string {
	var titles []string
	for _, l := range p.languages {
		titles = append(titles, l.title)
	}
	return strings.Join(titles, ", ")
}

// manifest writes bottle.yaml.
func (p project) manifest() []byte {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("# yaml-language-server: $schema=https://bottle.run/schema/bottle.json")
	line("#")
	line("# %s in a sealed container, for this project (%s).", p.agent.Title, p.titles())
	line("#")
	line("#   bottle run              bring it up, work in it, remove it")
	line("#   bottle run --dry-run    show what that would do")
	line("#   bottle schema           every key there is")
	line("bottles:")
	line("  dev:")
	line("    dockerfile: %s", DockerFile)
	line("")
	line("    # The agent works on a copy of this directory: nothing it does touches your files.")
	line("    # What .gitignore and .bottleignore name stays out.")
	line("    workspace: .")
	line("")
	if len(p.agent.Env) > 0 || p.hasToken {
		line("    # Variables that are no secrets: whoever may ask the engine sees their values.")
		line("    env:")
		for _, kv := range p.agent.Env {
			line("      %s: %q", kv[0], kv[1])
		}
		switch {
		case p.hasToken:
			line("      # What the agent sends in place of its key: it is replaced on the way.")
			line("      %s: %s", p.agent.Token, placeholder)
		case p.agent.Token != "":
			line("      # With the route below, what the agent sends in place of its key:")
			line("      # %s: %s", p.agent.Token, placeholder)
		}
		line("")
	}
	if len(p.agent.Env) == 0 && p.agent.Token != "" && !p.hasToken {
		line("    # With the route below, what the agent sends in place of its key:")
		line("    # env: {%s: %s}", p.agent.Token, placeholder)
		line("")
	}
	line("    # Further variables, taken from your environment by name. Their values are in no image,")
	line("    # on no command line and in nothing that the engine keeps. The firewall refuses to let")
	line("    # them leave, but for the hosts that you name.")
	line("    # forward: [SOME_TOKEN]")
	line("    # secret_hosts: {SOME_TOKEN: [api.example.com]}")
	line("")
	p.egress(&b)
	line("")
	line("    # Git repositories, by the URLs that they have: the agent clones, fetches and pushes as always,")
	line("    # holds no credential, and nothing that carries a secret is pushed. A submodule is a repository")
	line("    # of its own. What may be pushed is named; without push nothing may.")
	line("    # git:")
	line("    #   project: {url: \"https://github.com/me/project.git\", credential: {token: GITHUB_TOKEN, username: x-access-token}, push: {branches: [\"agent/**\"]}}")
	line("    #   library: {url: \"git@github.com:me/library.git\", ssh_key: ~/.ssh/deploy_library, known_hosts: ~/.ssh/known_hosts}")
	line("")
	line("    # Bounds, where the engine can set them (bottle doctor tells).")
	line("    # limits: {memory: 8GiB, cpus: 4, pids: 4096}")
	line("")
	line("    # gVisor puts a kernel of its own between the agent and yours, where it is installed.")
	line("    # oci_runtime: runsc")
	line("")
	line("agents:")
	line("  %s:", p.agent.Name)
	line("    bottle: dev")
	quoted := make([]string, len(p.agent.Command))
	for i, arg := range p.agent.Command {
		quoted[i] = strconv.Quote(arg)
	}
	line("    command: [%s]", strings.Join(quoted, ", "))
	line("")
	line("    # A prompt, in the file that BOTTLE_PROMPT names inside.")
	line("    # prompt: |")
	line("    #   Read README.md first.")
	line("")
	line("    # Directories of skills, and settings for the agent's commits.")
	line("    # skills: [skills/review]")
	line("    # gitconfig: {user.name: %s, user.email: agent@example.com}", p.agent.Title)
	return []byte(b.String())
}

// egress writes what may leave.
func (p project) egress(b *strings.Builder) {
	line := func(format string, args ...any) { fmt.Fprintf(b, format+"\n", args...) }
	line("    # What may leave. Without this key nothing does; with it, nothing else does.")
	line("    # bottle audit NAME --denied tells what was refused.")
	line("    egress:")
	var hosts []Host
	seen := map[string]bool{}
	add := func(list ...Host) {
		for _, h := range list {
			if !seen[h.Name] {
				seen[h.Name] = true
				hosts = append(hosts, h)
			}
		}
	}
	if p.agent.API != "" && !p.hasToken {
		add(Host{p.agent.API, p.agent.Title + "'s API"})
	}
	add(p.agent.Hosts...)
	for _, l := range p.languages {
		add(l.hosts...)
	}
	width := 0
	for _, h := range hosts {
		width = max(width, len(h.Name))
	}
	if len(hosts) == 0 {
		line("      allow: []  # or [github.com]: repositories and releases, where data can be sent, too")
	} else {
		line("      allow:")
	}
	for _, h := range hosts {
		line("        - %-*s  # %s", width, h.Name, h.For)
	}
	if len(hosts) > 0 {
		line("        # - github.com  # repositories and releases, where data can be sent, too")
	}
	if p.agent.Token == "" {
		return
	}
	line("")
	comment := ""
	if p.hasToken {
		line("      # The key goes into each request outside of the bottle: the agent never has it. It")
		line("      # comes from your variable %s.", p.agent.Token)
	} else {
		comment = "# "
		line("      # With a key in your variable %s, take the comments away: the key goes", p.agent.Token)
		line("      # into each request outside of the bottle, and the agent never has it. Without one,")
		line("      # log in inside; the hosts that this needs have to be allowed above.")
	}
	route := func(text string) { line("      %s%s", comment, text) }
	route("routes:")
	route("  - id: " + p.agent.Name)
	route("    host: " + p.agent.API)
	header := ""
	if p.agent.Header != "" {
		header = ", header: " + p.agent.Header
	}
	route(fmt.Sprintf("    credential: {token: %s, kind: header%s}", p.agent.Token, header))
}

// dockerfile writes the Dockerfile. It has no heredoc: not every engine's builder
// knows them.
func (p project) dockerfile() []byte {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	base := p.languages[0]
	hasNode := base.name == "node"
	needsNode := p.agent.Package != ""
	for _, l := range p.languages[1:] {
		needsNode = needsNode || l.name == "node"
	}
	line("# What the agent works with. The project itself is copied in when a bottle is launched:")
	line("# it is no part of the image, and changing it builds nothing anew.")
	line("#")
	line("# An image named by its digest (%s@sha256:…) stays the same whatever happens to its tag.", base.image)
	if needsNode && !hasNode {
		line("FROM node:%s AS node", nodeVersion)
		line("")
	}
	line("FROM %s:%s", base.image, p.version)
	line("")
	packages := []string{"ca-certificates", "curl", "git", "less", "openssh-client", "procps", "ripgrep"}
	packages = append(packages, base.packages...)
	for _, l := range p.languages[1:] {
		switch l.name {
		case "python":
			packages = append(packages, "python3", "python3-pip", "python3-venv")
		case "java":
			packages = append(packages, "default-jdk-headless", "maven")
		case "rust":
			packages = append(packages, "cargo")
		case "go":
			packages = append(packages, "golang-go")
		}
	}
	line("RUN apt-get update \\")
	line(" && apt-get install --yes --no-install-recommends %s \\", strings.Join(packages, " "))
	line(" && rm -rf /var/lib/apt/lists/*")
	if needsNode && !hasNode {
		line("")
		line("# Node.js, from its own image.")
		line("COPY --from=node /usr/local/bin/node /usr/local/bin/node")
		line("COPY --from=node /usr/local/lib/node_modules /usr/local/lib/node_modules")
		line("RUN ln -s ../lib/node_modules/npm/bin/npm-cli.js /usr/local/bin/npm \\")
		line(" && ln -s ../lib/node_modules/npm/bin/npx-cli.js /usr/local/bin/npx")
	}
	if p.agent.Package != "" {
		line("")
		line("# %s. Name a version (%s@1.2.3) to have the same one in every build.", p.agent.Title, p.agent.Package)
		line("RUN npm install --global %s && npm cache clean --force", p.agent.Package)
	}
	line("")
	line("# Not root: what the agent runs cannot change the tools above.")
	line("RUN useradd --create-home --shell /bin/bash agent")
	line("USER agent")
	line("WORKDIR /workspace")
	return []byte(b.String())
}

package core

import (
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/go-multierror"

	"github.com/bottle-run/bottle/core/egress"
	"github.com/bottle-run/bottle/core/manifest"
)

// NewPlan makes a plan of a manifest, the host and the user's wishes. It reads
// the files that they name as far as the plan depends on them (env files; whether
// the others are there and can be read) and changes nothing. Everything that is
// wrong is reported at once; the errors are of KindInput.
func NewPlan(m *manifest.Manifest, host Host, wishes Wishes) (Plan, Secrets, error) {
	p, err := newPlanner(m, host, wishes)
	if err != nil {
		return Plan{}, Secrets{}, err
	}
	p.name()
	p.image()
	p.workspace()
	p.container()
	p.environment()
	p.egress()
	p.git()
	p.supervise()
	p.files()
	if err := p.err(); err != nil {
		return Plan{}, Secrets{}, err
	}
	return p.plan, NewSecrets(p.secrets).WithTokens(p.tokens), nil
}

// NewBuild makes the plan of the image of one of the manifest's bottles.
func NewBuild(m *manifest.Manifest, bottle string, host Host, wishes Wishes) (Image, error) {
	b, ok := m.Bottles[bottle]
	if !ok {
		return Image{}, Errorf(KindInput, "%s has no bottle %q: it has %s", m.File(), bottle, strings.Join(slices.Sorted(maps.Keys(m.Bottles)), ", "))
	}
	p := &planner{manifest: m, host: host, wishes: wishes, bottle: b, plan: Plan{Bottle: bottle}}
	p.image()
	return p.plan.Image, p.err()
}

type planner struct {
	manifest *manifest.Manifest
	host     Host
	wishes   Wishes
	bottle   manifest.Bottle
	agent    manifest.Agent
	plan     Plan
	secrets  map[string]string
	tokens   map[string]string
	errs     *multierror.Error
}

func newPlanner(m *manifest.Manifest, host Host, wishes Wishes) (*planner, error) {
	names := slices.Sorted(maps.Keys(m.Agents))
	name := wishes.Agent
	switch _, ok := m.Agents[name]; {
	case name == "" && len(names) == 1:
		name = names[0]
	case name == "" && len(names) == 0:
		return nil, Errorf(KindInput, "%s has no agents", m.File())
	case name == "":
		return nil, Errorf(KindInput, "%s has several agents: name one of %s", m.File(), strings.Join(names, ", "))
	case !ok:
		return nil, Errorf(KindInput, "%s has no agent %q: it has %s", m.File(), name, strings.Join(names, ", "))
	}
	agent := m.Agents[name]
	return &planner{
		manifest: m, host: host, wishes: wishes, agent: agent, bottle: m.Bottles[agent.Bottle],
		plan: Plan{Manifest: m.File(), Agent: name, Bottle: agent.Bottle}, secrets: map[string]string{},
	}, nil
}

func (p *planner) add(err error) { p.errs = multierror.Append(p.errs, err) }

func (p *planner) err() error {
	switch p.errs.ErrorOrNil() {
	case nil:
		return nil
	default:
		if len(p.errs.Errors) == 1 {
			return withKind(KindInput, p.errs.Errors[0])
		}
		p.errs.ErrorFormat = joinLines
		return &Error{Kind: KindInput, Err: p.errs}
	}
}

func joinLines(errs []error) string {
	lines := make([]string, len(errs))
	for i, err := range errs {
		lines[i] = err.Error()
	}
	return strings.Join(lines, "\n")
}

// atBottle adds an error at a key of the bottle's, atAgent at one of the agent's.

func (p *planner) atBottle(keys []string, format string, args ...any) {
	p.add(p.manifest.Errorf(append([]string{"bottles", p.plan.Bottle}, keys...), format, args...))
}

func (p *planner) atAgent(keys []string, format string, args ...any) {
	p.add(p.manifest.Errorf(append([]string{"agents", p.plan.Agent}, keys...), format, args...))
}

// path resolves a host path of the manifest's.
func (p *planner) path(s string) string {
	if rest, ok := strings.CutPrefix(s, "~/"); ok && p.host.HomeDir != "" {
		return filepath.Join(p.host.HomeDir, rest)
	}
	if filepath.IsAbs(s) {
		return filepath.Clean(s)
	}
	dir := filepath.Dir(p.manifest.File())
	if !filepath.IsAbs(dir) {
		dir = filepath.Join(p.host.WorkDir, dir)
	}
	return filepath.Join(dir, s)
}

func (p *planner) name() {
	p.plan.Name = Name{Base: slug(p.plan.Agent)}
	if p.wishes.Name != "" {
		if err := CheckName(p.wishes.Name); err != nil {
			p.add(err)
		}
		p.plan.Name = Name{Base: p.wishes.Name, Pinned: true}
	}
}

func (p *planner) image() {
	b := p.bottle
	if b.Image != "" {
		p.plan.Image.Reference = b.Image
		return
	}
	build := &Build{
		Dockerfile: p.path(b.Dockerfile), Args: b.BuildArgs, Target: b.Target,
		Repository: "localhost/bottle/" + slug(p.plan.Bottle), NoCache: p.wishes.NoCache,
	}
	build.Context = filepath.Dir(build.Dockerfile)
	if msg := unusable(build.Dockerfile, wantFile); msg != "" {
		p.atBottle([]string{"dockerfile"}, "dockerfile: %s", msg)
	}
	if b.Context != "" {
		build.Context = p.path(b.Context)
		if msg := unusable(build.Context, wantDir); msg != "" {
			p.atBottle([]string{"context"}, "context: %s", msg)
		}
	}
	p.plan.Image.Build = build
}

func (p *planner) workspace() {
	w := p.bottle.Workspace
	source, none := p.host.WorkDir, w.None
	if w.Path != "" {
		source = p.path(w.Path)
	}
	if wish := p.wishes.Workspace; wish != nil {
		none = *wish == ""
		source = *wish
		if !filepath.IsAbs(source) {
			source = filepath.Join(p.host.WorkDir, source)
		}
	}
	if none {
		return
	}
	if p.bottle.ReadOnly {
		p.add(Errorf(KindInput, "bottle %q is read_only: there is no place for a workspace", p.plan.Bottle))
		return
	}
	if msg := unusable(source, wantDir); msg != "" {
		if p.wishes.Workspace != nil || w.Path == "" {
			p.add(Errorf(KindInput, "workspace: %s", msg))
		} else {
			p.atBottle([]string{"workspace", "path"}, "workspace: %s", msg)
		}
	}
	target := DefaultWorkspace
	if w.Target != "" {
		target = path.Clean(w.Target)
	}
	p.plan.Workspace = Workspace{
		Source: source, Target: target, Ignore: w.Ignore, GitIgnore: w.GitIgnore == nil || *w.GitIgnore,
	}
}

func (p *planner) container() {
	b := p.bottle
	p.plan.Command = p.agent.Command
	if len(p.wishes.Command) > 0 {
		p.plan.Command = p.wishes.Command
	}
	p.plan.WorkDir = p.plan.Workspace.Target
	if p.agent.WorkDir != "" {
		p.plan.WorkDir = p.agent.WorkDir
	}
	p.plan.User, p.plan.OCIRuntime, p.plan.ReadOnly = b.User, b.OCIRuntime, b.ReadOnly
	p.plan.Limits = Limits{Memory: int64(b.Limits.Memory), PIDs: b.Limits.PIDs, CPUs: b.Limits.CPUs, NoFile: b.Limits.NoFile}
	for _, t := range b.Tmpfs {
		p.plan.Tmpfs = append(p.plan.Tmpfs, Tmpfs{Target: path.Clean(t.Path), Size: int64(t.Size)})
	}
}

// environment gathers the variables, later sources over earlier ones: env files,
// the bottle's env, the agent's, forwarded ones, the user's wishes.
func (p *planner) environment() {
	p.plan.Env, p.plan.Secrets = map[string]string{}, map[string]string{}
	secret := func(name, value, source string) {
		delete(p.plan.Env, name)
		p.secrets[name], p.plan.Secrets[name] = value, source
	}
	for i, file := range p.bottle.EnvFile {
		full := p.path(file)
		env, err := manifest.LoadEnvFile(full)
		if errors.Is(err, fs.ErrNotExist) || unusable(full, wantFile) != "" {
			p.atBottle([]string{"env_file", strconv.Itoa(i)}, "env_file: %s", unusable(full, wantFile))
			continue
		}
		if err != nil {
			p.add(err)
			continue
		}
		for name, value := range env {
			secret(name, value, "env_file "+full)
		}
	}
	for _, env := range []map[string]string{p.bottle.Env, p.agent.Env} {
		for name, value := range env {
			delete(p.secrets, name)
			delete(p.plan.Secrets, name)
			p.plan.Env[name] = value
		}
	}
	for i, name := range p.bottle.Forward {
		value, ok := p.host.LookupEnv(name)
		if !ok {
			p.atBottle([]string{"forward", strconv.Itoa(i)}, "forward: the variable %s is not set: export it, or leave it out", name)
			continue
		}
		secret(name, value, "forwarded")
	}
	for _, wish := range p.wishes.Env {
		name, value, given := strings.Cut(wish, "=")
		if err := manifest.CheckEnvName(name); err != nil {
			p.add(Errorf(KindInput, "--env: %w", err))
			continue
		}
		source := "--env"
		if !given {
			source = "forwarded"
			if value, given = p.host.LookupEnv(name); !given {
				p.add(Errorf(KindInput, "--env %s: the variable is not set: export it, or write %s=VALUE", name, name))
				continue
			}
		}
		secret(name, value, source)
	}
}

// egress makes the policy of what may leave, and takes the tokens that the sidecars need.
func (p *planner) egress() {
	b := p.bottle
	if b.Egress == nil {
		return
	}
	p.plan.Egress, p.tokens = egress.New(p.egressSource())
}

func (p *planner) egressSource() egress.Source {
	b := p.bottle
	src := egress.Source{
		Egress: b.Egress, Firewall: b.Firewall, SecretHosts: b.SecretHosts,
		Variables: p.variables(), LookupEnv: p.host.LookupEnv, Path: p.path, Fail: p.atBottle, FailFile: p.add,
	}
	for _, r := range b.Git {
		if r.Credential != nil {
			src.Elsewhere = append(src.Elsewhere, r.Credential.Token)
		}
	}
	return src
}

// variables are all of the agent's.
func (p *planner) variables() map[string]string {
	all := maps.Clone(p.plan.Env)
	maps.Copy(all, p.secrets)
	return all
}

func (p *planner) files() {
	a := p.agent
	if a.Prompt != "" || a.PromptFile != "" {
		f := File{What: "prompt", Target: orDefault(a.PromptPath, DefaultPromptPath), Mode: 0o644, Content: a.Prompt}
		if a.PromptFile != "" {
			f.Source = p.path(a.PromptFile)
			p.check([]string{"prompt_file"}, f.Source, wantFile)
		}
		p.plan.Files = append(p.plan.Files, f)
	}
	if len(a.GitConfig) > 0 {
		p.plan.Files = append(p.plan.Files, File{What: "gitconfig", Target: "~/.gitconfig", Mode: 0o644, Content: renderGitConfig(a.GitConfig)})
	}
	skills := orDefault(a.SkillsPath, DefaultSkillsPath)
	for i, s := range a.Skills {
		f := File{What: "skill", Source: p.path(s), Tree: true}
		f.Target = strings.TrimRight(skills, "/") + "/" + filepath.Base(f.Source)
		p.check([]string{"skills", strconv.Itoa(i)}, f.Source, wantDir)
		p.plan.Files = append(p.plan.Files, f)
	}
	for i, mf := range a.Files {
		f := File{What: "file", Target: mf.Target, Mode: uint32(mf.Mode), Content: mf.Content}
		if mf.Source != "" {
			f.Source = p.path(mf.Source)
			p.check([]string{"files", strconv.Itoa(i), "source"}, f.Source, wantAny)
			p.noKey(i, f.Source)
			if info, err := os.Stat(f.Source); err == nil {
				f.Tree = info.IsDir()
				if !f.Tree && f.Mode == 0 {
					f.Mode = uint32(info.Mode().Perm())
				}
			}
		} else if f.Mode == 0 {
			f.Mode = 0o644
		}
		if f.Tree && f.Mode != 0 {
			p.atAgent([]string{"files", strconv.Itoa(i), "mode"}, "mode: %s is a directory: its files keep their own modes", f.Source)
		}
		p.plan.Files = append(p.plan.Files, f)
	}
	p.distinct()
}

// distinct refuses two files in one place.
func (p *planner) distinct() {
	seen := map[string]string{}
	for _, f := range p.plan.Files {
		if other, taken := seen[path.Clean(f.Target)]; taken {
			p.add(Errorf(KindInput, "%s: agent %q puts both a %s and a %s at %s", p.plan.Manifest, p.plan.Agent, other, f.What, f.Target))
		}
		seen[path.Clean(f.Target)] = f.What
	}
}

func orDefault(s, fallback string) string {
	if s == "" {
		return fallback
	}
	return s
}

func (p *planner) check(keys []string, path string, w want) {
	if msg := unusable(path, w); msg != "" {
		p.atAgent(keys, "%s: %s", keys[0], msg)
	}
}

// want says what a path must be.
type want int

const (
	wantAny want = iota
	wantFile
	wantDir
)

// unusable says why a path of the host cannot be read, or "".
func unusable(path string, w want) string {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return path + ": " + cause(err)
	case w == wantFile && info.IsDir():
		return path + " is a directory"
	case w == wantDir && !info.IsDir():
		return path + " is not a directory"
	case !info.IsDir() && !info.Mode().IsRegular():
		return path + " is neither a file nor a directory"
	}
	f, err := os.Open(path)
	if err == nil && info.IsDir() {
		// A directory that may be entered may still not be listed.
		_, err = f.Readdirnames(1)
		if errors.Is(err, io.EOF) {
			err = nil
		}
	}
	if f != nil {
		_ = f.Close()
	}
	if err != nil {
		return path + ": " + cause(err)
	}
	return ""
}

// cause is err without the path, which the message has already.
func cause(err error) string {
	var pathErr *fs.PathError
	if errors.As(err, &pathErr) {
		return pathErr.Err.Error()
	}
	return err.Error()
}

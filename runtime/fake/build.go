package fake

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"

	"github.com/bottle-run/bottle/runtime"
)

// BuildImage implements [runtime.Images] for Dockerfiles of FROM, ARG, ENV,
// LABEL, USER, WORKDIR, ENTRYPOINT, CMD, COPY (files and directories, --from,
// --chown ignored) and RUN. Any other instruction is an error.
func (e *Engine) BuildImage(ctx context.Context, spec runtime.BuildSpec) (runtime.Image, error) {
	const op = "build image"
	tag := ""
	if len(spec.Tags) > 0 {
		tag = spec.Tags[0]
	}
	if err := e.enter(ctx, "BuildImage", op, tag); err != nil {
		return runtime.Image{}, err
	}
	b := &build{engine: e, spec: spec, stages: map[string]*stage{}, args: map[string]string{}, progress: spec.Progress}
	if b.progress == nil {
		b.progress = io.Discard
	}
	last, err := b.run(ctx)
	if err != nil {
		return runtime.Image{}, fail(op, tag, err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	labels := managed(last.labels)
	maps.Copy(labels, spec.Labels)
	labels[runtime.LabelManaged] = "true"
	return e.addImage(spec.Tags, last.config, labels, last.files).copy(), nil
}

type build struct {
	engine   *Engine
	spec     runtime.BuildSpec
	ignore   *patternmatcher.PatternMatcher
	args     map[string]string // before the first FROM
	stages   map[string]*stage
	current  *stage
	progress io.Writer
}

type stage struct {
	name   string
	config runtime.ImageConfig
	labels map[string]string
	files  *tree
	args   map[string]string
}

func (b *build) run(ctx context.Context) (*stage, error) {
	file := b.spec.Dockerfile
	if file == "" {
		file = "Dockerfile"
	}
	if !filepath.IsAbs(file) {
		file = filepath.Join(b.spec.ContextDir, file)
	}
	content, err := os.ReadFile(file)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, notFound("Dockerfile", file)
		}
		return nil, err
	}
	if err := b.readIgnore(file); err != nil {
		return nil, err
	}
	steps := instructions(string(content))
	for i, step := range steps {
		if err := ctx.Err(); err != nil {
			return nil, context.Cause(ctx)
		}
		_, _ = fmt.Fprintf(b.progress, "step %d/%d: %s\n", i+1, len(steps), step)
		if b.spec.Target != "" && b.current != nil && b.current.name == b.spec.Target && strings.HasPrefix(strings.ToUpper(step), "FROM ") {
			return b.current, nil
		}
		if err := b.step(ctx, step); err != nil {
			return nil, fmt.Errorf("step %q: %w", step, err)
		}
	}
	switch {
	case b.current == nil:
		return nil, invalid("%s holds no FROM", file)
	case b.spec.Target != "" && b.current.name != b.spec.Target:
		return nil, invalid("%s has no stage %q", file, b.spec.Target)
	}
	return b.current, nil
}

func (b *build) readIgnore(dockerfile string) error {
	for _, name := range []string{dockerfile + ".dockerignore", filepath.Join(b.spec.ContextDir, ".dockerignore")} {
		f, err := os.Open(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		patterns, err := ignorefile.ReadAll(f)
		if err = errors.Join(err, f.Close()); err != nil {
			return invalid("%s: %v", name, err)
		}
		b.ignore, err = patternmatcher.New(patterns)
		return err
	}
	return nil
}

// instructions splits a Dockerfile, joining continued lines.
func instructions(text string) []string {
	var steps []string
	joined := ""
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if head, ok := strings.CutSuffix(line, `\`); ok {
			joined += head
			continue
		}
		steps = append(steps, joined+line)
		joined = ""
	}
	if joined != "" {
		steps = append(steps, joined)
	}
	return steps
}

var variable = regexp.MustCompile(`\$(\w+|\{\w+\})`)

// expand replaces variables by arguments and the environment.
func (b *build) expand(s string) string {
	return variable.ReplaceAllStringFunc(s, func(v string) string {
		name := strings.Trim(v, "${}")
		if b.current == nil {
			return b.args[name]
		}
		for _, kv := range b.current.config.Env {
			if k, value, _ := strings.Cut(kv, "="); k == name {
				return value
			}
		}
		return b.current.args[name]
	})
}

func (b *build) step(ctx context.Context, text string) error {
	word, rest, _ := strings.Cut(text, " ")
	word, rest = strings.ToUpper(word), strings.TrimSpace(rest)
	if b.current == nil && word != "FROM" && word != "ARG" {
		return invalid("%s before the first FROM", word)
	}
	if !slices.Contains([]string{"RUN", "CMD", "ENTRYPOINT", "ARG", "ENV", "LABEL"}, word) {
		rest = b.expand(rest)
	}
	switch word {
	case "FROM":
		return b.from(strings.Fields(rest))
	case "ARG":
		b.arg(rest)
	case "ENV":
		for k, v := range pairs(rest) {
			b.current.config.Env = environment(b.current.config.Env, map[string]string{k: b.expand(v)})
		}
	case "LABEL":
		for k, v := range pairs(rest) {
			b.current.labels[k] = b.expand(v)
		}
	case "USER":
		b.current.config.User = rest
	case "WORKDIR":
		b.current.config.WorkDir = path.Join("/", b.current.config.WorkDir, rest)
		if path.IsAbs(rest) {
			b.current.config.WorkDir = path.Clean(rest)
		}
		_, err := b.current.files.mkdirs(b.current.config.WorkDir)
		return err
	case "ENTRYPOINT":
		b.current.config.Entrypoint = vector(rest)
	case "CMD":
		b.current.config.Cmd = vector(rest)
	case "COPY":
		return b.copy(strings.Fields(rest))
	case "RUN":
		return b.runStep(ctx, rest)
	default:
		return invalid("unknown instruction %s", word)
	}
	return nil
}

func (b *build) from(words []string) error {
	if len(words) == 0 {
		return invalid("FROM names no image")
	}
	next := &stage{labels: map[string]string{}, files: newTree(), args: map[string]string{}}
	if len(words) == 3 && strings.EqualFold(words[1], "AS") {
		next.name = words[2]
	}
	switch base := b.stages[words[0]]; {
	case base != nil:
		next.config, next.files = base.config, base.files.clone()
		maps.Copy(next.labels, base.labels)
	case words[0] == "scratch":
	default:
		// All of it with the lock held: another build may take the tag away meanwhile.
		b.engine.mu.Lock()
		defer b.engine.mu.Unlock()
		img := b.engine.image(words[0])
		if img == nil {
			return notFound("image", words[0])
		}
		next.config, next.files = img.copy().Config, img.files.clone()
		maps.Copy(next.labels, img.Labels)
	}
	b.stages[fmt.Sprint(len(b.stages))] = next
	if next.name != "" {
		b.stages[next.name] = next
	}
	b.current = next
	return nil
}

func (b *build) arg(text string) {
	name, value, _ := strings.Cut(text, "=")
	into := b.args
	if b.current != nil {
		into = b.current.args
		if value == "" {
			value = b.args[name]
		}
	}
	if given, ok := b.spec.Args[name]; ok {
		value = given
	}
	into[name] = strings.Trim(value, `"'`)
}

func (b *build) copy(words []string) error {
	var from *tree
	for len(words) > 0 && strings.HasPrefix(words[0], "--") {
		if name, ok := strings.CutPrefix(words[0], "--from="); ok {
			if s := b.stages[name]; s != nil {
				from = s.files
			} else {
				b.engine.mu.Lock()
				img := b.engine.image(name)
				b.engine.mu.Unlock()
				if img == nil {
					return notFound("image or stage", name)
				}
				from = img.files
			}
		}
		words = words[1:]
	}
	if len(words) < 2 {
		return invalid("COPY needs a source and a destination")
	}
	dest := words[len(words)-1]
	into := strings.HasSuffix(dest, "/") || dest == "." || len(words) > 2
	if !path.IsAbs(dest) {
		dest = path.Join("/", b.current.config.WorkDir, dest)
	}
	for _, source := range words[:len(words)-1] {
		node, err := b.source(from, source)
		if err != nil {
			return err
		}
		target := dest
		if into && !node.Mode.IsDir() {
			target = path.Join(dest, path.Base(source))
		}
		if err := merge(b.current.files, target, node); err != nil {
			return err
		}
	}
	return nil
}

// merge places a node and what is below it.
func merge(t *tree, name string, node *Node) error {
	children := node.children
	n := *node
	if n.Mode.IsDir() {
		n.children = map[string]*Node{}
	}
	if err := t.put(name, &n); err != nil {
		return err
	}
	for child, c := range children {
		if err := merge(t, path.Join(name, child), c); err != nil {
			return err
		}
	}
	return nil
}

// source reads what COPY names, from a stage or the context.
func (b *build) source(from *tree, name string) (*Node, error) {
	if from != nil {
		node, _, err := from.lookup(name, true)
		if err != nil {
			return nil, pathError(err)
		}
		return node.clone(), nil
	}
	name = path.Clean("/" + name)[1:]
	node, err := b.read(name)
	if err == nil && node == nil {
		err = notFound("file in the build context", name)
	}
	return node, err
}

// read reads a file of the context; nil if it is not there or ignored.
func (b *build) read(name string) (*Node, error) {
	if b.ignore != nil && name != "" {
		if ignored, err := b.ignore.MatchesOrParentMatches(name); err != nil || ignored {
			return nil, err
		}
	}
	file := filepath.Join(b.spec.ContextDir, filepath.FromSlash(name))
	st, err := os.Lstat(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	node := &Node{Mode: st.Mode(), ModTime: st.ModTime().Truncate(time.Second)}
	switch {
	case st.IsDir():
		node.children = map[string]*Node{}
		names, err := os.ReadDir(file)
		if err != nil {
			return nil, err
		}
		for _, child := range names {
			c, err := b.read(path.Join(name, child.Name()))
			if err != nil {
				return nil, err
			}
			if c != nil {
				node.children[child.Name()] = c
			}
		}
	case st.Mode()&fs.ModeSymlink != 0:
		node.Link, err = os.Readlink(file)
	case st.Mode().IsRegular():
		node.Content, err = os.ReadFile(file)
	}
	return node, err
}

// runStep runs a RUN instruction through the program that is registered for it,
// if there is one.
func (b *build) runStep(ctx context.Context, text string) error {
	args := vector(text)
	b.engine.mu.Lock()
	program := b.engine.program(args[0])
	b.engine.mu.Unlock()
	if program == nil {
		return nil
	}
	c := &container{files: b.current.files, config: b.current.config}
	p := b.engine.newProcess(c, args, environment(b.current.config.Env, b.current.args))
	var output tailBuffer
	out := newGate(io.MultiWriter(b.progress, &output))
	p.Stdout, p.Stderr = out, out
	done := make(chan int, 1)
	go func() { done <- program(ctx, p) }()
	defer out.close()
	select {
	case code := <-done:
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if code != 0 {
			return invalid("exit status %d; its output ends with: %s", code, output.last)
		}
		b.current.files = c.files
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// tailBuffer keeps the end of what is written to it.
type tailBuffer struct{ last []byte }

func (t *tailBuffer) Write(p []byte) (int, error) {
	const keep = 4 << 10
	t.last = append(t.last, p...)
	t.last = t.last[max(0, len(t.last)-keep):]
	return len(p), nil
}

// vector reads a command in JSON or shell form.
func vector(text string) []string {
	var args []string
	if json.Unmarshal([]byte(text), &args) == nil && len(args) > 0 {
		return args
	}
	return []string{"/bin/sh", "-c", text}
}

// pairs reads NAME=value words, with quotes, or the old form "NAME value".
func pairs(text string) map[string]string {
	if name, _, _ := strings.Cut(text, " "); !strings.Contains(name, "=") {
		name, value, _ := strings.Cut(text, " ")
		return map[string]string{name: strings.TrimSpace(value)}
	}
	all := map[string]string{}
	for _, m := range assignment.FindAllStringSubmatch(text, -1) {
		all[strings.Trim(m[1], `"'`)] = strings.Trim(m[2], `"'`)
	}
	return all
}

var assignment = regexp.MustCompile(`([^\s=]+)=("(?:[^"\\]|\\.)*"|'[^']*'|\S*)`)

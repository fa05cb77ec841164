package supervise

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hashicorp/go-multierror"

	"github.com/bottle-run/bottle/core"
	"github.com/bottle-run/bottle/core/egress"
	"github.com/bottle-run/bottle/core/manifest"
	"github.com/bottle-run/bottle/internal/atomicfile"
	"github.com/bottle-run/bottle/sidecar/config"
	"github.com/bottle-run/bottle/sidecar/policy"
	"github.com/bottle-run/bottle/sidecar/supervise/change"
)

// nothing is a commit that has nothing to do.
func nothing() error { return nil }

// Save implements [Bottle]. The manifest is the one that the bottle was launched from, unless
// another was given.
func (b box) Save(ctx context.Context, id string, c change.Change) (func() error, error) {
	origin, err := b.Origin(ctx)
	if err != nil {
		return nil, err
	}
	if c.Kind == config.ProposeDockerfile {
		live, err := b.Policy(ctx)
		if err != nil {
			return nil, err
		}
		if live.Supervise == nil {
			return nil, core.Errorf(core.KindNotFound, "bottle %s was launched without supervise", b.Name)
		}
		return saveDockerfile(origin, live.Supervise.Policy.Dockerfile, c)
	}
	file := origin.Manifest
	if b.manifest != "" {
		file = b.manifest
	}
	// What is written to is the file itself, not a link to it.
	if file, err = filepath.EvalSymlinks(file); err != nil {
		return nil, core.Errorf(core.KindInput, "the manifest cannot be read: %w", err)
	}
	data, err := os.ReadFile(file) //nolint:gosec // the operator's own
	if err != nil {
		return nil, core.Errorf(core.KindInput, "the manifest cannot be read: %w", err)
	}
	text, err := Rewrite(file, data, b.Agent, id, c)
	if err != nil {
		return nil, err
	}
	return replaceFile(file, data, text)
}

// saveDockerfile makes ready to write the Dockerfile in force, changed, to where the image was
// built from, with all that was approved before and not written.
func saveDockerfile(origin core.Origin, inForce string, c change.Change) (func() error, error) {
	if origin.Image.Build == nil {
		return nil, core.Errorf(core.KindInput, "the image is not built from a Dockerfile")
	}
	file, err := filepath.EvalSymlinks(origin.Image.Build.Dockerfile)
	var was []byte
	if err == nil {
		was, err = os.ReadFile(file)
	}
	if err != nil {
		return nil, core.Errorf(core.KindInput, "the Dockerfile cannot be read: %w", err)
	}
	if string(was) != inForce && core.TextDigest(string(was)) != origin.Dockerfile {
		return nil, core.Errorf(core.KindInput, "%s has been changed since the launch: approve it without writing it, or restart the bottle first", file)
	}
	after, err := c.Apply(config.Policy{Dockerfile: inForce}, "")
	if err != nil {
		return nil, core.Errorf(core.KindInput, "%w", err)
	}
	return replaceFile(file, was, []byte(after.Dockerfile))
}

// Rewrite makes a change in the text of a manifest, for the bottle of an agent. A change that
// the manifest has already leaves the text as it is.
func Rewrite(file string, data []byte, agent, id string, c change.Change) ([]byte, error) {
	m, err := manifest.Parse(file, data)
	if err != nil {
		return nil, err
	}
	a, ok := m.Agents[agent]
	if !ok {
		return nil, core.Errorf(core.KindInput, "%s has no agent %q, which runs in the bottle", file, agent)
	}
	bottle := m.Bottles[a.Bottle]
	before, err := policyOf(m, a.Bottle, bottle)
	if err != nil {
		return nil, err
	}
	after, err := c.Apply(before, "proposal:"+id)
	if err != nil {
		if errors.Is(err, change.ErrNothing) {
			return data, nil
		}
		return nil, core.Errorf(core.KindInput, "the manifest is not as the policy in force, and the change does not fit: %w", err)
	}
	at := func(keys ...string) []string { return append([]string{"bottles", a.Bottle}, keys...) }
	var edits []manifest.Edit
	switch c.Kind {
	case config.ProposeAllow:
		edits = append(edits, manifest.Edit{Keys: at("egress", "allow"), List: items(before.Allow, after.Allow, func(r policy.Rule) any {
			r.ID = own(r.ID, id)
			return egress.AllowEntry(r)
		})})
	case config.ProposeRoutes:
		edits = append(edits, manifest.Edit{Keys: at("egress", "routes"), List: items(before.Routes, after.Routes, func(r policy.Route) any {
			r.ID = own(r.ID, id)
			return egress.RouteEntry(r)
		})})
	case config.ProposeGitPush:
		name := c.GitPush.Repository
		i := slices.IndexFunc(after.Git, func(r config.GitRule) bool { return r.Name == name })
		old, now := config.GitPush{}, config.GitPush{}
		if p := before.Git[i].Push; p != nil {
			old = *p
		}
		if p := after.Git[i].Push; p != nil {
			now = *p
		}
		push := at("git", name, "push")
		for _, l := range []struct {
			key      string
			old, now []string
		}{{"branches", old.Branches, now.Branches}, {"tags", old.Tags, now.Tags}, {"notes", old.Notes, now.Notes}} {
			if !slices.Equal(l.old, l.now) {
				edits = append(edits, manifest.Edit{Keys: append(slices.Clone(push), l.key), List: items(l.old, l.now, func(s string) any { return s })})
			}
		}
		for _, f := range []struct {
			key      string
			old, now bool
		}{{"force", old.Force, now.Force}, {"delete", old.Delete, now.Delete}} {
			if f.old != f.now {
				edits = append(edits, manifest.Edit{Keys: append(slices.Clone(push), f.key), Value: f.now})
			}
		}
	default:
		return nil, fmt.Errorf("a change of kind %s is not written to a manifest", c.Kind)
	}
	return manifest.Apply(file, data, edits)
}

// own is the id of an entry in the manifest: one that a proposal gave is none.
func own(entry, proposal string) string {
	if strings.HasPrefix(entry, "proposal:"+proposal) {
		return ""
	}
	return entry
}

// items says which entries of a new list were in the old one.
func items[T any](before, after []T, entry func(T) any) []manifest.Item {
	list := []manifest.Item{}
	used := map[int]bool{}
	for _, v := range after {
		it := manifest.Item{Old: -1}
		for i, old := range before {
			if !used[i] && change.Revision(old) == change.Revision(v) {
				it.Old = i
				used[i] = true
				break
			}
		}
		if it.Old < 0 {
			it.New = entry(v)
		}
		list = append(list, it)
	}
	return list
}

// policyOf is what a manifest's bottle allows. Its entries are in the order of the manifest's.
func policyOf(m *manifest.Manifest, name string, b manifest.Bottle) (config.Policy, error) {
	p := config.Policy{Allow: []policy.Rule{}, Routes: []policy.Route{}}
	var errs *multierror.Error
	if b.Egress != nil {
		// Values are nobody's business here.
		made, _ := egress.New(egress.Source{
			Egress: b.Egress, LookupEnv: func(string) (string, bool) { return "not looked at", true },
			Fail: func(keys []string, format string, args ...any) {
				errs = multierror.Append(errs, m.Errorf(append([]string{"bottles", name}, keys...), format, args...))
			},
		})
		p.AllowAll = made.AllowAll
		p.Allow, p.Routes = append(p.Allow, made.Allow...), append(p.Routes, made.Routes...)
	}
	for repository, r := range b.Git {
		rule := config.GitRule{Name: repository, URL: r.URL}
		if r.Push != nil {
			push := config.GitPush(*r.Push)
			rule.Push = &push
		}
		p.Git = append(p.Git, rule)
	}
	return p, errs.ErrorOrNil()
}

// replaceFile makes ready to replace a file's content, all or nothing. It has to be by then
// as it was read.
func replaceFile(file string, was, text []byte) (func() error, error) {
	if bytes.Equal(was, text) {
		return nothing, nil
	}
	info, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	// Better to know before anything is approved.
	probe, err := os.CreateTemp(filepath.Dir(file), "."+filepath.Base(file)+"-*")
	if err != nil {
		return nil, core.Errorf(core.KindInput, "%s cannot be replaced: %w", file, err)
	}
	if err := errors.Join(probe.Close(), os.Remove(probe.Name())); err != nil {
		return nil, err
	}
	return func() error {
		now, err := os.ReadFile(file) //nolint:gosec // the operator's own
		if err != nil {
			return err
		}
		if !bytes.Equal(now, was) {
			return fmt.Errorf("%s has been changed meanwhile", file)
		}
		return atomicfile.Write(file, text, info.Mode())
	}, nil
}

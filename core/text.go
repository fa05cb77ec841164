package core

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/bottle-run/bottle/core/egress"
	"github.com/bottle-run/bottle/core/manifest"
	"github.com/bottle-run/bottle/core/mcp"
	"github.com/bottle-run/bottle/sidecar/config"
	"github.com/bottle-run/bottle/sidecar/policy"
)

// Bytes writes a number of bytes for people.
func Bytes(n int64) string { return bytesText(n) }

// bytesText writes a number of bytes for people.
func bytesText(n int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	f, i := float64(n), 0
	for f >= 1024 && i < len(units)-1 {
		f, i = f/1024, i+1
	}
	if i == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %s", f, units[i])
}

// WriteText writes the plan for people to read: what will be made, of what.
func (p Plan) WriteText(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	row := func(key, format string, args ...any) {
		_, _ = fmt.Fprintf(tw, "%s\t%s\n", key, fmt.Sprintf(format, args...)) // Flush tells
	}
	row("agent", "%s, in bottle %q of %s", p.Agent, p.Bottle, p.Manifest)
	if p.Name.Pinned {
		row("name", "%s (an error if it is taken)", p.Name.Base)
	} else {
		row("name", "%s, or %s … %s if it is taken", p.Name.Base, candidate(p.Name.Base, 1), candidate(p.Name.Base, maxCandidates-1))
	}
	p.imageText(row)
	row("networks", "%s (sealed), %s", internalNetworkName(p.Name.Base), egressNetworkName(p.Name.Base))
	row("container", "%s, on the sealed network alone", containerName(p.Name.Base))
	if ws := p.Workspace; ws.Source != "" {
		row("workspace", "a copy of %s at %s", ws.Source, ws.Target)
		for _, pattern := range ws.Ignore {
			row("", "without %s", pattern)
		}
	} else {
		row("workspace", "none")
	}
	row("command", "%s", orDefault(quoted(p.Command), "the image's"))
	row("working dir", "%s", orDefault(p.WorkDir, "the image's"))
	row("user", "%s", orDefault(p.User, "the image's"))
	for _, name := range slices.Sorted(maps.Keys(p.Env)) {
		row("variable", "%s=%s", name, strconv.Quote(p.Env[name]))
	}
	for _, name := range slices.Sorted(maps.Keys(p.Secrets)) {
		row("variable", "%s, %s: its value is shown nowhere", name, p.Secrets[name])
	}
	p.egressText(row)
	p.gitText(row)
	p.superviseText(row)
	p.limitsText(row)
	for _, f := range p.Files {
		row(f.What, "%s from %s", f.Target, orDefault(f.Source, "the manifest"))
	}
	return tw.Flush()
}

func (p Plan) imageText(row func(key, format string, args ...any)) {
	b := p.Image.Build
	if b == nil {
		row("image", "%s, pulled if it is not there", p.Image.Reference)
		return
	}
	row("image", "built from %s with the files of %s, if there is none of the same content", b.Dockerfile, b.Context)
	for _, name := range slices.Sorted(maps.Keys(b.Args)) {
		row("", "ARG %s=%s", name, strconv.Quote(b.Args[name]))
	}
	if b.Target != "" {
		row("", "stage %s", b.Target)
	}
}

// egressText says what may leave, by which way.
func (p Plan) egressText(row func(key, format string, args ...any)) {
	e := p.Egress
	switch {
	case e == nil && p.Git != nil:
		row("egress", "none: there is no way out but git")
		return
	case e == nil:
		row("egress", "none: there is no way out at all")
		return
	}
	firewall := builtInOr(e.Firewall.Image)
	if e.Firewall.Engine == manifest.FirewallPipelock {
		firewall = e.Firewall.Engine + " from " + firewall
	}
	row("firewall", "%s, on both networks", firewall)
	wayText(row, e.Firewall.Way)
	if e.HasRoutes() {
		row("egress proxy", "%s, on the sealed network alone, before the firewall", builtInOr(e.Image))
	}
	for _, r := range e.Routes {
		row("route", "%s", routeText(r))
	}
	for _, a := range e.Allow {
		row("allowed", "%s%s", a.Host, portsText(a.Ports))
	}
	switch {
	case e.AllowAll:
		row("allowed", "every other host whose addresses are public")
	case len(e.Allow)+len(e.Routes) == 0:
		row("allowed", "nothing")
	}
	for _, name := range slices.Sorted(maps.Keys(e.SecretHosts)) {
		row("secret", "%s may go to %s", name, strings.Join(e.SecretHosts[name], ", "))
	}
	for _, name := range e.Tokens() {
		row("token", "%s of the host, for the sidecars: its value is shown nowhere", name)
	}
}

func builtInOr(reference string) string { return orDefault(reference, "built in") }

func wayText(row func(key, format string, args ...any), w egress.Way) {
	if w.Proxy != nil {
		row("", "through %s", w.Proxy.URL)
	}
	for _, file := range w.CAFiles {
		row("", "trusting %s", file)
	}
}

// gitText says which repositories there are and what may be pushed.
func (p Plan) gitText(row func(key, format string, args ...any)) {
	g := p.Git
	if g == nil {
		return
	}
	row("git gate", "%s, on both networks", builtInOr(g.Image))
	if p.Egress == nil {
		wayText(row, g.Way)
	}
	for _, r := range g.Repositories {
		row("repository", "%s: %s%s", r.Name, r.URL, pushText(r.Push))
		switch {
		case r.SSHKey != "":
			row("", "with the key %s", r.SSHKey)
		case r.Credential != nil:
			row("", "with %s of the host, for the gate: its value is shown nowhere", r.Credential.Secret)
		}
	}
	for _, name := range g.Open {
		row("secret", "%s is none: it may be pushed", name)
	}
	for _, note := range g.Notes {
		row("note", "%s", note)
	}
}

// superviseText says what the agent may propose.
func (p Plan) superviseText(row func(key, format string, args ...any)) {
	s := p.Supervise
	if s == nil {
		return
	}
	row("supervise", "%s, on the sealed network alone: the agent may propose %s", builtInOr(s.Image), strings.Join(s.Kinds, ", "))
	for _, name := range s.MCP {
		row("", "registered for %s in %s", name, mcp.Path(name))
	}
}

func pushText(p *config.GitPush) string {
	if p == nil {
		return ", to fetch from"
	}
	var what []string
	for _, kind := range []struct {
		name     string
		patterns []string
	}{{"branches", p.Branches}, {"tags", p.Tags}, {"notes", p.Notes}} {
		if len(kind.patterns) > 0 {
			what = append(what, kind.name+" "+strings.Join(kind.patterns, ", "))
		}
	}
	text := ", to fetch from and to push " + strings.Join(what, " and ")
	if p.Force {
		text += ", by force too"
	}
	if p.Delete {
		text += ", and to delete them"
	}
	return text
}

func routeText(r policy.Route) string {
	text := r.Host + portsText(r.Ports)
	if len(r.Methods) > 0 {
		text = strings.Join(r.Methods, ", ") + " " + text
	}
	if len(r.Paths) > 0 {
		text += " " + strings.Join(r.Paths, ", ")
	}
	switch {
	case r.Credential != nil:
		text += " with " + r.Credential.Secret
	case r.PassCredentials:
		text += " with what the agent sends"
	}
	return text
}

func portsText(ports []uint16) string {
	if len(ports) == 0 {
		return ""
	}
	list := make([]string, len(ports))
	for i, p := range ports {
		list[i] = strconv.Itoa(int(p))
	}
	if len(list) == 1 {
		return " on port " + list[0]
	}
	return " on ports " + strings.Join(list, ", ")
}

func (p Plan) limitsText(row func(key, format string, args ...any)) {
	l := p.Limits
	if l.Memory > 0 {
		row("limit", "%s of memory", bytesText(l.Memory))
	}
	if l.PIDs > 0 {
		row("limit", "%d processes", l.PIDs)
	}
	if l.CPUs > 0 {
		row("limit", "%g processors", l.CPUs)
	}
	if l.NoFile > 0 {
		row("limit", "%d open files", l.NoFile)
	}
	if p.OCIRuntime != "" {
		row("OCI runtime", "%s", p.OCIRuntime)
	}
	if p.ReadOnly {
		row("root", "read-only")
	}
	for _, t := range p.Tmpfs {
		row("tmpfs", "%s", t.Target)
	}
}

func quoted(words []string) string {
	list := make([]string, len(words))
	for i, w := range words {
		list[i] = w
		if w == "" || strings.ContainsAny(w, " \t\n\"'\\$*?;&|<>()`") {
			list[i] = strconv.Quote(w)
		}
	}
	return strings.Join(list, " ")
}

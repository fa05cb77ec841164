package doctor

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/bottle-run/bottle/runtime"
)

// maxChangelog bounds what is read of a package's changelog, in bytes.
const maxChangelog = 8 << 20

// escapes compares the versions of an engine's programs with the advisories. local
// reports that they are this host's, whose changelogs then count.
func (h Host) escapes(engine string, components []runtime.Component, local bool) []Finding {
	var list []Finding
	for _, c := range components {
		i := slices.IndexFunc(programs, func(p program) bool { return p.name == c.Name })
		if i < 0 {
			continue
		}
		v, ok := parseVersion(c.Version)
		if !ok {
			list = append(list, Finding{Severity: Note, Check: "known-escapes", Engine: engine, Text: fmt.Sprintf("the version %q of %s is not understood: it was not compared with known escapes", c.Version, c.Name)})
			continue
		}
		open := slices.DeleteFunc(slices.Clone(programs[i].advisories), func(a advisory) bool { return v.fixed(a.fixed) })
		fixed := map[string]bool{}
		if local && len(open) > 0 {
			for _, name := range programs[i].packages {
				maps.Copy(fixed, h.changelog(name))
			}
		}
		backported := 0
		for _, a := range open {
			if fixed[a.id] {
				backported++
				continue
			}
			list = append(list, a.finding(engine, c, len(fixed) > 0))
		}
		if backported > 0 {
			list = append(list, Finding{Severity: Note, Check: "known-escapes", Engine: engine, Text: fmt.Sprintf("%s %s: the changelog of its package names %d more as fixed", c.Name, c.Version, backported)})
		}
	}
	return list
}

// finding tells about an advisory. looked reports that the changelog of the
// package was read, and does not name it.
func (a advisory) finding(engine string, p runtime.Component, looked bool) Finding {
	f := Finding{Severity: a.severity, Check: a.id, Engine: engine, Source: a.source}
	fixed := strings.Join(a.fixed, ", ")
	// An engine may not tell that it is a package's; its changelog does.
	if looked || isPackaged(p.Version) {
		// A package's number says little.
		if f.Severity == Problem {
			f.Severity = Warning
		}
		f.Text = fmt.Sprintf("%s %s may be open to %s: %s", p.Name, p.Version, a.id, a.what)
		if looked {
			f.Fix = fmt.Sprintf("the package's changelog on this host does not name it: update the package, or look in your distribution's security tracker; upstream it is fixed in %s", fixed)
			return f
		}
		f.Fix = fmt.Sprintf("look for %s in the changelog of your distribution's package (apt changelog, rpm -q --changelog) or its security tracker; upstream it is fixed in %s", a.id, fixed)
		return f
	}
	f.Text = fmt.Sprintf("%s %s is open to %s: %s", p.Name, p.Version, a.id, a.what)
	f.Fix = fmt.Sprintf("update %s to %s, or newer", p.Name, fixed)
	return f
}

var cve = regexp.MustCompile(`CVE-\d{4}-\d{4,7}`)

// changelog returns the CVEs that the changelog of an installed Debian package
// names.
func (h Host) changelog(name string) map[string]bool {
	found := map[string]bool{}
	for _, file := range []string{"changelog.Debian.gz", "changelog.Debian.amd64.gz", "changelog.Debian.arm64.gz"} {
		content, err := fs.ReadFile(h.Root, path.Join("usr/share/doc", name, file))
		if err != nil {
			continue
		}
		z, err := gzip.NewReader(bytes.NewReader(content))
		if err != nil {
			continue
		}
		text, _ := io.ReadAll(io.LimitReader(z, maxChangelog)) // what can be read of it
		for _, id := range cve.FindAll(text, -1) {
			found[string(id)] = true
		}
	}
	return found
}

package manifest

import (
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
)

// validate reports what the shape alone does not: keys that exclude or need each
// other, and names that refer to nothing.
func (d *decoder) validate(m *Manifest) {
	for _, name := range slices.Sorted(maps.Keys(m.Bottles)) {
		d.validateBottle(m.Bottles[name], "/bottles/"+name)
	}
	for _, name := range slices.Sorted(maps.Keys(m.Agents)) {
		d.validateAgent(m, m.Agents[name], "/agents/"+name)
	}
}

func (d *decoder) given(at string) bool { _, ok := d.positions[at]; return ok }

func (d *decoder) validateBottle(b Bottle, at string) {
	image, file := d.given(at+"/image"), d.given(at+"/dockerfile")
	switch {
	case image && file:
		d.add(d.positions[at+"/dockerfile"], "both image and dockerfile are given: one of them decides")
	case !image && !file && d.positions[at] != (Position{}):
		d.add(d.positions[at], "the bottle has neither image nor dockerfile: give one of them")
	case image && b.Image == "":
		d.add(d.positions[at+"/image"], "image is empty")
	case file && b.Dockerfile == "":
		d.add(d.positions[at+"/dockerfile"], "dockerfile is empty")
	}
	if image && !file {
		for _, key := range []string{"context", "build_args", "target"} {
			if d.given(at + "/" + key) {
				d.add(d.positions[at+"/"+key], "%s has no meaning with image: it belongs to dockerfile", key)
			}
		}
	}
	if strings.ContainsAny(b.User, " \t\n") {
		d.add(d.positions[at+"/user"], "user: %q: want NAME, UID, NAME:GROUP or UID:GID", b.User)
	}
	for i, t := range b.Tmpfs {
		p := at + "/tmpfs/" + strconv.Itoa(i) + "/path"
		if msg := checkInside(t.Path, false); msg != "" && d.given(p) {
			d.add(d.positions[p], "tmpfs: %s", msg)
		}
	}
	d.validateWorkspace(b, at)
	d.validateEgress(b, at)
	d.validateGit(b, at)
	d.validateSupervise(b, at)
	seen := map[string]bool{}
	for i, name := range b.Forward {
		if seen[name] {
			d.add(d.positions[at+"/forward/"+strconv.Itoa(i)], "forward: %s is named twice", name)
		}
		seen[name] = true
	}
}

func (d *decoder) validateWorkspace(b Bottle, at string) {
	ws := at + "/workspace"
	if b.Workspace.Target != "" {
		if msg := checkInside(b.Workspace.Target, false); msg != "" {
			d.add(d.positions[ws+"/target"], "workspace: %s", msg)
		}
	}
	for i, p := range b.Workspace.Ignore {
		if strings.ContainsAny(p, "\n\r") {
			d.add(d.positions[ws+"/ignore/"+strconv.Itoa(i)], "workspace: a pattern is one line")
		}
	}
	if b.ReadOnly && !b.Workspace.None {
		d.add(d.positions[at+"/read_only"], "read_only leaves no place for a workspace: write workspace: false too")
	}
}

func (d *decoder) validateAgent(m *Manifest, a Agent, at string) {
	if d.given(at+"/bottle") && d.given("/bottles") {
		if _, ok := m.Bottles[a.Bottle]; !ok {
			names := slices.Collect(maps.Keys(m.Bottles))
			d.add(d.positions[at+"/bottle"], "there is no bottle %q: %s", a.Bottle, choice(a.Bottle, names))
		}
	}
	if d.given(at+"/command") && (len(a.Command) == 0 || a.Command[0] == "") {
		d.add(d.positions[at+"/command"], "command is empty: leave the key out to run what the image says")
	}
	if d.given(at+"/prompt") && d.given(at+"/prompt_file") {
		d.add(d.positions[at+"/prompt_file"], "both prompt and prompt_file are given: one of them decides")
	}
	for key, value := range map[string]string{"prompt_path": a.PromptPath, "skills_path": a.SkillsPath, "workdir": a.WorkDir} {
		if d.given(at + "/" + key) {
			if msg := checkInside(value, key != "workdir"); msg != "" {
				d.add(d.positions[at+"/"+key], "%s: %s", key, msg)
			}
		}
	}
	names := map[string]bool{}
	for i, s := range a.Skills {
		base := path.Base(path.Clean(strings.ReplaceAll(s, `\`, "/")))
		switch where := d.positions[at+"/skills/"+strconv.Itoa(i)]; {
		case base == "." || base == ".." || base == "/" || base == "~":
			d.add(where, "skills: %q has no name of its own: give a directory by its name", s)
		case names[base]:
			d.add(where, "skills: another skill is named %q too", base)
		}
		names[base] = true
	}
	for i, f := range a.Files {
		d.validateFile(f, at+"/files/"+strconv.Itoa(i))
	}
	if b, ok := m.Bottles[a.Bottle]; ok && b.ReadOnly {
		for _, key := range []string{"prompt", "prompt_file", "skills", "files", "gitconfig"} {
			if d.given(at + "/" + key) {
				d.add(d.positions[at+"/"+key], "%s cannot be put into bottle %q, which is read_only", key, a.Bottle)
			}
		}
	}
}

func (d *decoder) validateFile(f File, at string) {
	source, content := d.given(at+"/source"), d.given(at+"/content")
	switch {
	case source && content:
		d.add(d.positions[at+"/content"], "both source and content are given: one of them decides")
	case !source && !content:
		d.add(d.positions[at], "the file has neither source nor content: give one of them")
	case source && f.Source == "":
		d.add(d.positions[at+"/source"], "source is empty")
	}
	if d.given(at + "/target") {
		if msg := checkInside(f.Target, true); msg != "" {
			d.add(d.positions[at+"/target"], "target: %s", msg)
		}
	}
}

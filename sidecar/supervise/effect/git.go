package effect

import (
	"fmt"
	"slices"
	"strings"

	"github.com/bottle-run/bottle/sidecar/config"
	"github.com/bottle-run/bottle/sidecar/supervise/show"
)

// git finds what may newly be fetched and pushed.
func (c *comparison) git() {
	for _, r := range c.after.Git {
		i := slices.IndexFunc(c.before.Git, func(o config.GitRule) bool { return o.Name == r.Name && o.URL == r.URL })
		where := fmt.Sprintf("repository %s (%s)", show.Line(r.Name), show.Line(r.URL))
		var old, now config.GitPush
		if i < 0 {
			c.add(Item{Repository: r.Name, Text: "fetching from the " + where}, "")
		} else if c.before.Git[i].Push != nil {
			old = *c.before.Git[i].Push
		}
		if r.Push == nil {
			continue
		}
		now = *r.Push
		push := func(what string, old, now []string) {
			var added []string
			wide := false
			for _, p := range now {
				if !slices.ContainsFunc(old, func(o string) bool { return patternCovers(o, p) }) {
					added = append(added, show.Line(p))
					wide = wide || p == "*" || p == "**"
				}
			}
			if len(added) == 0 {
				return
			}
			item := Item{Repository: r.Name, Text: fmt.Sprintf("pushing to the %s %s of the %s", what, strings.Join(added, ", "), where)}
			if wide {
				item.Wildcard = true
				item.Warnings = append(item.Warnings, fmt.Sprintf("WILDCARD: it stands for all %s, the main one too", what))
			} else if slices.ContainsFunc(added, func(s string) bool { return strings.Contains(s, "*") }) {
				item.Wildcard = true
				item.Warnings = append(item.Warnings, fmt.Sprintf("WILDCARD: it stands for all %s of that form", what))
			}
			if r.Push.Force {
				item.Warnings = append(item.Warnings, "history may be overwritten there")
			}
			if r.Push.Delete {
				item.Warnings = append(item.Warnings, "they may be deleted, too")
			}
			if r.Credential {
				item.Warnings = append(item.Warnings, "the gate attaches the operator's credential")
			}
			c.add(item, "")
		}
		push("branches", old.Branches, now.Branches)
		push("tags", old.Tags, now.Tags)
		push("notes", old.Notes, now.Notes)
		all := slices.Concat(now.Branches, now.Tags, now.Notes)
		if len(all) == 0 {
			continue
		}
		for j := range all {
			all[j] = show.Line(all[j])
		}
		if now.Force && !old.Force {
			c.add(Item{Repository: r.Name, Text: fmt.Sprintf("overwriting history and moving tags (%s) of the %s", strings.Join(all, ", "), where), Warnings: []string{"what is overwritten may be lost"}}, "")
		}
		if now.Delete && !old.Delete {
			c.add(Item{Repository: r.Name, Text: fmt.Sprintf("deleting what matches %s of the %s", strings.Join(all, ", "), where), Warnings: []string{"what is deleted may be lost"}}, "")
		}
	}
}

// dockerfile says that another image is built.
func dockerfile(before, after string) Item {
	item := Item{Text: "the image is built from the changed Dockerfile at once, and the agent gets it when the bottle is restarted"}
	old := map[string]bool{}
	for line := range strings.Lines(before) {
		old[strings.Join(strings.Fields(line), " ")] = true
	}
	based := bases(before)
	for _, b := range bases(after) {
		if !slices.Contains(based, b) {
			item.Warnings = append(item.Warnings, "it is based on an image that it was not based on before: "+show.Line(b))
		}
	}
	for line := range strings.Lines(after) {
		line = strings.Join(strings.Fields(line), " ")
		word, _, _ := strings.Cut(line, " ")
		if old[line] {
			continue
		}
		switch strings.ToUpper(word) {
		case "RUN":
			item.Warnings = append(item.Warnings, "it runs what the agent has chosen, as root of a build: "+show.Line(line))
		case "COPY", "ADD":
			item.Warnings = append(item.Warnings, "the agent gets what it names of your build context, as far as .dockerignore lets it: "+show.Line(line))
		case "USER":
			item.Warnings = append(item.Warnings, "the agent may run as another user: "+show.Line(line))
		}
	}
	return item
}

// bases are the images that a Dockerfile names in FROM.
func bases(text string) []string {
	var list []string
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		if len(words) < 2 || !strings.EqualFold(words[0], "FROM") {
			continue
		}
		for _, w := range words[1:] {
			if !strings.HasPrefix(w, "--") {
				list = append(list, w)
				break
			}
		}
	}
	return list
}

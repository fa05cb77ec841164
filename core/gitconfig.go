package core

import (
	"maps"
	"slices"
	"strings"
)

// renderGitConfig writes settings by dotted name as a git configuration file.
// The names have passed the manifest's check: a section, perhaps a subsection in
// between, and a name.
func renderGitConfig(settings map[string]string) string {
	var b strings.Builder
	section := ""
	for _, key := range slices.Sorted(maps.Keys(settings)) {
		first, last := strings.IndexByte(key, '.'), strings.LastIndexByte(key, '.')
		header := "[" + key[:first] + "]\n"
		if first != last {
			header = "[" + key[:first] + ` "` + gitQuote.Replace(key[first+1:last]) + "\"]\n"
		}
		if header != section {
			b.WriteString(header)
			section = header
		}
		b.WriteString("\t" + key[last+1:] + ` = "` + gitValue.Replace(settings[key]) + "\"\n")
	}
	return b.String()
}

var (
	gitQuote = strings.NewReplacer(`\`, `\\`, `"`, `\"`)
	gitValue = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`, "\t", `\t`)
)

package scaffold

import (
	"encoding/json"
	"io/fs"
	"regexp"
	"strings"
)

// language is a language, with what its projects need.
type language struct {
	// name is what --language takes.
	name, title string
	// files tell that a project is of it.
	files []string
	// image is the base image; version replaces its default version.
	image, version string
	// packages are Debian's and Ubuntu's.
	packages []string
	hosts    []Host
}

// languages are those that are known, in the order in which the first becomes the
// image of a project that has several.
var languages = []language{
	{
		name: "go", title: "Go", files: []string{"go.mod", "go.work"}, image: "golang", version: "1",
		hosts: []Host{{"proxy.golang.org", "Go modules"}, {"sum.golang.org", "their checksums"}},
	},
	{
		name: "rust", title: "Rust", files: []string{"Cargo.toml"}, image: "rust", version: "1",
		hosts: []Host{{"index.crates.io", "the index of crates"}, {"static.crates.io", "crates"}},
	},
	{
		name: "java", title: "Java", files: []string{"pom.xml", "build.gradle", "build.gradle.kts", "settings.gradle", "settings.gradle.kts"}, image: "eclipse-temurin", version: "21-jdk",
		packages: []string{"maven"},
		hosts:    []Host{{"repo.maven.apache.org", "Maven Central"}, {"repo1.maven.org", "Maven Central, by its other name"}, {"plugins.gradle.org", "Gradle's plugins"}, {"services.gradle.org", "Gradle itself, for its wrapper"}},
	},
	{
		name: "python", title: "Python", files: []string{"pyproject.toml", "requirements.txt", "setup.py", "setup.cfg", "Pipfile"}, image: "python", version: "3-slim",
		packages: []string{"build-essential"},
		hosts:    []Host{{"pypi.org", "the index of Python packages"}, {"files.pythonhosted.org", "Python packages"}},
	},
	{
		name: "node", title: "Node.js", files: []string{"package.json", "deno.json"}, image: "node", version: nodeVersion,
		hosts: []Host{npmHost},
	},
}

const nodeVersion = "24-slim"

var npmHost = Host{"registry.npmjs.org", "npm packages"}

// plain is a project of no language that is known.
var plain = language{name: "plain", title: "no language that is known", image: "debian", version: "stable-slim"}

// Languages are the names of those that are known, and "plain".
func Languages() []string {
	names := make([]string, 0, len(languages)+1)
	for _, l := range languages {
		names = append(names, l.name)
	}
	return append(names, plain.name)
}

// Detect returns the names of the languages of the project in a directory, or
// "plain" alone.
func Detect(dir fs.FS) []string {
	var names []string
	for _, l := range languages {
		for _, file := range l.files {
			if info, err := fs.Stat(dir, file); err == nil && info.Mode().IsRegular() {
				names = append(names, l.name)
				break
			}
		}
	}
	if names == nil {
		return []string{plain.name}
	}
	return names
}

var (
	goVersion     = regexp.MustCompile(`(?m)^go\s+(1\.\d{1,3})`)
	pythonVersion = regexp.MustCompile(`^3\.\d{1,2}`)
	nodeMajor     = regexp.MustCompile(`^v?(\d{2})(\.|\s|$)`)
	enginesMajor  = regexp.MustCompile(`^(?:>=|\^|~)?(\d{2})(\.|\s|$)`)
)

// maxProjectFile bounds what is read of a project's files, in bytes.
const maxProjectFile = 1 << 20

// pinned is the version that the project asks for, or the default one.
func (l language) pinned(dir fs.FS) string {
	text := func(name string) string {
		if info, err := fs.Stat(dir, name); err != nil || !info.Mode().IsRegular() || info.Size() > maxProjectFile {
			return ""
		}
		content, err := fs.ReadFile(dir, name)
		if err != nil {
			return ""
		}
		return strings.TrimSpace(string(content))
	}
	switch l.name {
	case "go":
		if m := goVersion.FindStringSubmatch(text("go.mod")); m != nil {
			return m[1]
		}
	case "python":
		if v := pythonVersion.FindString(text(".python-version")); v != "" {
			return v + "-slim"
		}
	case "node":
		for _, file := range []string{".nvmrc", ".node-version"} {
			if m := nodeMajor.FindStringSubmatch(text(file)); m != nil {
				return m[1] + "-slim"
			}
		}
		var p struct {
			Engines struct {
				Node string `json:"node"`
			} `json:"engines"`
		}
		if json.Unmarshal([]byte(text("package.json")), &p) == nil {
			if m := enginesMajor.FindStringSubmatch(p.Engines.Node); m != nil {
				return m[1] + "-slim"
			}
		}
	}
	return l.version
}

package scaffold

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
)

// The files that are written, relative to the project.
const (
	ManifestFile = "bottle.yaml"
	DockerFile   = ".bottle/Dockerfile"
)

// Options say what to write.
type Options struct {
	// Agent is one of Agents.
	Agent string
	// Languages are some of Languages; none means those that Detect finds.
	Languages []string
	// LookupEnv finds a variable of the environment, by which an agent's route is
	// written or left as a comment.
	LookupEnv func(string) (string, bool)
}

// File is a file to write.
type File struct {
	// Name is relative to the project, with slashes.
	Name    string `json:"name"`
	Content []byte `json:"-"`
}

// Scaffold is what a project gets.
type Scaffold struct {
	Agent     string   `json:"agent"`
	Languages []string `json:"languages"`
	Files     []File   `json:"files"`
	// Token is the variable that the agent's key is expected in, if it is not set.
	Token string `json:"token,omitempty"`
}

// New decides what a project gets. It writes nothing.
func New(dir fs.FS, opts Options) (Scaffold, error) {
	i := slices.IndexFunc(agents, func(a Agent) bool { return a.Name == opts.Agent })
	if i < 0 {
		return Scaffold{}, fmt.Errorf("there is no agent %q: it is one of %s", opts.Agent, strings.Join(Agents(), ", "))
	}
	names := opts.Languages
	if len(names) == 0 {
		names = Detect(dir)
	}
	p := project{agent: agents[i]}
	for _, name := range names {
		j := slices.IndexFunc(languages, func(l language) bool { return l.name == name })
		switch {
		case name == plain.name:
			p.languages = append(p.languages, plain)
		case j < 0:
			return Scaffold{}, fmt.Errorf("there is no language %q: it is one of %s", name, strings.Join(Languages(), ", "))
		default:
			p.languages = append(p.languages, languages[j])
		}
	}
	p.version = p.languages[0].pinned(dir)
	s := Scaffold{Agent: p.agent.Name, Languages: names}
	if p.agent.Token != "" {
		value, ok := opts.LookupEnv(p.agent.Token)
		if p.hasToken = ok && value != ""; !p.hasToken {
			s.Token = p.agent.Token
		}
	}
	s.Files = []File{{Name: ManifestFile, Content: p.manifest()}, {Name: DockerFile, Content: p.dockerfile()}}
	return s, nil
}

// ExistsError names files that are there already.
type ExistsError struct{ Files []string }

// Error says what to do.
func (e *ExistsError) Error() string {
	return fmt.Sprintf("there is %s already: --force replaces it", strings.Join(e.Files, " and "))
}

// Write writes the files into a directory. Without force, none is written if one of
// them is there already, which is an *ExistsError.
func (s Scaffold) Write(dir string, force bool) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	var there []string
	for _, f := range s.Files {
		if _, err := root.Lstat(f.Name); err == nil {
			there = append(there, f.Name)
		} else if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if len(there) > 0 && !force {
		return &ExistsError{there}
	}
	// All are there in full before the first gets its name.
	var temps []string
	defer func() {
		for _, t := range temps {
			_ = root.Remove(t)
		}
	}()
	for _, f := range s.Files {
		if err := root.MkdirAll(path.Dir(f.Name), 0o755); err != nil {
			return err
		}
		temp := f.Name + ".new"
		if err := writeNew(root, temp, f.Content); err != nil {
			return err
		}
		temps = append(temps, temp)
	}
	for i, f := range s.Files {
		if !force {
			// A link fails if there is something after all; a rename would replace it.
			if err := root.Link(temps[i], f.Name); err != nil {
				return err
			}
			continue
		}
		if err := root.Rename(temps[i], f.Name); err != nil {
			return err
		}
	}
	return nil
}

func writeNew(root *os.Root, name string, content []byte) error {
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	return errors.Join(err, f.Close())
}

package delivery

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/bottle-run/bottle/sidecar/secrets"
)

// Store is a directory of delivered files. One process may use it at a time.
type Store struct{ dir string }

// NewStore makes a store of a directory, which should be in memory.
func NewStore(dir string) Store { return Store{dir} }

// ErrFixed says that a document would change what cannot change any more.
var ErrFixed = errors.New("the authority of a sidecar cannot change: end the bottle and launch it again")

// Put writes what a document gives as files of mode 0400 over those that are there. The
// caller then calls keep if the sidecar takes it up, or back, which restores what was
// there. On an error nothing has changed.
func (s Store) Put(doc Document) (keep func(), back func() error, err error) {
	files, err := s.files(doc)
	if err != nil {
		return nil, nil, err
	}
	for _, name := range []string{CACert, CAKey} {
		before, err := os.ReadFile(In(s.dir, name))
		content, given := files[name]
		if err == nil && given && !bytes.Equal(before, content) {
			return nil, nil, ErrFixed
		}
	}
	// Everything is written before anything is replaced: renaming takes no space.
	staged := map[string]string{}
	unstage := func() {
		for _, temp := range staged {
			_ = os.Remove(temp)
		}
	}
	for name, content := range files {
		temp, err := s.stage(name, content)
		if err != nil {
			unstage()
			return nil, nil, err
		}
		staged[name] = temp
	}
	old := func(name string) string { return In(s.dir, "."+name+".old") }
	var replaced []string
	back = func() error {
		var errs []error
		for _, name := range replaced {
			err := os.Rename(old(name), In(s.dir, name))
			if errors.Is(err, fs.ErrNotExist) {
				err = os.Remove(In(s.dir, name))
			}
			errs = append(errs, err)
		}
		return errors.Join(errs...)
	}
	for name, temp := range staged {
		err := os.Rename(In(s.dir, name), old(name))
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			replaced = append(replaced, name)
			err = os.Rename(temp, In(s.dir, name))
		}
		if err != nil {
			err = fmt.Errorf("keeping the delivery: %w", errors.Join(err, back()))
			unstage()
			return nil, nil, err
		}
		delete(staged, name)
	}
	keep = func() {
		for _, name := range replaced {
			_ = os.Remove(old(name)) // there is none of what is new
		}
	}
	return keep, back, nil
}

func (s Store) stage(name string, content []byte) (string, error) {
	temp, err := os.CreateTemp(s.dir, "."+filepath.Base(name)+"-*") // 0600
	if err != nil {
		return "", fmt.Errorf("keeping the delivery: %w", err)
	}
	_, err = temp.Write(content)
	err = errors.Join(err, temp.Chmod(0o400), temp.Close())
	if err != nil {
		_ = os.Remove(temp.Name())
		return "", fmt.Errorf("keeping the delivery: %w", err)
	}
	return temp.Name(), nil
}

// files are the contents that a document makes, by name.
func (s Store) files(doc Document) (map[string][]byte, error) {
	files := map[string][]byte{}
	for name, content := range map[string]string{
		Config: string(doc.Config), CACert: doc.CACert, CAKey: doc.CAKey, FirewallCA: doc.FirewallCA, CorporateRoots: doc.CorporateRoots,
	} {
		if content != "" {
			files[name] = []byte(content)
		}
	}
	if len(doc.Secrets) == 0 {
		return files, nil
	}
	set, err := secrets.Load(In(s.dir, Secrets))
	if err != nil && !secrets.IsMissing(err) {
		return nil, err
	}
	if set == nil {
		set = secrets.Set{}
	}
	for _, secret := range doc.Secrets {
		set[secret.Name] = secret
	}
	all := make([]secrets.Secret, 0, len(set))
	for _, name := range set.Names() {
		all = append(all, set[name])
	}
	list, err := json.Marshal(all)
	if err != nil {
		return nil, errors.New("keeping the delivery: the secrets cannot be written as JSON")
	}
	content := secretsFile(list)
	// Together they may be too much for who reads them.
	if _, err := secrets.Decode(bytes.NewReader(content)); err != nil {
		return nil, err
	}
	files[Secrets] = content
	return files, nil
}

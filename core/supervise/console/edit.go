package console

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	tea "github.com/charmbracelet/bubbletea"

	"github.com/bottle-run/bottle/core/supervise/tui"
	"github.com/bottle-run/bottle/sidecar/supervise/change"
	"github.com/bottle-run/bottle/sidecar/supervise/operator"
	"github.com/bottle-run/bottle/sidecar/supervise/show"
)

// Edit implements [tui.Backend]: the operator's editor gets a file with the change as JSON, and
// the terminal until it ends. The file holds plain ASCII, whatever the agent wrote.
func (d *desk) Edit(v operator.View) tea.Cmd {
	c := v.Proposal.Change
	if v.Proposal.Decision != nil && v.Proposal.Decision.Edited != nil {
		c = *v.Proposal.Decision.Edited
	}
	file, remove, err := forEditor(c)
	if err != nil {
		return func() tea.Msg { return tui.Edited{Err: err} }
	}
	return tea.ExecProcess(editor(file), func(err error) tea.Msg {
		defer remove()
		if err != nil {
			return tui.Edited{Err: fmt.Errorf("the editor: %w: nothing was changed", err)}
		}
		c, err := edited(file)
		return tui.Edited{Change: c, Err: err}
	})
}

// editor is the command that edits a file, as git finds it.
func editor(file string) *exec.Cmd {
	command := "vi"
	for _, name := range []string{"EDITOR", "VISUAL"} {
		if v := os.Getenv(name); v != "" {
			command = v
		}
	}
	return exec.Command("sh", "-c", command+` "$@"`, command, file) //nolint:gosec // the operator's own words
}

// forEditor writes a change into a file that only the operator can read.
func forEditor(c change.Change) (file string, remove func(), err error) {
	text, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return "", nil, err
	}
	dir, err := os.MkdirTemp("", "bottle-edit-*")
	if err != nil {
		return "", nil, err
	}
	remove = func() { _ = os.RemoveAll(dir) } // a directory of our own
	file = filepath.Join(dir, "change.json")
	if err := os.WriteFile(file, append(show.JSON(text), '\n'), 0o600); err != nil {
		remove()
		return "", nil, err
	}
	return file, remove, nil
}

// edited reads what the editor has left.
func edited(file string) (change.Change, error) {
	text, err := os.ReadFile(file) //nolint:gosec // the file of forEditor
	if err != nil {
		return change.Change{}, err
	}
	c, err := change.Decode(text)
	if err != nil {
		return c, fmt.Errorf("what was edited is not taken: %w", err)
	}
	return c, nil
}

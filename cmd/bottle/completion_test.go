package main

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/creack/pty"

	"github.com/bottle-run/bottle/internal/needs"
)

// tabbed are command lines, with what each shell makes of them at a tab. Nothing of
// what was typed is run.
var tabbed = map[string]string{
	"bottle comp":                   "bottle completion",
	"bottle completion z":           "bottle completion zsh",
	"bottle ps --runtime=do":        "bottle ps --runtime=docker",
	"bottle --runtime pod":          "bottle --runtime podman",
	"bottle run ":                   "bottle run coder",
	"bottle -f bottle.ya":           "bottle -f bottle.yaml",
	"bottle run -- cat bottle.ya":   "bottle run -- cat bottle.yaml",
	"bottle run $(touch ran) --nam": "bottle run $(touch ran) --name",
}

// typedShells are those that there is completion for: how they are started to be typed at, and
// what makes them ready. At a ^T each adds the line that has been typed to the file $SHOWN,
// and clears it.
var typedShells = map[string]struct {
	command []string
	file    string
	setup   string
}{
	"bash": {[]string{"--noprofile", "--rcfile", "setup", "-i"}, "setup", `
PS1='ready> '
show() { printf '%s\n' "$READLINE_LINE" >>"$SHOWN"; READLINE_LINE= READLINE_POINT=0; }
bind -x '"\C-t": show'
source <(bottle completion bash)
`},
	"zsh": {[]string{"-d", "-i"}, ".zshrc", `
PROMPT='ready> '
show() { print -r -- "$BUFFER" >>"$SHOWN"; BUFFER= }
zle -N show
bindkey '^T' show
autoload -U compinit && compinit -u -D
source <(bottle completion zsh)
`},
	"fish": {[]string{"--no-config", "--init-command", "source setup", "-i"}, "setup", `
function fish_prompt; echo 'ready> '; end
function show; commandline >>"$SHOWN"; commandline ""; end
bind \ct show
bottle completion fish | source
`},
}

// TestShellsCompleteWithoutAnEngine types command lines into the shells themselves.
func TestShellsCompleteWithoutAnEngine(t *testing.T) {
	for name := range typedShells {
		t.Run(name, func(t *testing.T) {
			s := startShell(t, name)
			for line, want := range tabbed {
				if got := strings.TrimRight(s.complete(line), " "); got != want {
					t.Errorf("%q becomes %q, want %q", line, got, want)
				}
			}
			s.complete("bottle run `touch ran` --nam") // bash completes nothing behind these
			if _, err := os.Stat(filepath.Join(s.dir, "ran")); err == nil {
				t.Error("what was typed was run")
			}
		})
	}
}

// typedShell is a shell in a terminal, in a directory with a manifest.
type typedShell struct {
	t        *testing.T
	dir      string
	terminal *os.File
	lines    int

	mu   sync.Mutex
	seen bytes.Buffer
}

func startShell(t *testing.T, name string) *typedShell {
	t.Helper()
	program := needs.Program(t, name, name)
	s := &typedShell{t: t, dir: t.TempDir()}
	check(t, os.WriteFile(filepath.Join(s.dir, "bottle.yaml"), []byte("bottles: {dev: {image: none}}\nagents: {coder: {bottle: dev, description: Writes code.}}\n"), 0o600))
	check(t, os.WriteFile(filepath.Join(s.dir, typedShells[name].file), []byte(typedShells[name].setup), 0o600))
	cmd := exec.Command(program, typedShells[name].command...)
	cmd.Dir = s.dir
	cmd.Env = append(os.Environ(), "TERM=vt220", "HOME="+s.dir, "ZDOTDIR="+s.dir, "SHOWN="+filepath.Join(s.dir, "shown"), "BOTTLE_HOST=unix://"+s.dir+"/nowhere.sock")
	for _, kind := range []string{"CONFIG", "DATA", "STATE", "CACHE"} {
		cmd.Env = append(cmd.Env, "XDG_"+kind+"_HOME="+filepath.Join(s.dir, "xdg"))
	}
	terminal, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 40, Cols: 200})
	check(t, err)
	s.terminal = terminal
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 4096)
		for {
			n, err := terminal.Read(buf)
			s.mu.Lock()
			s.seen.Write(buf[:n])
			s.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // a shell that is typed at ignores SIGTERM
		_ = cmd.Wait()
		_ = terminal.Close()
		<-done
	})
	s.wait("its prompt", func() bool { return strings.Contains(s.screen(), "ready> ") })
	return s
}

func (s *typedShell) screen() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen.String()
}

// wait waits until something is so.
func (s *typedShell) wait(what string, so func() bool) {
	s.t.Helper()
	for end := time.Now().Add(patience); !so(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			s.t.Fatalf("%s does not come:\n%q", what, s.screen())
		}
	}
}

// complete types a line and a tab, and returns what the line is then.
func (s *typedShell) complete(line string) (completed string) {
	s.t.Helper()
	_, err := io.WriteString(s.terminal, line+"\t\x14")
	check(s.t, err)
	s.lines++
	s.wait("the line "+line, func() bool {
		content, _ := os.ReadFile(filepath.Join(s.dir, "shown"))
		lines := strings.SplitAfter(string(content), "\n")
		if len(lines) <= s.lines {
			return false
		}
		completed = strings.TrimSuffix(lines[s.lines-1], "\n")
		return true
	})
	return completed
}

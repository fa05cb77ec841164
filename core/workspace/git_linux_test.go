package workspace

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/go-multierror"
	"golang.org/x/sys/unix"

	"github.com/bottle-run/bottle/internal/needs"
)

// TestWhatGitIgnoresIsIgnored compares with git itself, over patterns and trees
// made at random.
func TestWhatGitIgnoresIsIgnored(t *testing.T) {
	needs.Program(t, "git", "git")
	const rounds = 60
	for seed := range uint64(rounds) {
		rng := rand.New(rand.NewPCG(seed, 7))
		files := map[string]string{}
		for range 40 {
			files[randomPath(rng)] = ""
		}
		for _, dir := range []string{"", "a/", "b/", "a/b/"} {
			var lines []string
			for range rng.IntN(7) {
				lines = append(lines, randomPattern(rng))
			}
			files[dir+".gitignore"] = strings.Join(lines, "\n") + "\n"
		}
		for name := range files {
			for dir := filepath.Dir(name); dir != "."; dir = filepath.Dir(dir) {
				delete(files, dir)
			}
		}
		root := plant(t, files)
		git(t, root, "init", "-q")
		want := strings.Split(strings.TrimSuffix(git(t, root, "ls-files", "-z", "--others", "--exclude-standard"), "\x00"), "\x00")
		slices.Sort(want)
		got := slices.DeleteFunc(names(t, scan(t, root, Options{})), func(s string) bool { return strings.HasPrefix(s, ".git/") })
		if want[0] == "" {
			want = want[1:]
		}
		if !slices.Equal(got, want) {
			t.Errorf("seed %d: git takes %q\nwe take %q\nwith", seed, want, got)
			for name, content := range files {
				if content != "" {
					t.Logf("%s:\n%s", name, content)
				}
			}
		}
	}
}

func git(t *testing.T, dir string, args ...string) string {
	t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir = dir
	// The user's own configuration has no say.
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null", "HOME="+dir+"/nowhere", "XDG_CONFIG_HOME="+dir+"/nowhere")
	out, err := cmd.Output()
	must(t, err)
	return string(out)
}

func randomPath(rng *rand.Rand) string {
	parts := []string{"a", "b", "ab", "a.o", "foo", "x-y", "[z]", "c d", ".dot", "A"}
	path := ""
	for range 1 + rng.IntN(4) {
		path += "/" + parts[rng.IntN(len(parts))]
	}
	return path[1:]
}

func randomPattern(rng *rand.Rand) string {
	parts := []string{
		"a", "b", "ab", "*", "**", "***", "?", "*.o", "[ab]", "[!a]", "[^a-c]*", "f*", "x-[a-z]", `\[z]`, "[z", "c d", `c\ d`, ".*", "a**b", "[[:upper:]]",
		"[]a]", "[a-]", `\a`, "fo?", "[]-a]", "[z-a]", "[[:nope:]]", "[--z]", "#x", "a\\",
	}
	p := ""
	if rng.IntN(4) == 0 {
		p = "!"
	}
	if rng.IntN(4) == 0 {
		p += "/"
	}
	for i := range 1 + rng.IntN(3) {
		if i > 0 {
			p += "/"
		}
		p += parts[rng.IntN(len(parts))]
	}
	switch rng.IntN(8) {
	case 0, 1:
		p += "/"
	case 2:
		p += "  "
	case 3:
		p += "\r"
	}
	return p
}

// TestUnreadableFilesAreNamed runs as an unprivileged user in a thread of its
// own: root can read everything.
func TestUnreadableFilesAreNamed(t *testing.T) {
	root := plant(t, map[string]string{"ok": "", "secret": "", "closed/x": "", "odd/.gitignore": ""})
	for _, dir := range []string{root, filepath.Dir(root)} {
		must(t, os.Chmod(dir, 0o755))
	}
	for _, name := range []string{"secret", "closed", "odd/.gitignore"} {
		must(t, os.Chmod(filepath.Join(root, name), 0))
	}
	t.Cleanup(func() { must(t, os.Chmod(filepath.Join(root, "closed"), 0o700)) })
	result := make(chan error)
	go func() {
		// The thread ends with the goroutine, since it is never unlocked.
		goruntime.LockOSThread()
		if os.Getuid() == 0 {
			const nobody = 65534
			if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, nobody, nobody, nobody); errno != 0 {
				result <- fmt.Errorf("setresuid: %w", errno)
				return
			}
		}
		_, err := Scan(t.Context(), root, Options{})
		result <- err
	}()
	err := <-result
	var all *multierror.Error
	if !errors.As(err, &all) || len(all.Errors) != 3 {
		t.Fatalf("got %v", err)
	}
	for i, name := range []string{"closed", "odd/.gitignore", "secret"} {
		if e := all.Errors[i]; !errors.Is(e, fs.ErrPermission) || !strings.Contains(e.Error(), filepath.Join(root, name)) {
			t.Errorf("%s: %v", name, e)
		}
	}
}

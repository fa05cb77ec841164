package ref

import (
	"os/exec"
	"strings"
	"testing"
)

func TestCheck(t *testing.T) {
	for _, name := range []string{"refs/heads/main", "refs/heads/a/b-c", "refs/tags/v1.0", "refs/notes/commits", "refs/heads/ünïcode", "refs/heads/@"} {
		if err := Check(name); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, name := range []string{
		"", "HEAD", "main", "refs/", "refs/heads", "refs/heads/", "refs//heads/a", "refs/heads/a/", "refs/heads/a..b", "refs/heads/.a", "refs/heads/a.lock",
		"refs/heads/a.lock/b", "refs/heads/a.", "refs/heads/a b", "refs/heads/a\x01", "refs/heads/a\x7f", "refs/heads/a\n", "refs/heads/a~1", "refs/heads/a^", "refs/heads/a:b",
		"refs/heads/a?", "refs/heads/*", "refs/heads/[", `refs/heads/a\b`, "refs/heads/@{u}", "refs/heads/-x", "refs/heads/a/--exec=x", "refs/heads/" + strings.Repeat("a", 250),
		"refs/../heads/x", "refs/heads/\x1b[31m", "--upload-pack=x",
	} {
		if Check(name) == nil {
			t.Errorf("%q was taken", name)
		}
	}
}

func TestPattern(t *testing.T) {
	for _, c := range []struct {
		pattern, name string
		want          bool
	}{
		{"main", "main", true}, {"main", "main2", false}, {"main", "x/main", false}, {"agent/*", "agent/a", true}, {"agent/*", "agent/a/b", false}, {"agent/**", "agent/a/b", true},
		{"agent/*", "agent/", true}, {"*", "a", true}, {"*", "a/b", false}, {"**", "a/b", true}, {"a*b*c", "axxbyyc", true}, {"a*b*c", "axxbyyd", false}, {"a*b*c", "abbc", true},
		{"**/fix-*", "a/b/fix-1", true}, {"**/fix-*", "a/fix-1/b", false}, {"a*", "b", false}, {"*aa", "aaa", true}, {"**x**y", "axbx/cy", true},
	} {
		p, err := ParsePattern(c.pattern)
		if err != nil || p.Match(c.name) != c.want || p.String() != c.pattern {
			t.Errorf("%q and %q: %v, %v", c.pattern, c.name, !c.want, err)
		}
	}
	for _, bad := range []string{"", "refs/heads/main", "a b", "-x", "a***", "a..b", "/a", "a/"} {
		if _, err := ParsePattern(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
	// Many wildcards do not take long.
	p, err := ParsePattern(strings.Repeat("*a", 60))
	if err != nil || p.Match(strings.Repeat("a", 200)+"b") {
		t.Errorf("%v", err)
	}
}

func FuzzCheck(f *testing.F) {
	f.Add("refs/heads/main")
	f.Add("refs/heads/a..b")
	f.Fuzz(func(t *testing.T, name string) {
		if Check(name) != nil || strings.Contains(name, "\x00") {
			return
		}
		if out, err := exec.CommandContext(t.Context(), "git", "check-ref-format", name).CombinedOutput(); err != nil {
			t.Fatalf("git does not take %q: %v %s", name, err, out)
		}
	})
}

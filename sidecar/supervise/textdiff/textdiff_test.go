package textdiff

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestUnified(t *testing.T) {
	got := Unified("a", "b", "1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n11\n12\n", "1\n2\nthree\n4\n5\n6\n7\n8\n9\n10\n11\n12")
	want := "--- a\n+++ b\n@@ -1,6 +1,6 @@\n 1\n 2\n-3\n+three\n 4\n 5\n 6\n@@ -9,4 +9,4 @@\n 9\n 10\n 11\n-12\n+12\n\\ No newline at end of file\n"
	if got != want {
		t.Errorf("%s", got)
	}
	if got := Unified("a", "b", "x", "x"); got != "" {
		t.Errorf("%q", got)
	}
	if got := Unified("a", "b", "", "x\n"); got != "--- a\n+++ b\n@@ -0,0 +1 @@\n+x\n" {
		t.Errorf("%q", got)
	}
	big := strings.Repeat("a\n", 5000)
	if got := Unified("a", "b", big, strings.Repeat("b\n", 5000)); strings.Count(got, "\n") != 3+10000 {
		t.Errorf("%d lines", strings.Count(got, "\n"))
	}
}

// FuzzUnified has patch apply what is written.
func FuzzUnified(f *testing.F) {
	patch, err := exec.LookPath("patch")
	if err != nil {
		f.Skip("patch is not installed")
	}
	f.Add("abcabca", "abxabca")
	f.Fuzz(func(t *testing.T, a, b string) {
		lines := func(s string) string {
			var out strings.Builder
			for _, r := range s {
				fmt.Fprintf(&out, "%c\n", 'a'+r%5)
			}
			return out.String()
		}
		before, after := lines(a), lines(b)
		if before == after || before == "" || after == "" {
			return
		}
		file := filepath.Join(t.TempDir(), "f")
		if err := os.WriteFile(file, []byte(before), 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), patch, "-s", "--fuzz=0", file)
		cmd.Stdin = strings.NewReader(Unified("f", "f", before, after))
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		if got, err := os.ReadFile(file); err != nil || string(got) != after {
			t.Fatalf("%q, %v; want %q", got, err, after)
		}
	})
}

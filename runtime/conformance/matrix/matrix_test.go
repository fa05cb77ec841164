package matrix

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bottle-run/bottle/runtime"
	"github.com/bottle-run/bottle/runtime/conformance"
)

func reports() []conformance.Report {
	return []conformance.Report{
		{
			Engine: "one", Version: "1", Features: map[runtime.Feature]string{runtime.FeatureHeredoc: "old builder"},
			Results: []conformance.Result{
				{Name: "a/first", Doc: "It | works.", Core: true, Status: conformance.Passed},
				{Name: "a/second", Doc: "It works too.", Core: true, Status: conformance.Failed},
				{Name: "b/third", Doc: "If at all.", Status: conformance.Absent},
			},
		},
		{
			Engine: "two", Version: "2", Rootless: true, Warnings: []string{"odd"},
			Results: []conformance.Result{{Name: "a/first", Core: true, Status: conformance.Passed}},
		},
	}
}

func TestTheTablesSayWhatTheReportsSay(t *testing.T) {
	full := Full(reports())
	for _, want := range []string{
		"|  | one 1 | two 2 (rootless) |\n", "| core tests passed | 1 of 2 | 1 of 1 |\n", "| extended tests passed | 0 of 1, 1 absent | 0 of 0 |\n",
		"| heredoc in Dockerfiles | no | yes |\n", `| **first**: It \| works. | passed | passed |` + "\n", "| **second**: It works too. | failed | not run |\n",
		"| **third**: If at all. | absent | not run |\n", "- no heredoc in Dockerfiles: old builder\n", "### Notes on two 2 (rootless)\n\n- odd\n",
	} {
		if !strings.Contains(full, want) {
			t.Errorf("want %q in\n%s", want, full)
		}
	}
}

func TestADocumentIsChangedBetweenItsMarksOnly(t *testing.T) {
	text := "before\n" + begin + "\nold\n" + end + "\nafter\n"
	for range 2 {
		var err error
		if text, err = Replace(text, "table\n"); err != nil {
			t.Fatal(err)
		}
		if want := "before\n" + begin + "\n\ntable\n\n" + end + "\nafter\n"; text != want {
			t.Fatalf("got %q", text)
		}
	}
	if _, err := Replace("no marks", "table"); err == nil {
		t.Error("a text without marks was accepted")
	}
}

func TestReportsAreReadInOrder(t *testing.T) {
	dir := t.TempDir()
	var files []string
	for i, r := range reports() {
		name := filepath.Join(dir, string(rune('z'-i))+".json")
		if err := r.WriteFile(name); err != nil {
			t.Fatal(err)
		}
		files = append([]string{name}, files...)
	}
	read, err := Read(files...)
	if err != nil || len(read) != 2 || read[0].Engine != "one" {
		t.Fatalf("got %+v, %v", read, err)
	}
	broken := filepath.Join(dir, "broken.json")
	if err := os.WriteFile(broken, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(broken); err == nil || !strings.Contains(err.Error(), "broken.json") {
		t.Errorf("want an error that names the file, got %v", err)
	}
}

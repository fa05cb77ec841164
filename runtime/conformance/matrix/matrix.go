// Package matrix renders reports of conformance runs side by side: a short table
// for a README and a full one of every test.
package matrix

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/bottle-run/bottle/runtime"
	"github.com/bottle-run/bottle/runtime/conformance"
)

// Read reads report files, as [conformance.Report.WriteJSON] writes them, and
// returns them by engine and version.
func Read(files ...string) ([]conformance.Report, error) {
	var reports []conformance.Report
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		r, err := conformance.ReadReport(f)
		_ = f.Close()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		reports = append(reports, r)
	}
	slices.SortStableFunc(reports, func(a, b conformance.Report) int {
		return strings.Compare(title(a), title(b))
	})
	return reports, nil
}

// title names a report's column.
func title(r conformance.Report) string {
	t := r.Engine + " " + r.Version
	if r.Rootless {
		t += " (rootless)"
	}
	return t
}

// row writes a row of a table.
func row(b *strings.Builder, cells ...string) {
	for _, c := range cells {
		b.WriteString("| " + strings.NewReplacer("|", `\|`, "\n", " ", "<", "&lt;").Replace(c) + " ")
	}
	b.WriteString("|\n")
}

func head(b *strings.Builder, corner string, reports []conformance.Report) {
	cells := []string{corner}
	for _, r := range reports {
		cells = append(cells, title(r))
	}
	row(b, cells...)
	b.WriteString(strings.Repeat("|---", len(cells)) + "|\n")
}

// Summary is the table for a README: what was run where, how many tests passed,
// and which features there are.
func Summary(reports []conformance.Report) string {
	var b strings.Builder
	head(&b, "", reports)
	line := func(name string, value func(conformance.Report) string) {
		cells := []string{name}
		for _, r := range reports {
			cells = append(cells, value(r))
		}
		row(&b, cells...)
	}
	line("core tests passed", func(r conformance.Report) string {
		passed, all := core(r)
		return fmt.Sprintf("%d of %d", passed, all)
	})
	line("extended tests passed", func(r conformance.Report) string {
		passed, all := core(r)
		absent := ""
		if n := r.Count(conformance.Absent); n > 0 {
			absent = fmt.Sprintf(", %d absent", n)
		}
		return fmt.Sprintf("%d of %d%s", r.Count(conformance.Passed)-passed, len(r.Results)-all, absent)
	})
	for _, f := range runtime.Features() {
		line(f.Doc(), func(r conformance.Report) string { return mark(r.Features[f] == "") })
	}
	line("network stack", func(r conformance.Report) string { return r.NetworkStack })
	line("builder", func(r conformance.Report) string { return r.Builder })
	line("OCI runtimes", func(r conformance.Report) string { return strings.Join(r.OCIRuntimes, ", ") })
	line("kernel, cgroups", func(r conformance.Report) string { return r.Kernel + ", v" + r.CgroupVersion })
	line("run on", func(r conformance.Report) string { return r.Started.Format(time.DateOnly) })
	return b.String()
}

func mark(yes bool) string {
	if yes {
		return "yes"
	}
	return "no"
}

// core counts the core tests.
func core(r conformance.Report) (passed, all int) {
	for _, result := range r.Results {
		if !result.Core {
			continue
		}
		all++
		if result.Status == conformance.Passed {
			passed++
		}
	}
	return passed, all
}

// Full is the table of every test, with the reasons for what is absent and the
// warnings of the runs.
func Full(reports []conformance.Report) string {
	var b strings.Builder
	type test struct{ name, doc string }
	var tests []test
	outcome := map[string]map[int]conformance.Result{}
	for i, r := range reports {
		for _, result := range r.Results {
			if outcome[result.Name] == nil {
				outcome[result.Name] = map[int]conformance.Result{}
				tests = append(tests, test{result.Name, result.Doc})
			}
			outcome[result.Name][i] = result
		}
	}
	b.WriteString(Summary(reports) + "\n")
	group := ""
	for _, t := range tests {
		if g, _, _ := strings.Cut(t.name, "/"); g != group {
			group = g
			fmt.Fprintf(&b, "\n### %s\n\n", g)
			head(&b, "promise", reports)
		}
		cells := []string{fmt.Sprintf("**%s**: %s", strings.TrimPrefix(t.name, group+"/"), t.doc)}
		for i := range reports {
			result, run := outcome[t.name][i]
			if !run {
				cells = append(cells, "not run")
				continue
			}
			cells = append(cells, string(result.Status))
		}
		row(&b, cells...)
	}
	for _, r := range reports {
		if lines := notes(r); len(lines) > 0 {
			fmt.Fprintf(&b, "\n### Notes on %s\n\n%s", title(r), strings.Join(lines, ""))
		}
	}
	return b.String()
}

// notes are the reasons for absent features, and warnings.
func notes(r conformance.Report) []string {
	var lines []string
	for _, f := range runtime.Features() {
		if reason := r.Features[f]; reason != "" {
			lines = append(lines, fmt.Sprintf("- no %s: %s\n", f.Doc(), reason))
		}
	}
	for _, w := range r.Warnings {
		lines = append(lines, "- "+w+"\n")
	}
	return lines
}

// The marks between which a file's table lies.
const (
	begin = "<!-- conformance: begin (generated; see runtime/conformance/matrix) -->"
	end   = "<!-- conformance: end -->"
)

// Replace puts a table between the marks of a text.
func Replace(text, table string) (string, error) {
	before, rest, found := strings.Cut(text, begin)
	_, after, closed := strings.Cut(rest, end)
	if !found || !closed {
		return "", fmt.Errorf("the text lacks the marks %q and %q", begin, end)
	}
	return before + begin + "\n\n" + table + "\n" + end + after, nil
}

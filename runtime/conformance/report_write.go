package conformance

import (
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/bottle-run/bottle/runtime"
)

// WriteFile writes the report in the form that the extension names: .json, .xml
// (JUnit) or .md.
func (r Report) WriteFile(file string) error {
	write := map[string]func(Report, io.Writer) error{
		".json": Report.WriteJSON, ".xml": Report.WriteJUnit, ".md": Report.WriteMarkdown,
	}[filepath.Ext(file)]
	if write == nil {
		return fmt.Errorf("report %s: the extension is none of .json, .xml, .md", file)
	}
	f, err := os.Create(file)
	if err != nil {
		return fmt.Errorf("report: %w", err)
	}
	err = write(r, f)
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return fmt.Errorf("report %s: %w", file, err)
	}
	return nil
}

// WriteJSON writes the report as ReadReport reads it.
func (r Report) WriteJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

// ReadReport reads what WriteJSON wrote.
func ReadReport(in io.Reader) (Report, error) {
	var r Report
	d := json.NewDecoder(in)
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		return r, fmt.Errorf("read report: %w", err)
	}
	return r, nil
}

type (
	junitSuites struct {
		XMLName xml.Name   `xml:"testsuites"`
		Suites  []junitRun `xml:"testsuite"`
	}
	junitRun struct {
		Name       string          `xml:"name,attr"`
		Tests      int             `xml:"tests,attr"`
		Failures   int             `xml:"failures,attr"`
		Skipped    int             `xml:"skipped,attr"`
		Time       string          `xml:"time,attr"`
		Timestamp  string          `xml:"timestamp,attr"`
		Properties []junitProperty `xml:"properties>property"`
		Cases      []junitCase     `xml:"testcase"`
	}
	junitProperty struct {
		Name  string `xml:"name,attr"`
		Value string `xml:"value,attr"`
	}
	junitCase struct {
		Name    string        `xml:"name,attr"`
		Class   string        `xml:"classname,attr"`
		Time    string        `xml:"time,attr"`
		Failure *junitMessage `xml:"failure,omitempty"`
		Skipped *junitMessage `xml:"skipped,omitempty"`
		Output  string        `xml:"system-out,omitempty"`
	}
	junitMessage struct {
		Message string `xml:"message,attr"`
		Text    string `xml:",chardata"`
	}
)

// WriteJUnit writes the report as JUnit's XML, which CI systems read.
func (r Report) WriteJUnit(w io.Writer) error {
	run := junitRun{
		Name: r.Engine + " " + r.Version, Tests: len(r.Results), Failures: r.Count(Failed), Skipped: r.Count(Exempt),
		Time: seconds(r.Duration), Timestamp: r.Started.Format("2006-01-02T15:04:05"),
	}
	for _, row := range r.facts() {
		run.Properties = append(run.Properties, junitProperty{row[0], row[1]})
	}
	for _, f := range runtime.Features() {
		run.Properties = append(run.Properties, junitProperty{"feature " + string(f), presence(r.Features[f])})
	}
	for _, result := range r.Results {
		c := junitCase{Name: result.Name, Class: r.Engine, Time: seconds(result.Duration)}
		switch result.Status {
		case Failed:
			head, _, _ := strings.Cut(result.Message, "\n")
			c.Failure = &junitMessage{Message: head, Text: result.Doc + "\n" + result.Message}
		case Exempt:
			c.Skipped = &junitMessage{Message: "the engine is simulated"}
		case Absent:
			c.Output = "absent, and refused as it must be: " + result.Reason
		case Passed:
		}
		run.Cases = append(run.Cases, c)
	}
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return err
	}
	e := xml.NewEncoder(w)
	e.Indent("", "  ")
	if err := e.Encode(junitSuites{Suites: []junitRun{run}}); err != nil {
		return err
	}
	_, err := io.WriteString(w, "\n")
	return err
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.3f", d.Seconds()) }

// facts are the rows that say what was tested.
func (r Report) facts() [][2]string {
	mode := "rootful"
	if r.Rootless {
		mode = "rootless"
	}
	return [][2]string{
		{"engine", r.Engine}, {"version", r.Version}, {"API", r.APIVersion}, {"mode", mode}, {"kernel", r.Kernel},
		{"cgroups", "v" + r.CgroupVersion}, {"platform", r.OS + "/" + r.Arch}, {"network stack", r.NetworkStack},
		{"storage driver", r.StorageDriver}, {"builder", r.Builder}, {"OCI runtimes", strings.Join(r.OCIRuntimes, ", ")},
	}
}

func presence(reason string) string {
	if reason == "" {
		return "yes"
	}
	return "no: " + reason
}

// WriteMarkdown writes the report for people.
func (r Report) WriteMarkdown(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "# Conformance of %s %s\n\n%s, on %s.\n\n", r.Engine, r.Version, r.Summary(), r.Started.Format(time.DateOnly))
	b.WriteString("| | |\n|---|---|\n")
	for _, row := range r.facts() {
		if row[1] != "" {
			fmt.Fprintf(&b, "| %s | %s |\n", row[0], cell(row[1]))
		}
	}
	b.WriteString("\n## Features\n\n| feature | |\n|---|---|\n")
	for _, f := range runtime.Features() {
		fmt.Fprintf(&b, "| %s | %s |\n", f.Doc(), cell(presence(r.Features[f])))
	}
	if len(r.Warnings) > 0 {
		b.WriteString("\n## Warnings\n\n")
		for _, warning := range r.Warnings {
			fmt.Fprintf(&b, "- %s\n", warning)
		}
	}
	b.WriteString("\n## Tests\n\n| test | promise | outcome | time |\n|---|---|---|--:|\n")
	for _, result := range r.Results {
		fmt.Fprintf(&b, "| %s | %s | %s | %s s |\n", result.Name, cell(result.Doc), result.Status, seconds(result.Duration))
	}
	for _, result := range r.Results {
		if result.Status == Failed {
			fmt.Fprintf(&b, "\n### %s\n\n```\n%s\n```\n", result.Name, strings.ReplaceAll(result.Message, "```", "'''"))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// cell makes text fit for a cell of a table.
func cell(s string) string {
	return strings.NewReplacer("|", `\|`, "\n", " ", "<", "&lt;").Replace(s)
}

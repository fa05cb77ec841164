// Command render writes the conformance matrix of committed reports into
// documents, between their marks:
//
//	go run ./runtime/conformance/matrix/render [-check] [-summary README.md] [-full docs/conformance.md] docs/conformance/*.json
//
// With -check it writes nothing and fails if a document is out of date.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"

	"github.com/bottle-run/bottle/runtime/conformance"
	"github.com/bottle-run/bottle/runtime/conformance/matrix"
)

func main() {
	summary := flag.String("summary", "", "the document that gets the short table")
	full := flag.String("full", "", "the document that gets the table of every test")
	check := flag.Bool("check", false, "write nothing; fail if a document is out of date")
	flag.Parse()
	if err := run(*summary, *full, *check, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "render:", err)
		os.Exit(1)
	}
}

func run(summary, full string, check bool, files []string) error {
	if len(files) == 0 {
		return errors.New("no reports were given")
	}
	reports, err := matrix.Read(files...)
	if err != nil {
		return err
	}
	for document, render := range map[string]func([]conformance.Report) string{summary: matrix.Summary, full: matrix.Full} {
		if document == "" {
			continue
		}
		old, err := os.ReadFile(document)
		if err != nil {
			return err
		}
		text, err := matrix.Replace(string(old), render(reports))
		switch {
		case err != nil:
			return fmt.Errorf("%s: %w", document, err)
		case text == string(old):
		case check:
			return fmt.Errorf("%s is out of date", document)
		default:
			if err := os.WriteFile(document, []byte(text), 0o644); err != nil {
				return err
			}
		}
	}
	return nil
}

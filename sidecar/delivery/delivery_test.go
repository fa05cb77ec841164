package delivery

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/bottle-run/bottle/sidecar/secrets"
)

func TestADocumentIsReadAsItWasWritten(t *testing.T) {
	doc := Document{
		Config: json.RawMessage(`{"agent":"coder"}`), CACert: "cert", CAKey: "key", FirewallCA: "other", CorporateRoots: "roots",
		Secrets: []secrets.Secret{{Name: "token", Value: "very-secret-value", Hosts: []string{"a.test"}}},
	}
	data, err := doc.Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := Decode(strings.NewReader(string(data)))
	if err != nil {
		t.Fatal(err)
	}
	again, err := got.Encode()
	if err != nil || string(again) != string(data) {
		t.Errorf("%s, %v; want %s", again, err, data)
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
		if text := fmt.Sprintf(verb, doc); strings.Contains(text, "key") || strings.Contains(text, "very-secret") {
			t.Errorf("%s prints %s", verb, text)
		}
	}
}

func TestWhatIsNoDocumentIsRefused(t *testing.T) {
	for name, c := range map[string]struct{ text, says string }{
		"nothing":         {"", "no JSON object"},
		"a list":          {"[]", "no JSON object"},
		"cut off":         {`{"ca_cert":"x"`, "no valid JSON"},
		"unknown":         {`{"very-secret":1}`, "no member of the name"},
		"other case":      {`{"Config":{}}`, "no member of the name"},
		"twice":           {`{"ca_cert":"x","ca_cert":"y"}`, "ca_cert is given twice"},
		"ill typed":       {`{"ca_key":["very-secret"]}`, "ca_key is not of the form"},
		"config a list":   {`{"config":["very-secret"]}`, "config is no JSON object"},
		"more":            {`{}{}`, "something follows"},
		"secrets object":  {`{"secrets":{"a":"very-secret"}}`, "secrets is no list"},
		"secret unknown":  {`{"secrets":[{"name":"a","value":"very-secret","x":1}]}`, "not of the form"},
		"secret twice":    {`{"secrets":[{"name":"a","value":"very-secret"},{"name":"a","value":"x"}]}`, "given twice"},
		"secret empty":    {`{"secrets":[{"name":"a","value":""}]}`, "is empty"},
		"secrets escape":  {`{"secrets":[]},"x":[{"name":"a","value":"b"}]}`, "something follows"},
		"too long":        {`{"ca_cert":"` + strings.Repeat("x", MaxDocument) + `"}`, "more than"},
		"a secret config": {`{"config":{"a":very-secret}}`, "config is not of the form"},
	} {
		_, err := Decode(strings.NewReader(c.text))
		if err == nil || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "very-secret") {
			t.Errorf("%s: %v; want %q", name, err, c.says)
		}
	}
	if _, err := (Document{CACert: strings.Repeat("x", MaxDocument)}).Encode(); err == nil {
		t.Error("a document that is too long was written")
	}
}

func content(t *testing.T, dir string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		info, err := e.Info()
		if err != nil || info.Mode() != 0o400 {
			t.Errorf("%s has mode %v, %v", e.Name(), info.Mode(), err)
		}
		files[e.Name()] = string(data)
	}
	return files
}

func TestAStoreChangesAsAWholeOrNotAtAll(t *testing.T) {
	dir := t.TempDir()
	s := NewStore(dir)
	keep, _, err := s.Put(Document{Config: json.RawMessage(`{"v":1}`), CACert: "cert", CAKey: "key", Secrets: []secrets.Secret{{Name: "a", Value: "first-value"}}})
	if err != nil {
		t.Fatal(err)
	}
	keep()
	first := content(t, dir)
	if first[Config] != `{"v":1}` || first[CAKey] != "key" || len(first) != 4 {
		t.Fatalf("%v", first)
	}
	if set, err := secrets.Load(In(dir, Secrets)); err != nil || set["a"].Value != "first-value" {
		t.Errorf("%v, %v", set.Names(), err)
	}
	// What is refused leaves no trace, not even of a file that was new.
	_, back, err := s.Put(Document{Config: json.RawMessage(`{"v":2}`), CAKey: "key", FirewallCA: "new", Secrets: []secrets.Secret{{Name: "a", Value: "other-value"}}})
	if err != nil {
		t.Fatal(err)
	}
	if now := content(t, dir); now[Config] != `{"v":2}` || now[FirewallCA] != "new" {
		t.Errorf("%v", now)
	}
	if err := back(); err != nil {
		t.Fatal(err)
	}
	if now := content(t, dir); fmt.Sprint(now) != fmt.Sprint(first) {
		t.Errorf("%v; want %v", now, first)
	}
	// What is not given stays.
	keep, _, err = s.Put(Document{Secrets: []secrets.Secret{{Name: "b", Value: "second-value"}}})
	if err != nil {
		t.Fatal(err)
	}
	keep()
	if now := content(t, dir); now[Config] != `{"v":1}` || !strings.Contains(now[Secrets], "second-value") || !strings.Contains(now[Secrets], "first-value") || len(now) != 4 {
		t.Errorf("%v", now)
	}
	long := secrets.Value(strings.Repeat("x", 1<<20))
	if _, _, err := s.Put(Document{Secrets: []secrets.Secret{{Name: "c", Value: long}}}); err == nil || len(content(t, dir)) != 4 {
		t.Errorf("too many secrets: %v", err)
	}
	if _, _, err := s.Put(Document{CACert: "another"}); !errors.Is(err, ErrFixed) {
		t.Errorf("another authority: %v", err)
	}
}

func TestAStoreThatCannotBeWrittenStays(t *testing.T) {
	dir := t.TempDir()
	keep, _, err := NewStore(dir).Put(Document{Config: json.RawMessage(`{"v":1}`)})
	if err != nil {
		t.Fatal(err)
	}
	keep()
	// A directory in the place of the old copy: the rename that would make it fails.
	if err := os.MkdirAll(In(dir, "."+Config+".old/x"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, _, err := NewStore(dir).Put(Document{Config: json.RawMessage(`{"v":2}`), FirewallCA: "f"}); err == nil {
		t.Error("the store was written")
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if data, err := os.ReadFile(In(dir, Config)); string(data) != `{"v":1}` || err != nil || !slices.Equal(names, []string{"." + Config + ".old", Config}) {
		t.Errorf("%s, %v: %q", data, err, names)
	}
	if _, _, err := NewStore(filepath.Join(dir, "nowhere")).Put(Document{CACert: "c"}); err == nil {
		t.Error("a directory that is not there was written")
	}
}

package secrets

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
)

const value Value = "tok_9f8e7d6c5b4a/+=x"

func TestASecretDoesNotPrint(t *testing.T) {
	s := Secret{Name: "github", Value: value}
	for _, text := range []string{fmt.Sprint(s), fmt.Sprintf("%+v", s), fmt.Sprintf("%#v", s), fmt.Sprintf("%s", s.Value), fmt.Sprintf("%v", Set{"github": s})} { //nolint:staticcheck // what fmt does
		if strings.Contains(text, string(value)) {
			t.Errorf("printed: %s", text)
		}
	}
}

func TestPutAndLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secrets")
	if _, err := Load(path); !IsMissing(err) {
		t.Errorf("before: %v", err)
	}
	in := `{"secrets":[{"name":"b","value":"two\n"},{"name":"a","value":"one","hosts":["x.com"]}]}`
	if _, err := Put(path, strings.NewReader(in)); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o400 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	set, err := Load(path)
	if err != nil || len(set) != 2 || set["b"].Value != "two" || set["a"].Hosts[0] != "x.com" {
		t.Errorf("%v, %v", set, err)
	}
	if _, err := Put(path, strings.NewReader(`{"secrets":[{"name":"c","value":"three"}]}`)); err != nil {
		t.Errorf("replacing: %v", err)
	}
	if _, err := Put(path, strings.NewReader(`{"secrets":[{"name":"d","value":""}]}`)); err == nil {
		t.Error("an empty value was taken")
	}
	if set, err := Load(path); err != nil || set["c"].Value != "three" {
		t.Errorf("after a refused one: %v, %v", set, err)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(path), ".*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if err := os.Chmod(path, 0o440); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(path); err == nil || !strings.Contains(err.Error(), "0400") {
		t.Errorf("a file that others may read: %v", err)
	}
}

func TestErrorsDoNotQuoteSecrets(t *testing.T) {
	for _, in := range []string{
		`{"secrets":[{"name":"a","value":"hunter2hunter2"`, `{"secrets":[{"name":"a","value":"hunter2hunter2","hunter2hunter2":1}]}`,
		`{"secrets":[{"name":"a","value":"hunter2\u0000hunter2hunter2"}]}`, `{"secrets":"hunter2hunter2"}`, `hunter2hunter2`, `{"secrets":[]} hunter2hunter2`,
		`{"secrets":[{"name":"a","value":"hunter2hunter2"},{"name":"a","value":"x"}]}`, `{"secrets":[{"value":"hunter2hunter2"}]}`,
		strings.Repeat(" ", maxFile) + "{}",
	} {
		_, err := Decode(strings.NewReader(in))
		if err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%.60q: %v", in, err)
		}
	}
}

// texts are the value within something longer, in each encoding.
func texts() map[string]string {
	texts := map[string]string{
		"plain": "a" + string(value) + "b", "query": url.QueryEscape("x" + string(value)), "path": url.PathEscape(string(value)),
		"hex": hex.EncodeToString([]byte("x" + string(value) + "y")), "HEX": strings.ToUpper(hex.EncodeToString([]byte(value))),
	}
	for i := range 3 {
		for j := range 3 {
			in := []byte(strings.Repeat("x", i) + string(value) + strings.Repeat("y", j))
			texts[fmt.Sprintf("std %d %d", i, j)] = base64.StdEncoding.EncodeToString(in)
			texts[fmt.Sprintf("url %d %d", i, j)] = base64.RawURLEncoding.EncodeToString(in)
		}
	}
	return texts
}

func TestMasker(t *testing.T) {
	m := NewMasker(value, "short")
	for name, text := range texts() {
		got := m.String(text)
		if len(got) != len(text) || !strings.Contains(got, "********") {
			t.Errorf("%s: %s became %s", name, text, got)
		}
		for _, f := range Forms(value) {
			if strings.Contains(got, string(f)) {
				t.Errorf("%s: %s is left in %s", name, f, got)
			}
		}
		for _, src := range []io.Reader{strings.NewReader(text), iotest.DataErrReader(strings.NewReader(text))} {
			if b, err := io.ReadAll(m.Reader(src)); err != nil || string(b) != got {
				t.Errorf("%s, streamed: %s, %v; want %s", name, b, err, got)
			}
		}
		b, err := io.ReadAll(m.Reader(iotest.OneByteReader(strings.NewReader(text))))
		if err != nil || len(b) != len(text) || bytes.Contains(b, []byte(value)) || !bytes.Contains(b, []byte("********")) {
			t.Errorf("%s, byte by byte: %s, %v", name, b, err)
		}
	}
	if m.String("short and safe") != "short and safe" {
		t.Error("a short value was hidden")
	}
	var none *Masker
	if none.String("x") != "x" || NewMasker("short") != nil {
		t.Error("a masker without values hides something")
	}
}

func TestMaskerDoesNotHoldEventsBack(t *testing.T) {
	pr, pw := io.Pipe()
	defer func() { _ = pw.Close() }()
	r := NewMasker(value).Reader(pr)
	buf := make([]byte, 100)
	for _, event := range []string{"data: 1\n\n", "data: t\n\n", "tok", string("=" + value)} {
		go func() { _, _ = pw.Write([]byte(event)) }()
		n, err := io.ReadAtLeast(r, buf, len(event))
		if err != nil || string(buf[:n]) != strings.ReplaceAll(event, string(value), strings.Repeat("*", len(value))) {
			t.Errorf("%q: %q, %v", event, buf[:n], err)
		}
	}
}

func FuzzMasker(f *testing.F) {
	f.Add([]byte("xtok_9f8e7d6c5b4a/+=xy"), 3)
	f.Fuzz(func(t *testing.T, in []byte, at int) {
		m := NewMasker(value)
		whole := m.String(string(in))
		if strings.Contains(whole, string(value)) || len(whole) != len(in) {
			t.Fatalf("%q became %q", in, whole)
		}
		if at < 0 || at > len(in) {
			return
		}
		got, err := io.ReadAll(m.Reader(io.MultiReader(bytes.NewReader(in[:at]), bytes.NewReader(in[at:]))))
		if err != nil || len(got) != len(in) || bytes.Contains(got, []byte(value)) {
			t.Fatalf("%q became %q, %v", in, got, err)
		}
	})
}

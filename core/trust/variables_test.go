package trust

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
)

func settings(image []string, user map[string]string) Settings {
	return Settings{
		Dir: "/trust", RootsDir: "/run/trust", Proxy: "egress-proxy:8888", NoProxy: []string{"localhost", "127.0.0.1", "::1", "supervise"}, Image: image,
		User: func(name string) (string, bool) { v, ok := user[name]; return v, ok },
	}
}

func TestVariablesAreAsDocumented(t *testing.T) {
	env, kept := settings(nil, nil).Variables()
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(env)) {
		fmt.Fprintf(&b, "%s=%s\n", name, env[name])
	}
	const golden = "testdata/variables.golden"
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(golden, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if b.String() != string(want) || len(kept) > 0 {
		t.Errorf("got\n%s\nwant\n%s\n(kept %q; UPDATE_GOLDEN=1 writes it anew)", b.String(), want, kept)
	}
}

func TestWhatTheUserHasSetStays(t *testing.T) {
	user := map[string]string{
		"SSL_CERT_FILE": "/mine.pem", "NODE_EXTRA_CA_CERTS": "/trust/extra.pem", "NODE_USE_ENV_PROXY": "0",
		"NODE_OPTIONS": " --max-old-space-size=512 ", "JAVA_TOOL_OPTIONS": "-Dhttp.proxyHost=other",
	}
	image := []string{"JAVA_TOOL_OPTIONS=-Xmx1g", "CURL_CA_BUNDLE=/image.pem", "NODE_OPTIONS=--image"}
	env, kept := settings(image, user).Variables()
	if !slices.Equal(kept, []string{"NODE_USE_ENV_PROXY", "SSL_CERT_FILE"}) {
		t.Errorf("kept %q", kept)
	}
	if _, set := env["SSL_CERT_FILE"]; set || env["CURL_CA_BUNDLE"] != "/run/trust/roots.pem" {
		t.Errorf("SSL_CERT_FILE %q, CURL_CA_BUNDLE %q", env["SSL_CERT_FILE"], env["CURL_CA_BUNDLE"])
	}
	if got := env["NODE_OPTIONS"]; got != "--require=/trust/node-proxy.cjs --max-old-space-size=512" {
		t.Errorf("NODE_OPTIONS %q", got)
	}
	// Java takes the last of two.
	if got := env["JAVA_TOOL_OPTIONS"]; !strings.HasSuffix(got, "|supervise -Dhttp.proxyHost=other") || strings.Contains(got, "-Xmx1g") {
		t.Errorf("JAVA_TOOL_OPTIONS %q", got)
	}
	env, _ = settings(image, nil).Variables()
	if got := env["JAVA_TOOL_OPTIONS"]; !strings.HasSuffix(got, " -Xmx1g") {
		t.Errorf("the image's JAVA_TOOL_OPTIONS are gone: %q", got)
	}
}

func TestFilesThatAnImageNames(t *testing.T) {
	got := ImageFiles([]string{
		"SSL_CERT_FILE=/old.pem", "SSL_CERT_FILE=/nix/../nix/ca.crt", "PIP_CERT=/nix/ca.crt", "CURL_CA_BUNDLE=relative", "DENO_CERT=/deno.pem", "HOME=/root",
	})
	if want := []string{"/nix/ca.crt", "/deno.pem"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

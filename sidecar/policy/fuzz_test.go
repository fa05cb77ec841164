package policy

import (
	"net/netip"
	"strings"
	"testing"
)

func FuzzCanonicalHost(f *testing.F) {
	for _, s := range []string{"example.com", "EXAMPLE.com.", "0x7f.1", "[::ffff:1.2.3.4]", "xn--bcher-kva.example", "a..b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		host, err := CanonicalHost(s)
		if err != nil {
			return
		}
		again, err := CanonicalHost(host)
		if err != nil || again != host {
			t.Fatalf("%q is canonical for %q, but becomes %q, %v", host, s, again, err)
		}
		if strings.ContainsAny(host, "@/%[]# \x00") || host != strings.ToLower(host) || strings.HasSuffix(host, ".") {
			t.Fatalf("%q became %q", s, host)
		}
		if addr, err := netip.ParseAddr(host); err == nil && addr != addr.Unmap() {
			t.Fatalf("%q became the mapped address %q", s, host)
		}
	})
}

func FuzzCanonicalTarget(f *testing.F) {
	for _, s := range []string{"/", "/a/..;/b", "/%2e%2e/", "/a%252fb", "/a//b?c", "/%c3%a9", "/%c0%ae%c0%ae/%e0%80%af"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		target, err := CanonicalTarget(s)
		if err != nil {
			return
		}
		again, err := CanonicalTarget(target.String())
		if err != nil || again.String() != target.String() {
			t.Fatalf("%q is canonical for %q, but becomes %q, %v", target, s, again, err)
		}
		if len(target.readings) == 0 {
			t.Fatalf("%q has no reading", s)
		}
		for _, r := range target.readings {
			for seg := range strings.SplitSeq(r, "/") {
				if name, _, _ := strings.Cut(seg, ";"); name == ".." || name == "." {
					t.Fatalf("%q may be read as %q", s, r)
				}
			}
		}
		for i := range len(target.Path) {
			if c := target.Path[i]; c <= ' ' || c >= 0x7f || c == '\\' || c == '#' {
				t.Fatalf("%q became %q", s, target.Path)
			}
		}
	})
}

func FuzzMatch(f *testing.F) {
	f.Add("/a/**", "/a/*/c", "/a/b/c")
	f.Add("/x*", "/*y", "/xy")
	f.Fuzz(func(t *testing.T, a, b, path string) {
		if len(a) > 200 || len(b) > 200 || len(path) > 2000 {
			return
		}
		g, err := ParseGlob(a)
		if err != nil {
			return
		}
		h, err := ParseGlob(b)
		if err != nil {
			return
		}
		target, err := CanonicalTarget(path)
		if err != nil {
			return
		}
		for _, r := range target.readings {
			if g.Match(r) && h.Match(r) && !g.overlaps(h) {
				t.Fatalf("%s and %s both match %q, but do not overlap", a, b, r)
			}
		}
	})
}

package trust

import (
	"archive/tar"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"io"
	"maps"
	"math/big"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// root makes an authority whose subject is given in DER.
func root(t *testing.T, subject []byte) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), RawSubject: subject, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func named(t *testing.T, name string) *x509.Certificate {
	t.Helper()
	subject, err := asn1.Marshal(pkix.Name{Organization: []string{"bottle"}, CommonName: name}.ToRDNSequence())
	if err != nil {
		t.Fatal(err)
	}
	return root(t, subject)
}

func TestSubjectHashIsThatOfOpenSSL(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Fatal("openssl is needed")
	}
	oid := asn1.ObjectIdentifier{2, 5, 4, 3}
	raw := func(tag int, bytes ...byte) asn1.RawValue { return asn1.RawValue{Tag: tag, Bytes: bytes} }
	text := func(tag int, s string) asn1.RawValue { return raw(tag, []byte(s)...) }
	for name, sets := range map[string][]attributeSET{
		"a bottle's":           {{{asn1.ObjectIdentifier{2, 5, 4, 10}, text(asn1.TagUTF8String, "bottle")}}, {{oid, text(asn1.TagUTF8String, "bottle blue-otter agent")}}},
		"white space and case": {{{oid, text(asn1.TagUTF8String, "  Some   CORP \t Root ")}}},
		"letters beyond ASCII": {{{oid, text(asn1.TagUTF8String, "ÄÖÜ Ωmega ŁÓDŹ")}}},
		"IA5":                  {{{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 1}, text(asn1.TagIA5String, "CA@Example.COM")}}},
		"Latin-1":              {{{oid, raw(asn1.TagT61String, 'K', 0xf6, 'l', 'n')}}},
		"BMP":                  {{{oid, raw(asn1.TagBMPString, 0, 'A', 0x03, 0xa9, 0, ' ', 0, ' ', 0, 'b')}}},
		"several in one":       {{{asn1.ObjectIdentifier{2, 5, 4, 10}, text(asn1.TagUTF8String, "Z")}, {oid, text(asn1.TagUTF8String, "A Long One")}}},
		"nothing":              {},
		"nothing but blanks":   {{{oid, text(asn1.TagPrintableString, "   ")}}},
	} {
		t.Run(name, func(t *testing.T) {
			subject, err := asn1.Marshal(sets)
			if err != nil {
				t.Fatal(err)
			}
			cert := root(t, subject)
			cmd := exec.Command(openssl, "x509", "-noout", "-subject_hash")
			cmd.Stdin = bytes.NewReader(PEM([]*x509.Certificate{cert}))
			out, err := cmd.Output()
			if err != nil {
				t.Fatalf("openssl: %v", err)
			}
			got, err := SubjectHash(cert)
			if want := strings.TrimSpace(string(out)); err != nil || got != want {
				t.Errorf("got %s, %v; openssl says %s", got, err, want)
			}
		})
	}
}

// image is a file system: a content, "-> TARGET" for a link, "" for a directory.
type image map[string]string

// archive writes a path of the image as an engine copies it out; nil if it is not there.
func (i image) archive(name string) io.Reader {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	found := false
	for _, p := range slices.Sorted(maps.Keys(i)) {
		if p != name && !strings.HasPrefix(p, name+"/") {
			continue
		}
		found = true
		h := &tar.Header{Name: strings.TrimPrefix(strings.TrimPrefix(p, path.Dir(name)), "/"), Mode: 0o640, Uid: 7, Gid: 8}
		content := i[p]
		switch {
		case content == "":
			h.Typeflag, h.Name = tar.TypeDir, h.Name+"/"
		case strings.HasPrefix(content, "-> "):
			h.Typeflag, h.Linkname = tar.TypeSymlink, content[3:]
		default:
			h.Typeflag, h.Size = tar.TypeReg, int64(len(content))
		}
		_ = w.WriteHeader(h)
		if h.Typeflag == tar.TypeReg {
			_, _ = io.WriteString(w, content)
		}
	}
	_ = w.Close()
	if !found {
		return nil
	}
	return &b
}

// read does what a launch does.
func (i image) read(t *testing.T, extra ...string) *Store {
	t.Helper()
	s := &Store{}
	s.AddExtra(extra)
	for names, round := Areas(), 0; len(names) > 0 && round < 8; names, round = s.Missing(), round+1 {
		for _, name := range names {
			a := i.archive(name)
			if a == nil {
				s.Absent(name)
				continue
			}
			if err := s.Add(name, a); err != nil {
				t.Fatal(err)
			}
		}
	}
	return s
}

func TestStoresOfSystemsAreRefreshedWhereTheyAre(t *testing.T) {
	ours := named(t, "bottle x agent")
	hash, err := SubjectHash(ours)
	if err != nil {
		t.Fatal(err)
	}
	certs := map[string]string{}
	for _, n := range []string{"A", "B"} {
		certs[n] = string(PEM([]*x509.Certificate{named(t, n)}))
	}
	roots := certs["A"] + certs["B"]
	for name, test := range map[string]struct {
		image image
		extra []string
		// want are the paths, and whether there is something of the image's before ours.
		want map[string]bool
	}{
		"Debian": {
			image: image{
				"/etc/ssl": "", "/etc/ssl/certs": "", "/etc/ssl/certs/ca-certificates.crt": roots, "/etc/ssl/certs/" + hash + ".0": "-> Other.pem",
				"/etc/ssl/certs/Other.pem": "-> /usr/share/ca-certificates/Other.crt", "/etc/ssl/openssl.cnf": "x", "/etc/ssl/private": "", "/etc/ssl/private/key": "k",
				"/usr/local/share/ca-certificates": "",
			},
			want: map[string]bool{"/etc/ssl/certs/ca-certificates.crt": true, "/etc/ssl/certs/" + hash + ".1": false, "/usr/local/share/ca-certificates/bottle-x.crt": false},
		},
		"Alpine": {
			image: image{
				"/etc/ssl": "", "/etc/ssl/cert.pem": "-> certs/ca-certificates.crt", "/etc/ssl/certs": "", "/etc/ssl/certs/ca-certificates.crt": roots,
				"/usr/local/share/ca-certificates": "",
			},
			want: map[string]bool{"/etc/ssl/certs/ca-certificates.crt": true, "/etc/ssl/certs/" + hash + ".0": false, "/usr/local/share/ca-certificates/bottle-x.crt": false},
		},
		"Fedora": {
			image: image{
				"/etc/ssl": "", "/etc/ssl/certs": "-> ../pki/tls/certs", "/etc/pki": "", "/etc/pki/tls": "", "/etc/pki/tls/certs": "",
				"/etc/pki/tls/cert.pem":            "-> /etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
				"/etc/pki/tls/certs/ca-bundle.crt": "-> /etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
				"/etc/pki/ca-trust":                "", "/etc/pki/ca-trust/extracted": "", "/etc/pki/ca-trust/extracted/pem": "",
				"/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem": roots, "/etc/pki/ca-trust/extracted/pem/email-ca-bundle.pem": certs["A"],
				"/etc/pki/ca-trust/source": "", "/etc/pki/ca-trust/source/anchors": "",
			},
			want: map[string]bool{
				"/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem": true, "/etc/pki/tls/certs/" + hash + ".0": false,
				"/etc/pki/ca-trust/source/anchors/bottle-x.pem": false, "/usr/local/share/ca-certificates/bottle-x.crt": false,
			},
		},
		"SUSE": {
			image: image{
				"/etc/ssl": "", "/etc/ssl/certs": "-> /var/lib/ca-certificates/pem", "/etc/ssl/ca-bundle.pem": "-> /var/lib/ca-certificates/ca-bundle.pem",
				"/var/lib/ca-certificates": "", "/var/lib/ca-certificates/pem": "", "/var/lib/ca-certificates/ca-bundle.pem": roots,
				"/etc/pki": "", "/etc/pki/trust": "", "/etc/pki/trust/anchors": "",
			},
			want: map[string]bool{
				"/var/lib/ca-certificates/ca-bundle.pem": true, "/var/lib/ca-certificates/pem/" + hash + ".0": false,
				"/etc/pki/trust/anchors/bottle-x.pem": false, "/usr/local/share/ca-certificates/bottle-x.crt": false,
			},
		},
		"Nix, with a bundle that a variable names": {
			image: image{
				"/etc/ssl": "", "/etc/ssl/certs": "", "/etc/ssl/certs/ca-bundle.crt": "-> /nix/store/1-cacert/ca.crt", "/nix/store/1-cacert/ca.crt": "-> ../2/ca.crt",
				"/nix/store/2/ca.crt": roots, "/opt/roots": certs["A"],
			},
			extra: []string{"/opt/roots", "/opt/nothing"},
			want: map[string]bool{
				"/nix/store/2/ca.crt": true, "/opt/roots": true, "/etc/ssl/certs/" + hash + ".0": false, "/usr/local/share/ca-certificates/bottle-x.crt": false,
			},
		},
		"nothing in it": {
			image: image{},
			want: map[string]bool{
				"/etc/ssl/certs/ca-certificates.crt": false, "/etc/ssl/certs/" + hash + ".0": false, "/usr/local/share/ca-certificates/bottle-x.crt": false,
			},
		},
		"a link to nowhere, and one to itself": {
			image: image{"/etc/ssl": "", "/etc/ssl/certs": "", "/etc/ssl/certs/ca-certificates.crt": "-> ../../../../../gone/x", "/etc/ssl/cert.pem": "-> cert.pem", "/etc/pki": "-> pki"},
			want:  map[string]bool{"/gone/x": false, "/etc/ssl/certs/" + hash + ".0": false, "/usr/local/share/ca-certificates/bottle-x.crt": false},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := test.image.read(t, test.extra...)
			writes, err := s.Refresh("bottle-x", []*x509.Certificate{ours})
			if err != nil {
				t.Fatal(err)
			}
			got := map[string]bool{}
			for _, w := range writes {
				before := test.image[w.Path]
				if _, twice := got[w.Path]; twice || string(w.Content) != before+string(PEM([]*x509.Certificate{ours})) {
					t.Errorf("%s: twice %v, content %q", w.Path, twice, w.Content)
				}
				if before != "" && (w.UID != 7 || w.GID != 8 || w.Mode != 0o640) {
					t.Errorf("%s: the owner or mode has changed: %+v", w.Path, w)
				}
				got[w.Path] = before != ""
			}
			if !maps.Equal(got, test.want) {
				t.Errorf("got %v\nwant %v", got, test.want)
			}
			if whole := test.want["/etc/ssl/certs/ca-certificates.crt"]; whole && string(s.Roots()) != roots+"\n" {
				t.Errorf("the image's roots are %q", s.Roots())
			}
		})
	}
}

func TestOpenSSLTrustsWhatIsFoundByHash(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Fatal("openssl is needed")
	}
	ours := named(t, "bottle x agent")
	writes, err := image{"/etc/ssl": "", "/etc/ssl/certs": ""}.read(t).Refresh("bottle-x", []*x509.Certificate{ours, named(t, "corp")})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, w := range writes {
		if path.Ext(w.Path) == ".0" {
			if err := os.WriteFile(filepath.Join(dir, path.Base(w.Path)), w.Content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	cert := filepath.Join(t.TempDir(), "cert")
	if err := os.WriteFile(cert, PEM([]*x509.Certificate{ours}), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		path string
		ok   bool
	}{{dir, true}, {t.TempDir(), false}} {
		out, err := exec.Command(openssl, "verify", "-no-CAfile", "-no-CAstore", "-CApath", test.path, cert).CombinedOutput()
		if (err == nil) != test.ok {
			t.Errorf("%s: %v, %s", test.path, err, out)
		}
	}
}

func TestWhatIsNoStoreIsRefused(t *testing.T) {
	write := func(entries ...*tar.Header) io.Reader {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for _, h := range entries {
			if err := w.WriteHeader(h); err != nil {
				t.Fatal(err)
			}
			_, _ = w.Write(make([]byte, h.Size))
		}
		_ = w.Close()
		return &b
	}
	var many, large []*tar.Header
	for i := range maxEntries + 1 {
		many = append(many, &tar.Header{Name: "ssl/" + big.NewInt(int64(i)).String(), Typeflag: tar.TypeSymlink, Linkname: "x"})
	}
	for i := range maxKept/maxFile + 1 {
		large = append(large, &tar.Header{Name: "ssl/" + big.NewInt(int64(i)).String() + ".pem", Typeflag: tar.TypeReg, Size: maxFile})
	}
	for name, test := range map[string]struct {
		archive io.Reader
		text    string
	}{
		"too many":      {write(many...), "files"},
		"too large":     {write(large...), "MiB"},
		"outside of it": {write(&tar.Header{Name: "ssl/../passwd", Typeflag: tar.TypeReg}), "not in there"},
		"another":       {write(&tar.Header{Name: "sslx/cert.pem", Typeflag: tar.TypeReg}), "not in there"},
		"no archive":    {strings.NewReader(strings.Repeat("x", 1024)), "reading"},
		"cut off":       {io.LimitReader(write(large[0]), 4096), "reading"},
	} {
		if err := new(Store).Add("/etc/ssl", test.archive); err == nil || !strings.Contains(err.Error(), test.text) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A file that is too large for a bundle is not kept, and stays as it is.
	s := &Store{}
	huge := &tar.Header{Name: "ssl/cert.pem", Typeflag: tar.TypeReg, Size: maxFile + 1}
	if err := s.Add("/etc/ssl", write(huge, &tar.Header{Name: "ssl/fifo", Typeflag: tar.TypeFifo})); err != nil || len(s.files()) != 0 {
		t.Errorf("%v, %d bundles", err, len(s.files()))
	}
}

package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha1" // npm's older checksum
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"math/big"
	"net/http"
	"net/http/cgi"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bottle-run/bottle/core/ca"
	"github.com/bottle-run/bottle/runtime/conformance/world"
)

// toolchainHosts are hosts in the outside world, behind one address: each answers over HTTP,
// and over HTTPS with a certificate of an authority that only the operator knows. They have
// a page, a git repository, and a package each for apt and npm.
type toolchainHosts struct {
	allowed, routed, denied string
	dns, network            string
	roots                   []byte // PEM
	repo                    string // the directory of the git repository
	git                     string // the path of the program
}

// helloFrom is what all that the hosts have says.
func helloFrom(scheme, host string) string { return fmt.Sprintf("hello over %s from %s", scheme, host) }

func newToolchainHosts(t *testing.T) *toolchainHosts {
	t.Helper()
	w, err := world.Open(t.Context(), "")
	check(t, err)
	t.Cleanup(func() { check(t, w.Close()) })
	layout := w.Layout()
	h := &toolchainHosts{
		allowed: "allowed." + world.Zone, routed: "routed." + world.Zone, denied: "denied." + world.Zone,
		dns: layout.DNS.String(), network: layout.A.String(), git: lookPath(t, "git"),
	}
	h.makeRepo(t)
	for _, port := range []uint16{80, 443} {
		l, err := w.Bind(t.Context(), netip.AddrPortFrom(layout.Answer, port))
		check(t, err)
		server := &http.Server{Handler: h, ReadHeaderTimeout: time.Minute}
		if port == 443 {
			server.TLSConfig = &tls.Config{Certificates: []tls.Certificate{h.certificate(t)}, MinVersion: tls.VersionTLS12}
		}
		var served sync.WaitGroup
		served.Go(func() {
			if port == 443 {
				_ = server.ServeTLS(l, "", "") // it ends with the test
			} else {
				_ = server.Serve(l)
			}
		})
		t.Cleanup(func() {
			_ = server.Close()
			served.Wait()
		})
	}
	return h
}

// certificate makes the corporate authority and the certificate of the hosts.
func (h *toolchainHosts) certificate(t *testing.T) tls.Certificate {
	t.Helper()
	authority, err := ca.New(ca.Spec{Name: "authority of the toolchain test", Lifetime: time.Hour})
	check(t, err)
	h.roots = authority.CertPEM
	signer, err := tls.X509KeyPair(authority.CertPEM, authority.KeyPEM)
	check(t, err)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err)
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), DNSNames: []string{"*." + world.Zone}, NotBefore: authority.Cert.NotBefore, NotAfter: authority.Cert.NotAfter,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, authority.Cert, &key.PublicKey, signer.PrivateKey)
	check(t, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// makeRepo makes a repository for each scheme and host.
func (h *toolchainHosts) makeRepo(t *testing.T) {
	t.Helper()
	h.repo = t.TempDir()
	for _, scheme := range []string{"http", "https"} {
		for _, host := range []string{h.allowed, h.routed, h.denied} {
			work, bare := t.TempDir(), filepath.Join(h.repo, scheme, host, "repo.git")
			check(t, os.WriteFile(filepath.Join(work, "hello"), []byte(helloFrom(scheme, host)+"\n"), 0o644))
			for _, args := range [][]string{
				{"init", "-q", "-b", "main", work},
				{"-C", work, "add", "hello"},
				{"-C", work, "-c", "user.name=test", "-c", "user.email=test@example.com", "commit", "-q", "-m", "hello"},
				{"clone", "-q", "--bare", work, bare},
			} {
				cmd := exec.CommandContext(t.Context(), h.git, args...)
				cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null")
				if out, err := cmd.CombinedOutput(); err != nil {
					t.Fatalf("git %q: %v: %s", args, err, out)
				}
			}
		}
	}
}

// ServeHTTP is all hosts.
func (h *toolchainHosts) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	hello := helloFrom(scheme, r.Host)
	deb, tarball := debPackage(hello), npmPackage(hello)
	const npmTarball = "/npm/bottle-hello/-/bottle-hello-1.0.0.tgz"
	switch {
	case r.URL.Path == "/hello":
		_, _ = fmt.Fprintln(w, hello)
	case strings.HasPrefix(r.URL.Path, "/repo.git/"):
		(&cgi.Handler{
			Path: h.git, Args: []string{"http-backend"}, Dir: h.repo,
			Env: []string{
				"GIT_PROJECT_ROOT=" + filepath.Join(h.repo, scheme, r.Host), "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_GLOBAL=/dev/null",
				"GIT_CONFIG_SYSTEM=/dev/null", "PATH=" + os.Getenv("PATH"),
			},
		}).ServeHTTP(w, r)
	case r.URL.Path == "/debian/./Packages", r.URL.Path == "/debian/Packages":
		_, _ = fmt.Fprintf(w, "Package: bottle-hello\nVersion: 1.0\nArchitecture: all\nMaintainer: test <test@example.com>\nDescription: hello\n"+
			"Filename: ./bottle-hello_1.0_all.deb\nSize: %d\nSHA256: %x\n", len(deb), sha256.Sum256(deb))
	case strings.HasSuffix(r.URL.Path, "/bottle-hello_1.0_all.deb"):
		_, _ = w.Write(deb)
	case r.URL.Path == "/npm/bottle-hello":
		sum := sha1.Sum(tarball)
		_ = json.NewEncoder(w).Encode(map[string]any{
			"name": "bottle-hello", "dist-tags": map[string]string{"latest": "1.0.0"},
			"versions": map[string]any{"1.0.0": map[string]any{
				"name": "bottle-hello", "version": "1.0.0",
				"dist": map[string]string{"tarball": scheme + "://" + r.Host + npmTarball, "shasum": hex.EncodeToString(sum[:])},
			}},
		})
	case r.URL.Path == npmTarball:
		_, _ = w.Write(tarball)
	default:
		http.NotFound(w, r)
	}
}

// archived is a tar archive of files, compressed.
func archived(files map[string]string) []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	// Each request makes it anew: it must be the same each time.
	for _, name := range slices.Sorted(maps.Keys(files)) {
		content := files[name]
		// Writing to memory does not fail.
		_ = w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(content))})
		_, _ = w.Write([]byte(content))
	}
	_ = w.Close()
	_ = z.Close()
	return b.Bytes()
}

func npmPackage(hello string) []byte {
	return archived(map[string]string{"package/package.json": `{"name":"bottle-hello","version":"1.0.0"}`, "package/hello": hello + "\n"})
}

// debPackage is an ar archive of three members (deb(5)).
func debPackage(hello string) []byte {
	b := bytes.NewBufferString("!<arch>\n")
	for _, member := range []struct {
		name    string
		content []byte
	}{
		{"debian-binary", []byte("2.0\n")},
		{"control.tar.gz", archived(map[string]string{"./control": "Package: bottle-hello\nVersion: 1.0\nArchitecture: all\nMaintainer: test <test@example.com>\nDescription: hello\n"})},
		{"data.tar.gz", archived(map[string]string{"./hello": hello + "\n"})},
	} {
		_, _ = fmt.Fprintf(b, "%-16s%-12d%-6d%-6d%-8s%-10d`\n", member.name, 0, 0, 0, "100644", len(member.content))
		b.Write(member.content)
		if len(member.content)%2 == 1 {
			b.WriteByte('\n')
		}
	}
	return b.Bytes()
}

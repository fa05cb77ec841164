package ca

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bottle-run/bottle/internal/needs"
)

func leaf(t *testing.T, a *Authority, template *x509.Certificate) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return sign(t, a, template, &key.PublicKey)
}

func sign(t *testing.T, a *Authority, template *x509.Certificate, public *ecdsa.PublicKey) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode(a.KeyPEM)
	if block == nil || block.Type != "EC PRIVATE KEY" {
		t.Fatalf("the key is in a block of another type: %v", block)
	}
	signer, err := x509.ParseECPrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber = big.NewInt(7)
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Minute), time.Now().Add(time.Hour)
	der, err := x509.CreateCertificate(rand.Reader, template, a.Cert, public, signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func verify(a *Authority, cert *x509.Certificate, name string, extra ...*x509.Certificate) error {
	roots, middle := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(a.Cert)
	for _, c := range extra {
		middle.AddCert(c)
	}
	_, err := cert.Verify(x509.VerifyOptions{DNSName: name, Roots: roots, Intermediates: middle})
	return err
}

func TestAuthorityIsNarrow(t *testing.T) {
	a, err := New(Spec{Name: "test"})
	if err != nil {
		t.Fatal(err)
	}
	if key, ok := a.Cert.PublicKey.(*ecdsa.PublicKey); !ok || key.Curve != elliptic.P256() {
		t.Errorf("the key is %T", a.Cert.PublicKey)
	}
	if life := a.Cert.NotAfter.Sub(a.Cert.NotBefore); life > DefaultLifetime+2*backdate {
		t.Errorf("valid for %v", life)
	}
	if err := verify(a, leaf(t, a, &x509.Certificate{DNSNames: []string{"a.example"}}), "a.example"); err != nil {
		t.Errorf("a server's certificate: %v", err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	middle := &Authority{KeyPEM: pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER})}
	middle.Cert = sign(t, a, &x509.Certificate{Subject: pkix.Name{CommonName: "middle"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}, &key.PublicKey)
	if err := verify(a, leaf(t, middle, &x509.Certificate{DNSNames: []string{"a.example"}}), "a.example", middle.Cert); err == nil {
		t.Error("it may sign another authority")
	}
	client := leaf(t, a, &x509.Certificate{DNSNames: []string{"a.example"}})
	roots := x509.NewCertPool()
	roots.AddCert(a.Cert)
	if _, err := client.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err == nil {
		t.Error("it may sign a client's certificate")
	}
}

func TestNameConstraints(t *testing.T) {
	a, err := New(Spec{Name: "test", Permitted: []string{"example.com"}, Lifetime: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	for name, ok := range map[string]bool{"example.com": true, "a.b.example.com": true, "example.org": false, "badexample.com": false} {
		if err := verify(a, leaf(t, a, &x509.Certificate{DNSNames: []string{name}}), name); (err == nil) != ok {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := verify(a, leaf(t, a, &x509.Certificate{IPAddresses: []net.IP{net.IPv4(192, 0, 2, 1)}}), "192.0.2.1"); err == nil {
		t.Error("a constrained authority may sign for an address")
	}
}

func TestPairsShareNothing(t *testing.T) {
	p, err := NewPair("blue-otter", 0)
	if err != nil {
		t.Fatal(err)
	}
	cert := leaf(t, p.Firewall, &x509.Certificate{DNSNames: []string{"a.example"}})
	if verify(p.Firewall, cert, "a.example") != nil || verify(p.Agent, cert, "a.example") == nil {
		t.Error("what the firewall signs has to be valid for those who trust the firewall alone")
	}
	if !strings.Contains(p.Agent.Cert.Subject.CommonName, "blue-otter") {
		t.Errorf("the name is %s", p.Agent.Cert.Subject)
	}
	if _, err := New(Spec{}); err == nil {
		t.Error("an authority without a name was made")
	}
}

func TestBundle(t *testing.T) {
	now := time.Now()
	own, _ := New(Spec{Name: "own"})
	corp, _ := New(Spec{Name: "corp"})
	image, _ := New(Spec{Name: "image"})
	imagePEM := append([]byte("# roots\n"), image.CertPEM...)
	imagePEM = append(imagePEM, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("junk")})...)
	imagePEM = append(imagePEM, corp.CertPEM...)
	b, err := NewBundle(own.Cert, imagePEM, []File{{"corp.pem", corp.CertPEM}}, now)
	if err != nil {
		t.Fatal(err)
	}
	if len(b.Certs) != 3 || b.Skipped != 1 || !b.Certs[0].Equal(own.Cert) {
		t.Errorf("%d certificates, %d skipped", len(b.Certs), b.Skipped)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(b.PEM()) {
		t.Error("the bundle cannot be read back")
	}
	again, err := Roots(File{"bundle", b.PEM()}, now)
	if err != nil || len(again) != 3 {
		t.Errorf("read back: %d, %v", len(again), err)
	}
}

func TestCorporateRootsThatAreRefused(t *testing.T) {
	now := time.Now()
	a, _ := New(Spec{Name: "corp"})
	old, _ := New(Spec{Name: "old", Lifetime: time.Hour, Now: now.Add(-48 * time.Hour)})
	server := leaf(t, a, &x509.Certificate{DNSNames: []string{"a.example"}, BasicConstraintsValid: true})
	for name, c := range map[string]struct {
		data string
		line int
		text string
	}{
		"no PEM":          {"hello\n", 1, "no PEM certificate"},
		"empty":           {"", 1, "no PEM certificate"},
		"a key":           {"# x\n" + string(a.CertPEM) + string(a.KeyPEM), 2 + strings.Count(string(a.CertPEM), "\n"), "private key"},
		"a server's":      {string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Raw})), 1, "no authority"},
		"expired":         {string(a.CertPEM) + string(old.CertPEM), 1 + strings.Count(string(a.CertPEM), "\n"), "expired"},
		"cut off":         {"\n\n" + string(a.CertPEM[:100]), 3, "no end"},
		"junk in a block": {"-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n", 1, "malformed"},
		"junk, then good": {"-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n" + string(a.CertPEM), 1, "malformed"},
		"wrong DER":       {string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("junk")})), 1, "parsing"},
		"OpenSSL's form":  {string(pem.EncodeToMemory(&pem.Block{Type: "TRUSTED CERTIFICATE", Bytes: a.Cert.Raw})), 1, "openssl x509"},
		"something else":  {string(pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: []byte("junk")})), 1, "X509 CRL"},
		"two begins":      {"-----BEGIN CERTIFICATE-----\n" + string(a.CertPEM), 1, "malformed"},
	} {
		_, err := NewBundle(a.Cert, nil, []File{{"corp.pem", []byte(c.data)}}, now)
		var pe *PEMError
		if !errors.As(err, &pe) || pe.Line != c.line || pe.File != "corp.pem" || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v; want line %d and %q", name, err, c.line, c.text)
		}
	}
}

func TestJavaReadsTheStore(t *testing.T) {
	keytool := needs.Program(t, "keytool", "default-jre-headless")
	a, _ := New(Spec{Name: "java"})
	b, err := NewBundle(a.Cert, nil, nil, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "store")
	if err := os.WriteFile(path, b.JavaStore(time.Now()), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(keytool, "-list", "-keystore", path, "-storepass", JavaStorePassword).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "trustedCertEntry") {
		t.Errorf("keytool: %v\n%s", err, out)
	}
}

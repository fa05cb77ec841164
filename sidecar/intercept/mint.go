package intercept

import (
	"container/list"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"
)

const (
	maxLeaves    = 1024           // certificates kept
	leafLifetime = 72 * time.Hour // of a certificate
	leafRenew    = 12 * time.Hour // before it ends, a new one is made
	leafBackdate = time.Hour      // for clocks inside that are behind
	maxNameBytes = 64             // of a common name
)

// Minter signs certificates for hosts, and keeps them. All have one key, which is made
// with the minter and never written anywhere. It is safe for concurrent use.
type Minter struct {
	ca     *x509.Certificate
	signer *ecdsa.PrivateKey
	leaf   *ecdsa.PrivateKey

	mu    sync.Mutex
	byKey map[string]*list.Element
	order *list.List // most recently used first
}

type minted struct {
	host  string
	until time.Time // a new one is made from here on
	once  sync.Once
	cert  *tls.Certificate
	err   error
}

// LoadMinter reads an authority from its PEM files.
func LoadMinter(certFile, keyFile string) (*Minter, error) {
	certPEM, err := os.ReadFile(certFile)
	if err != nil {
		return nil, fmt.Errorf("reading the authority: %w", err)
	}
	keyPEM, err := os.ReadFile(keyFile)
	if err != nil {
		return nil, fmt.Errorf("reading the authority's key: %w", err)
	}
	m, err := NewMinter(certPEM, keyPEM)
	if err != nil {
		return nil, fmt.Errorf("reading the authority in %s and %s: %w", certFile, keyFile, err)
	}
	return m, nil
}

// NewMinter makes a minter of an authority in PEM.
func NewMinter(certPEM, keyPEM []byte) (*Minter, error) {
	cert, _ := pem.Decode(certPEM)
	key, _ := pem.Decode(keyPEM)
	if cert == nil || cert.Type != "CERTIFICATE" || key == nil || key.Type != "EC PRIVATE KEY" {
		return nil, errors.New("there is no CERTIFICATE and EC PRIVATE KEY in PEM")
	}
	ca, err := x509.ParseCertificate(cert.Bytes)
	if err != nil {
		return nil, fmt.Errorf("parsing the certificate: %w", err)
	}
	signer, err := x509.ParseECPrivateKey(key.Bytes)
	if err != nil {
		return nil, errors.New("the key cannot be parsed")
	}
	if public, ok := ca.PublicKey.(*ecdsa.PublicKey); !ok || !public.Equal(&signer.PublicKey) || !ca.IsCA {
		return nil, errors.New("the certificate is not an authority's with this key")
	}
	leaf, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making a key: %w", err)
	}
	return &Minter{ca: ca, signer: signer, leaf: leaf, byKey: map[string]*list.Element{}, order: list.New()}, nil
}

// Get returns a certificate for a host in canonical form. Of several callers at a time
// one makes it.
func (m *Minter) Get(host string) (*tls.Certificate, error) {
	e := m.entry(host)
	e.once.Do(func() { e.cert, e.err = m.mint(host) })
	return e.cert, e.err
}

// Warm makes certificates ahead of their first use, as many as are kept at most.
func (m *Minter) Warm(hosts ...string) {
	for _, host := range hosts[:min(len(hosts), maxLeaves)] {
		// An error will come again, and be told, when the certificate is needed.
		_, _ = m.Get(host)
	}
}

func (m *Minter) entry(host string) *minted {
	m.mu.Lock()
	defer m.mu.Unlock()
	if el, ok := m.byKey[host]; ok {
		e := el.Value.(*minted)
		if e.fresh() {
			m.order.MoveToFront(el)
			return e
		}
		m.order.Remove(el)
	}
	e := &minted{host: host, until: time.Now().Add(leafLifetime - leafRenew)}
	m.byKey[host] = m.order.PushFront(e)
	if m.order.Len() > maxLeaves {
		last := m.order.Back()
		m.order.Remove(last)
		delete(m.byKey, last.Value.(*minted).host)
	}
	return e
}

// fresh reports whether it is not yet time for a new certificate.
func (e *minted) fresh() bool { return time.Now().Before(e.until) }

func (m *Minter) mint(host string) (*tls.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 126))
	if err != nil {
		return nil, fmt.Errorf("making a serial number: %w", err)
	}
	now := time.Now()
	until := now.Add(leafLifetime)
	if until.After(m.ca.NotAfter) {
		until = m.ca.NotAfter
	}
	template := &x509.Certificate{
		SerialNumber:          serial.Add(serial, big.NewInt(1)),
		NotBefore:             now.Add(-leafBackdate),
		NotAfter:              until,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}
	if len(host) <= maxNameBytes {
		template.Subject = pkix.Name{CommonName: host}
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		template.IPAddresses = []net.IP{addr.AsSlice()}
	} else {
		template.DNSNames = []string{host}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, m.ca, &m.leaf.PublicKey, m.signer)
	if err != nil {
		return nil, fmt.Errorf("signing a certificate for %s: %w", host, err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("reading back the certificate for %s: %w", host, err)
	}
	return &tls.Certificate{Certificate: [][]byte{der, m.ca.Raw}, PrivateKey: m.leaf, Leaf: leaf}, nil
}

// Package ca makes the certificate authorities of a bottle, and the bundle of roots
// that the tools inside it trust.
//
// A bottle has two authorities, made for it and gone with it: one signs what the
// firewall presents to the egress proxy, one signs what the egress proxy, or the
// firewall where there is no egress proxy, presents to the agent.
//
// # Promises
//
//   - Keys are ECDSA P-256, in an EC PRIVATE KEY block, which every consumer takes.
//   - An authority is narrowed as far as clients accept it: it may sign certificates
//     of servers only, no further authority, for days and not years, and, where the
//     names are known, for those names alone.
//   - What an operator gives as corporate roots is read strictly: what is no
//     certificate of an authority is an error with file and line.
//
// Nothing here is written to a file: the caller puts keys where they belong.
package ca

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"time"
)

// DefaultLifetime is how long an authority is valid if nothing else is asked for: a
// bottle may run for days, and a key that got out must not be of use for long.
const DefaultLifetime = 14 * 24 * time.Hour

// backdate allows for clocks inside that are behind.
const backdate = time.Hour

// Spec says what an authority is to be.
type Spec struct {
	// Name is its common name: "bottle blue-otter egress".
	Name string
	// Lifetime defaults to [DefaultLifetime].
	Lifetime time.Duration
	// Permitted are the DNS names, with all that is below them, that the authority may
	// sign for, and no address. Empty means no constraint: then denials can be shown
	// for hosts that are not known ahead. Constraints are marked critical; old clients
	// that do not know them fail closed.
	Permitted []string
	// Now is the time to count from. Default: the present.
	Now time.Time
}

// Authority is a certificate authority with its key.
type Authority struct {
	Cert *x509.Certificate
	// CertPEM is the certificate, KeyPEM the key. The key is secret.
	CertPEM, KeyPEM []byte
}

// New makes an authority.
func New(spec Spec) (*Authority, error) {
	if spec.Name == "" {
		return nil, errors.New("making a certificate authority: it has no name")
	}
	if spec.Lifetime < 0 {
		return nil, fmt.Errorf("making the certificate authority %s: its lifetime is negative", spec.Name)
	}
	if spec.Lifetime == 0 {
		spec.Lifetime = DefaultLifetime
	}
	if spec.Now.IsZero() {
		spec.Now = time.Now()
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making the key of %s: %w", spec.Name, err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 126))
	if err != nil {
		return nil, fmt.Errorf("making the serial number of %s: %w", spec.Name, err)
	}
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return nil, fmt.Errorf("encoding the key of %s: %w", spec.Name, err)
	}
	id := sha256.Sum256(public)
	template := &x509.Certificate{
		SerialNumber:          serial.Add(serial, big.NewInt(1)),
		Subject:               pkix.Name{Organization: []string{"bottle"}, CommonName: spec.Name},
		NotBefore:             spec.Now.Add(-backdate),
		NotAfter:              spec.Now.Add(spec.Lifetime),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
		SubjectKeyId:          id[:20],
	}
	if len(spec.Permitted) > 0 {
		template.PermittedDNSDomainsCritical = true
		template.PermittedDNSDomains = spec.Permitted
		// Without these a certificate with only addresses would be unconstrained.
		template.ExcludedIPRanges = []*net.IPNet{
			{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)},
			{IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)},
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, fmt.Errorf("signing the certificate authority %s: %w", spec.Name, err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("reading back the certificate authority %s: %w", spec.Name, err)
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encoding the key of %s: %w", spec.Name, err)
	}
	return &Authority{
		Cert:    cert,
		CertPEM: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		KeyPEM:  pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER}),
	}, nil
}

// Pair is the two authorities of a bottle.
type Pair struct {
	// Firewall signs what the firewall presents to the egress proxy; Agent signs what
	// the agent is presented with, by whichever sidecar it dials.
	Firewall, Agent *Authority
}

// NewPair makes both authorities of the bottle with a slug.
func NewPair(slug string, lifetime time.Duration) (*Pair, error) {
	firewall, err := New(Spec{Name: "bottle " + slug + " firewall", Lifetime: lifetime})
	if err != nil {
		return nil, err
	}
	agent, err := New(Spec{Name: "bottle " + slug + " agent", Lifetime: lifetime})
	if err != nil {
		return nil, err
	}
	return &Pair{Firewall: firewall, Agent: agent}, nil
}

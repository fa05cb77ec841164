package gitgate

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"github.com/bottle-run/bottle/sidecar/config"
	"github.com/bottle-run/bottle/sidecar/secrets"
)

// sshUpstream runs git's services on an ssh server.
type sshUpstream struct {
	url    *config.GitURL
	dial   dialer
	config *ssh.ClientConfig
}

// sshKeyText returns the file of a key from its secret.
func sshKeyText(v secrets.Value) ([]byte, error) {
	text, err := base64.StdEncoding.DecodeString(string(v))
	if err != nil {
		return nil, errors.New("the secret is no key in standard base64: deliver the base64 of the key's file")
	}
	return text, nil
}

// newSSHUpstream makes one for the secret of a key, which may be "" as long as nothing is
// opened. Files is a directory for files of the moment.
func newSSHUpstream(u *config.GitURL, dial dialer, knownHosts []string, key secrets.Value, files string) (*sshUpstream, error) {
	keys, err := readKnownHosts(knownHosts, files)
	if err != nil {
		return nil, err
	}
	user := u.User
	if user == "" {
		user = "git"
	}
	c := &ssh.ClientConfig{User: user, HostKeyCallback: keys, Timeout: connectTimeout}
	c.HostKeyAlgorithms = hostKeyAlgorithms(keys, net.JoinHostPort(u.Host, strconv.Itoa(int(u.Port))))
	if c.HostKeyAlgorithms == nil {
		return nil, fmt.Errorf("no line of known_hosts names %s", knownhosts.Normalize(net.JoinHostPort(u.Host, strconv.Itoa(int(u.Port)))))
	}
	if key != "" {
		text, err := sshKeyText(key)
		if err != nil {
			return nil, err
		}
		signer, err := ssh.ParsePrivateKey(text)
		var locked *ssh.PassphraseMissingError
		switch {
		case errors.As(err, &locked):
			return nil, errors.New("the ssh key has a passphrase, which nobody could enter: give one without")
		case err != nil:
			return nil, errors.New("the ssh key cannot be read: it is no private key of OpenSSH or in PEM")
		}
		c.Auth = []ssh.AuthMethod{ssh.PublicKeys(signer)}
	}
	return &sshUpstream{url: u, dial: dial, config: c}, nil
}

// readKnownHosts reads lines as files have them. The library reads only files.
func readKnownHosts(hosts []string, dir string) (ssh.HostKeyCallback, error) {
	f, err := os.CreateTemp(dir, ".known-hosts-*")
	if err != nil {
		return nil, fmt.Errorf("reading known_hosts: %w", err)
	}
	defer f.Close()
	defer func() { _ = os.Remove(f.Name()) }()
	if _, err := io.WriteString(f, strings.Join(hosts, "\n")+"\n"); err != nil {
		return nil, fmt.Errorf("reading known_hosts: %w", err)
	}
	keys, err := knownhosts.New(f.Name())
	if err != nil {
		return nil, fmt.Errorf("reading known_hosts: %s", strings.ReplaceAll(err.Error(), f.Name(), "line"))
	}
	return keys, nil
}

// nobodysKey is the key of no server.
type nobodysKey struct{}

func (nobodysKey) Type() string                        { return "none" }
func (nobodysKey) Marshal() []byte                     { return nil }
func (nobodysKey) Verify([]byte, *ssh.Signature) error { return errors.New("no key") }

// hostKeyAlgorithms returns the kinds of keys that are known of a host, so that the server
// presents one of these. Nil: none is known.
func hostKeyAlgorithms(keys ssh.HostKeyCallback, address string) []string {
	var ke *knownhosts.KeyError
	if err := keys(address, &net.TCPAddr{IP: net.IPv4zero}, nobodysKey{}); !errors.As(err, &ke) {
		// A revoked key, or a certificate authority: let the server choose.
		return []string{ssh.KeyAlgoED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256, ssh.CertAlgoED25519v01, ssh.CertAlgoECDSA256v01, ssh.CertAlgoRSASHA512v01}
	}
	var kinds []string
	add := func(more ...string) {
		for _, kind := range more {
			if !slices.Contains(kinds, kind) {
				kinds = append(kinds, kind)
			}
		}
	}
	for _, k := range ke.Want {
		if kind := k.Key.Type(); kind == ssh.KeyAlgoRSA {
			add(ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256)
		} else {
			add(kind)
		}
		// The line may be that of an authority, which signs what servers present.
		add(ssh.CertAlgoED25519v01, ssh.CertAlgoECDSA256v01, ssh.CertAlgoECDSA384v01, ssh.CertAlgoECDSA521v01, ssh.CertAlgoRSASHA512v01, ssh.CertAlgoRSASHA256v01)
	}
	return kinds
}

func (u *sshUpstream) open(ctx context.Context, service string, version int) (session, error) {
	address := net.JoinHostPort(u.url.Host, strconv.Itoa(int(u.url.Port)))
	dctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	conn, err := u.dial(dctx, "tcp", address)
	if err != nil {
		return nil, &upstreamError{err}
	}
	// The handshake knows no context.
	stop := context.AfterFunc(dctx, func() { _ = conn.Close() })
	sc, channels, requests, err := ssh.NewClientConn(conn, address, u.config)
	if !stop() && err == nil {
		err = dctx.Err()
	}
	if err != nil {
		_ = conn.Close()
		var ke *knownhosts.KeyError
		if errors.As(err, &ke) {
			return nil, upstreamFailed("the ssh server %s does not present a key that known_hosts has: either the operator has to correct known_hosts, or somebody is in between", u.url.Host)
		}
		return nil, upstreamFailed("opening ssh to %s: %w", u.url.Host, err)
	}
	client := ssh.NewClient(sc, channels, requests)
	p, err := u.run(ctx, client, service, version)
	if err != nil {
		_ = client.Close()
		return nil, err
	}
	return p, nil
}

func (u *sshUpstream) run(ctx context.Context, client *ssh.Client, service string, version int) (session, error) {
	s, err := client.NewSession()
	if err != nil {
		return nil, upstreamFailed("opening ssh to %s: %w", u.url.Host, err)
	}
	if version != 0 {
		// A server that does not take it speaks version 0.
		_ = s.Setenv("GIT_PROTOCOL", fmt.Sprintf("version=%d", version))
	}
	stdin, err := s.StdinPipe()
	if err != nil {
		return nil, &upstreamError{err}
	}
	stdout, err := s.StdoutPipe()
	if err != nil {
		return nil, &upstreamError{err}
	}
	side := &lines{}
	s.Stderr = side
	path := u.url.Path
	if strings.HasPrefix(path, "/~") {
		path = path[1:]
	}
	if err := s.Start(service + " " + quote(path)); err != nil {
		return nil, upstreamFailed("running %s on %s: %w", service, u.url.Host, err)
	}
	ended := make(chan struct{})
	var once sync.Once
	wait := func() { once.Do(func() { _ = s.Wait(); close(ended) }) } // what is wrong, it has said
	p := newPipe(ctx, stdout, stdin, func() { _ = client.Close() })
	p.side = side
	p.settle = func() {
		go wait()
		select {
		case <-ended:
		case <-time.After(2 * time.Second):
		}
	}
	return p, nil
}

// quote makes a word of a POSIX shell.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

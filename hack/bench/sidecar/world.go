package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/bottle-run/bottle/core/ca"
	"github.com/bottle-run/bottle/sidecar/delivery"
	"github.com/bottle-run/bottle/sidecar/secrets"
)

// process is one of the processes that are measured.
type process struct {
	name string
	cmd  *exec.Cmd
	dir  string
}

// bench is the processes.
type bench struct {
	dir, program string
	// Addresses. routed is the origin's by another name, about which there is a route.
	origin, routed, mitm, egress       string
	originRoots, mitmRoots, agentRoots *x509.CertPool
	started                            []*process
	sidecars, mitmdump                 []*process
}

func newBench(program, mitmdump string) (b *bench, err error) {
	b = &bench{program: program}
	defer func() {
		if err != nil {
			b.close()
		}
	}()
	if b.dir, err = os.MkdirTemp("", "bench-sidecar-*"); err != nil {
		return nil, err
	}
	if err = b.startOrigin(); err != nil {
		return nil, fmt.Errorf("the origin: %w", err)
	}
	if err = b.startMitm(mitmdump); err != nil {
		return nil, fmt.Errorf("mitmdump: %w", err)
	}
	return b, b.startSidecars()
}

func (b *bench) close() {
	for _, p := range b.started {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
	}
	_ = os.RemoveAll(b.dir)
}

// start starts a process, and returns the lines of one of its outputs. The other, and
// what is left of this one, is read and forgotten.
func (b *bench) start(p *process, stderr bool) (*bufio.Reader, error) {
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	errOut, err := p.cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	b.started = append(b.started, p)
	if stderr {
		out, errOut = errOut, out
	}
	go func() { _, _ = io.Copy(io.Discard, errOut) }()
	return bufio.NewReader(out), nil
}

func (b *bench) startOrigin() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "origin"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv4(127, 0, 0, 2)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return err
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	err = errors.Join(os.WriteFile(b.file("origin.pem"), cert, 0o600), os.WriteFile(b.file("origin.key"), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER}), 0o600))
	if err != nil {
		return err
	}
	if b.originRoots, err = pool(b.file("origin.pem")); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	lines, err := b.start(&process{name: "origin", cmd: exec.Command(self, "origin", b.file("origin.pem"), b.file("origin.key"))}, false)
	if err != nil {
		return err
	}
	line, err := lines.ReadString('\n')
	if err != nil {
		return err
	}
	b.origin = strings.TrimSpace(line)
	b.routed = b.origin
	return nil
}

func (b *bench) file(name string) string { return filepath.Join(b.dir, name) }

func pool(path string) (*x509.CertPool, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	p := x509.NewCertPool()
	if !p.AppendCertsFromPEM(data) {
		return nil, fmt.Errorf("%s holds no certificate", path)
	}
	return p, nil
}

// startMitm starts mitmdump as it is, its log and its check of the origin's name aside.
func (b *bench) startMitm(program string) error {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	b.mitm = ln.Addr().String()
	_, port, _ := net.SplitHostPort(b.mitm)
	ln.Close()
	p := &process{name: "mitmdump", cmd: exec.Command(program, "--quiet", "--listen-host", "127.0.0.1", "--listen-port", port,
		"--set", "confdir="+b.file("mitm"), "--set", "ssl_verify_upstream_trusted_ca="+b.file("origin.pem"))}
	said, err := b.start(p, true)
	if err != nil {
		return err
	}
	b.mitmdump = append(b.mitmdump, p)
	go func() { _, _ = io.Copy(os.Stderr, said) }()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	// It says nothing when it is ready, so it is asked.
	for tick := time.NewTicker(50 * time.Millisecond); ; {
		c, err := net.Dial("tcp", b.mitm)
		if err == nil {
			c.Close()
			tick.Stop()
			break
		}
		select {
		case <-ctx.Done():
			return err
		case <-tick.C:
		}
	}
	b.mitmRoots, err = pool(filepath.Join(b.file("mitm"), "mitmproxy-ca-cert.pem"))
	return err
}

// startSidecars starts both hops, configured as core does but for what a test needs: the
// origin is on loopback, and its certificate in no store.
func (b *bench) startSidecars() error {
	if b.program == "" {
		return errors.New("--program is missing")
	}
	pair, err := ca.NewPair("bench", 0)
	if err != nil {
		return err
	}
	b.agentRoots = x509.NewCertPool()
	b.agentRoots.AppendCertsFromPEM(pair.Agent.CertPEM)
	_, port, err := net.SplitHostPort(b.origin)
	if err != nil {
		return err
	}
	b.routed = net.JoinHostPort("127.0.0.2", port)
	n, err := strconv.Atoi(port)
	if err != nil {
		return err
	}
	origin, err := os.ReadFile(b.file("origin.pem"))
	if err != nil {
		return err
	}
	type m = map[string]any
	allow := []m{{"host": "127.0.0.1", "ports": []int{n}}, {"host": "127.0.0.2", "ports": []int{n}}}
	hop, token := secrets.Secret{Name: "hop", Value: secrets.Value(rand.Text() + rand.Text())}, secrets.Secret{Name: "token", Value: secrets.Value(rand.Text())}
	toOrigin := token
	toOrigin.Hosts = []string{"127.0.0.2"}
	other := secrets.Secret{Name: "other", Value: secrets.Value(rand.Text())}
	address, err := b.startSidecar("firewall", pair.Firewall, m{
		"allow": allow, "client_secret": "hop", "guard": m{"allow_cidrs": []string{"127.0.0.0/8"}}, "upstream": m{"ca_files": []string{b.file("firewall/" + delivery.CorporateRoots)}},
	}, delivery.Document{CorporateRoots: string(origin), Secrets: []secrets.Secret{hop, toOrigin, other}})
	if err != nil {
		return fmt.Errorf("the firewall: %w", err)
	}
	b.egress, err = b.startSidecar("egress-proxy", pair.Agent, m{
		"allow": allow, "firewall": address, "firewall_ca": b.file("egress-proxy/" + delivery.FirewallCA), "firewall_secret": "hop",
		"routes": []m{{"id": "route", "host": "127.0.0.2", "ports": []int{n}, "methods": []string{"GET"}, "paths": []string{"/small/**", "/bytes/*"}, "credential": m{"secret": "token", "kind": "header"}}},
	}, delivery.Document{FirewallCA: string(pair.Firewall.CertPEM), Secrets: []secrets.Secret{hop, token}})
	if err != nil {
		return fmt.Errorf("the egress proxy: %w", err)
	}
	return nil
}

func (b *bench) startSidecar(role string, authority *ca.Authority, config map[string]any, doc delivery.Document) (string, error) {
	dir := b.file(role)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", err
	}
	config["agent"], config["listen"] = "bench", "127.0.0.1:0"
	config["ca_cert"], config["ca_key"] = filepath.Join(dir, delivery.CACert), filepath.Join(dir, delivery.CAKey)
	var err error
	if doc.Config, err = json.Marshal(config); err != nil {
		return "", err
	}
	doc.CACert, doc.CAKey = string(authority.CertPEM), string(authority.KeyPEM)
	data, err := doc.Encode()
	if err != nil {
		return "", err
	}
	p := &process{name: role, dir: dir, cmd: exec.Command(b.program, role, "--run", dir)}
	lines, err := b.start(p, true)
	if err != nil {
		return "", err
	}
	b.sidecars = append(b.sidecars, p)
	put := exec.Command(b.program, "put", "--wait", "--run", dir)
	put.Stdin = bytes.NewReader(data)
	if out, err := put.CombinedOutput(); err != nil {
		return "", fmt.Errorf("put: %w: %s", err, out)
	}
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			return "", fmt.Errorf("it does not listen: %w", err)
		}
		var said struct{ Msg, Address string }
		if err := json.Unmarshal([]byte(line), &said); err != nil {
			return "", err
		}
		if said.Msg == "listening" {
			go func() { _, _ = io.Copy(log.Writer(), lines) }()
			return said.Address, nil
		}
	}
}

// memory is what both sidecars take.
type memory struct{ rss, pss int } // KiB

func (m memory) String() string {
	return fmt.Sprintf("%.1f MiB resident (%.1f MiB with what they share counted once)", float64(m.rss)/1024, float64(m.pss)/1024)
}

func (b *bench) memory() (m memory, err error) {
	for _, p := range b.sidecars {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", p.cmd.Process.Pid))
		if err != nil {
			return m, err
		}
		for line := range strings.Lines(string(data)) {
			f := strings.Fields(line)
			if len(f) != 3 {
				continue
			}
			n, _ := strconv.Atoi(f[1])
			switch f[0] {
			case "Rss:":
				m.rss += n
			case "Pss:":
				m.pss += n
			}
		}
	}
	return m, nil
}

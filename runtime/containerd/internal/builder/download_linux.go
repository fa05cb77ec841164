package builder

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/buildkit/session"
	bksolver "github.com/moby/buildkit/solver"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/source"
	srctypes "github.com/moby/buildkit/source/types"
	"golang.org/x/sys/unix"

	"github.com/bottle-run/bottle/runtime"
)

// downloader fetches what ADD names by URL, from a network namespace made for it,
// as RUN steps have.
type downloader struct {
	network Network
	dir     string
}

// RoundTrip implements [http.RoundTripper].
func (d downloader) RoundTrip(req *http.Request) (*http.Response, error) {
	if d.network == nil {
		return nil, runtime.Errorf(errdefs.ErrFailedPrecondition, "this builder has no network to download with")
	}
	ns, err := newNamespace(req.Context(), d.network, d.dir)
	if err != nil {
		return nil, err
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.DisableKeepAlives = true
	transport.DialContext = ns.dial
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return nil, errors.Join(err, ns.Close())
	}
	resp.Body = &body{ReadCloser: resp.Body, ns: ns}
	return resp, nil
}

// body takes the namespace down with itself.
type body struct {
	io.ReadCloser
	ns   *namespace
	once sync.Once
	err  error
}

func (b *body) Close() error {
	b.once.Do(func() { b.err = errors.Join(b.ReadCloser.Close(), b.ns.Close()) })
	return b.err
}

// dial connects from within the namespace, by IPv4, names being looked up there.
func (ns *namespace) dial(ctx context.Context, network, address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	resolver := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		var errs []error
		for _, server := range nameservers(ns.connection.ResolvConf) {
			conn, err := ns.dialAddress(ctx, network, net.JoinHostPort(server.String(), "53"))
			if err == nil {
				return conn, nil
			}
			errs = append(errs, err)
		}
		return nil, errors.Join(append(errs, errors.New("no nameserver answers in the step's network"))...)
	}}
	addrs, err := resolver.LookupNetIP(ctx, "ip4", host)
	if err != nil {
		var missing *net.DNSError
		if errors.As(err, &missing) {
			missing.Server = "" // the host's, which was not asked
		}
		return nil, err
	}
	var errs []error
	for _, addr := range addrs {
		conn, err := ns.dialAddress(ctx, network, net.JoinHostPort(addr.Unmap().String(), port))
		if err == nil {
			return conn, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

// dialAddress connects to an address, not a name: for one address net.Dialer makes
// the socket in the calling goroutine, and so in this thread's namespace.
func (ns *namespace) dialAddress(ctx context.Context, network, address string) (conn net.Conn, err error) {
	if _, err := netip.ParseAddrPort(address); err != nil {
		return nil, err
	}
	family := strings.TrimRight(network, "46") + "4"
	dialer := &net.Dialer{Timeout: 30 * time.Second}
	err = onThread(func() error {
		if err := unix.Setns(int(ns.handle), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter the step's network namespace: %w", err)
		}
		var err error
		conn, err = dialer.DialContext(ctx, family, address)
		return err
	})
	return conn, err
}

// nameservers lists the IPv4 ones of a resolv.conf.
func nameservers(resolvConf []byte) []netip.Addr {
	var servers []netip.Addr
	for lines := bufio.NewScanner(bytes.NewReader(resolvConf)); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) < 2 || fields[0] != "nameserver" {
			continue
		}
		if addr, err := netip.ParseAddr(fields[1]); err == nil && addr.Is4() {
			servers = append(servers, addr)
		}
	}
	return servers
}

// noGit refuses git repositories as sources.
type noGit struct{}

func (noGit) Schemes() []string { return []string{srctypes.GitScheme} }

func (noGit) Identifier(_, ref string, _ map[string]string, _ *pb.Platform) (source.Identifier, error) {
	return nil, runtime.Errorf(errdefs.ErrNotImplemented,
		"ADD of the git repository %s: this builder does not run git on the host; clone it in a RUN step", ref)
}

func (noGit) Resolve(context.Context, source.Identifier, *session.Manager, bksolver.Vertex) (source.SourceInstance, error) {
	return nil, runtime.Errorf(errdefs.ErrNotImplemented, "this builder does not fetch git repositories")
}

package main

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"maps"
	"math/big"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/bottle-run/bottle/core/sidecarimage"
	"github.com/bottle-run/bottle/runtime"
	"github.com/bottle-run/bottle/runtime/conformance/world"
)

// TestEgress runs the end-to-end tests of the way out, on the engine that
// BOTTLE_TEST_ENGINE names: hosts in a namespace of their own answer.
func TestEgress(t *testing.T) {
	e := openEngine(t)
	if os.Getenv(sidecarimage.Variable) == "" {
		t.Fatalf("%s has to name a static bottle-sidecar: make build, and then %s=$PWD/bin/bottle-sidecar", sidecarimage.Variable, sidecarimage.Variable)
	}
	before, err := e.rt.Inventory(t.Context())
	check(t, err)
	outside := openOutside(t)
	e.loadBase(t, testProgram(t, "fetch"))
	e.loadSidecars(t)
	run := func(t *testing.T, dir string) {
		commands := scriptCommands(e)
		maps.Copy(commands, map[string]func(*testscript.TestScript, bool, []string){
			"requests": outside.cmdRequests, "killcontainer": e.cmdKill, "neighbour": e.cmdNeighbour, "memory": e.cmdMemory, "leaks": e.cmdLeaks, "killduring": e.cmdKillDuring, "sidecarlog": e.cmdSidecarLog, "bypasses": outside.cmdBypasses,
		})
		testscript.Run(t, testscript.Params{
			Dir: dir, Cmds: commands, RequireExplicitExec: true,
			Setup: func(env *testscript.Env) error {
				for name, value := range outside.env() {
					env.Setenv(name, value)
				}
				env.Setenv("SIDECAR", sidecarCopy)
				env.Setenv("BAD", badImage)
				env.Setenv("SILENT", silentImage)
				env.Setenv(sidecarimage.Variable, os.Getenv(sidecarimage.Variable))
				if err := os.WriteFile(filepath.Join(env.WorkDir, "corp.pem"), outside.roots, 0o644); err != nil {
					return err
				}
				return e.setup(env)
			},
		})
	}
	t.Run("scripts", func(t *testing.T) { run(t, "testdata/script/egress") })
	// By itself: what a screen shows is of all bottles on the engine.
	t.Run("screen", func(t *testing.T) { run(t, "testdata/script/screen") })
	if t.Failed() {
		e.removeBottles(t)
	}
	e.removeImages(t)
	e.removeSidecarImages(t)
	e.nothingMoreThan(t, before)
}

// removeSidecarImages removes what launches loaded and is meant to stay.
func (e *scriptEngine) removeSidecarImages(t *testing.T) {
	t.Helper()
	images, err := e.rt.ListImages(t.Context(), runtime.Filter{Labels: map[string]string{sidecarimage.LabelRole: sidecarimage.RoleImage}})
	check(t, err)
	for _, image := range images {
		for _, tag := range image.Tags {
			check(t, e.rt.RemoveImage(t.Context(), tag))
		}
	}
}

// Images that stand in for the built-in ones.
const (
	sidecarCopy = "localhost/bottle-e2e/sidecar:1" // does as they do
	badImage    = "localhost/bottle-e2e/bad:1"     // does not
	silentImage = "localhost/bottle-e2e/silent:1"  // is never ready
)

// loadSidecars puts the stand-ins on the engine.
func (e *scriptEngine) loadSidecars(t *testing.T) {
	t.Helper()
	program, err := os.ReadFile(os.Getenv(sidecarimage.Variable))
	check(t, err)
	config := v1.Config{Entrypoint: []string{sidecarimage.Program}, Labels: map[string]string{runtime.LabelManaged: "true"}}
	e.load(t, sidecarCopy, config, map[string][]byte{"bottle-sidecar": program})
	busybox, err := os.ReadFile(lookPath(t, "busybox"))
	check(t, err)
	config.Entrypoint = []string{"/busybox", "sh", "-c", `printf 'last words\033[31m of this image\n' >&2; exit 3`}
	e.load(t, badImage, config, map[string][]byte{"busybox": busybox})
	config.Entrypoint = []string{"/busybox", "sh", "-c", "while :; do sleep 1; done"}
	e.load(t, silentImage, config, map[string][]byte{"busybox": busybox})
}

// load puts an image of some programs on the engine.
func (e *scriptEngine) load(t *testing.T, ref string, config v1.Config, programs map[string][]byte) {
	t.Helper()
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	for name, content := range programs {
		check(t, w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o755, Size: int64(len(content))}))
		_, err := w.Write(content)
		check(t, err)
	}
	check(t, w.Close())
	image, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{OS: "linux", Architecture: goruntime.GOARCH, Config: config})
	check(t, err)
	image, err = mutate.AppendLayers(image, static.NewLayer(layer.Bytes(), types.DockerUncompressedLayer))
	check(t, err)
	tag, err := name.NewTag(ref)
	check(t, err)
	var archive bytes.Buffer
	check(t, tarball.Write(tag, image, &archive))
	_, err = e.rt.LoadImage(t.Context(), &archive)
	check(t, err)
}

// outside is what the bottles reach, or do not: every name of the world's zone leads to
// one web server, which records what it is asked and answers with it.
type outside struct {
	layout world.Layout
	roots  []byte // PEM

	mu   sync.Mutex
	seen []seenRequest
}

type seenRequest struct {
	Scheme, Method, Host, Target, Body string
	Header                             http.Header
}

func openOutside(t *testing.T) *outside {
	t.Helper()
	w, err := world.Open(t.Context(), "")
	check(t, err)
	t.Cleanup(func() { check(t, w.Close()) })
	o := &outside{layout: w.Layout()}
	for _, port := range []uint16{80, 443} {
		l, err := w.Bind(t.Context(), netip.AddrPortFrom(o.layout.Answer, port))
		check(t, err)
		server := &http.Server{Handler: o, ReadHeaderTimeout: time.Minute}
		var served sync.WaitGroup
		if port == 443 {
			server.TLSConfig = &tls.Config{Certificates: []tls.Certificate{o.certificate(t)}, MinVersion: tls.VersionTLS12}
			served.Go(func() { _ = server.ServeTLS(l, "", "") })
		} else {
			served.Go(func() { _ = server.Serve(l) })
		}
		t.Cleanup(func() {
			_ = server.Close()
			served.Wait()
		})
	}
	return o
}

// certificate makes the authority and the certificate of the zone.
func (o *outside) certificate(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err)
	authority := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority of the test"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, authority, authority, &key.PublicKey, key)
	check(t, err)
	o.roots = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: world.Zone}, DNSNames: []string{"*." + world.Zone, "*." + bypassZone}, NotBefore: authority.NotBefore,
		NotAfter: authority.NotAfter, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err = x509.CreateCertificate(rand.Reader, leaf, authority, &key.PublicKey, key)
	check(t, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// env is what the scripts' manifests need to know.
func (o *outside) env() map[string]string {
	return map[string]string{"DNS": o.layout.DNS.String(), "CIDR": o.layout.A.String(), "ZONE": world.Zone, "ADDRESS": o.layout.Answer.String(),
		"ANSWER_NAME": strings.ReplaceAll(o.layout.Answer.String(), ".", "-")}
}

// ServeHTTP records a request and answers with what it saw.
func (o *outside) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err != nil {
		return // it was cut off on purpose
	}
	s := seenRequest{Scheme: "http", Method: r.Method, Host: r.Host, Target: r.RequestURI, Header: r.Header, Body: string(body)}
	if r.TLS != nil {
		s.Scheme = "https"
	}
	o.mu.Lock()
	o.seen = append(o.seen, s)
	o.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(s)
}

// cmdRequests writes what has reached hosts of the outside since it was asked last to
// stdout: requests HOST... Scripts that run beside each other use different hosts.
func (o *outside) cmdRequests(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: requests HOST...")
	}
	seen := o.take(func(s seenRequest) bool {
		host, _, _ := strings.Cut(s.Host, ".")
		return slices.Contains(args, host)
	})
	_, _ = fmt.Fprintf(ts.Stdout(), "%d requests\n", len(seen)) // something, so that stdout is this
	for _, s := range seen {
		_, _ = fmt.Fprintf(ts.Stdout(), "%s %s://%s%s\n", s.Method, s.Scheme, s.Host, s.Target)
		for _, name := range slices.Sorted(maps.Keys(s.Header)) {
			_, _ = fmt.Fprintf(ts.Stdout(), "  %s: %s\n", name, strings.Join(s.Header[name], ", "))
		}
		if s.Body != "" {
			_, _ = fmt.Fprintf(ts.Stdout(), "  body %q\n", s.Body)
		}
	}
}

// take returns the requests that are asked for and have not been taken.
func (o *outside) take(which func(seenRequest) bool) (taken []seenRequest) {
	o.mu.Lock()
	defer o.mu.Unlock()
	var others []seenRequest
	for _, s := range o.seen {
		if which(s) {
			taken = append(taken, s)
		} else {
			others = append(others, s)
		}
	}
	o.seen = others
	return taken
}

// cmdKill kills a container behind bottle's back: killcontainer CONTAINER.
func (e *scriptEngine) cmdKill(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: killcontainer CONTAINER")
	}
	ts.Check(e.kill(args[0]))
}

// kill returns when the container's process has ended.
func (e *scriptEngine) kill(container string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := e.rt.Kill(ctx, container, "SIGKILL"); err != nil {
		return err
	}
	_, err := e.rt.Wait(ctx, container)
	return err
}

// cmdKillDuring runs a program and kills a container when a text has appeared in what it
// writes, then waits for another text and interrupts it: killduring STATUS CONTAINER TEXT
// UNTIL PROGRAM ARG... Its output goes to stdout.
func (e *scriptEngine) cmdKillDuring(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 5 {
		ts.Fatalf("usage: killduring STATUS CONTAINER TEXT UNTIL PROGRAM [ARG...]")
	}
	var stdin io.Closer
	killed, ended := -1, false
	seen, status := follow(ts, args[4:], func(cmd *exec.Cmd) {
		// What a script sets later is not in its environment's list.
		cmd.Env = append(slices.Clone(cmd.Env), "TOKEN="+ts.Getenv("TOKEN"))
		var err error
		stdin, err = cmd.StdinPipe()
		ts.Check(err)
	}, func(_ *exec.Cmd, seen string) {
		if killed < 0 && strings.Contains(seen, args[2]) {
			killed = len(seen)
			ts.Check(e.kill(args[1]))
		}
		if killed >= 0 && !ended && strings.Contains(seen[killed:], args[3]) {
			ended = true
			ts.Check(stdin.Close()) // which the agent waits for
		}
	})
	if !ended || strconv.Itoa(status) != args[0] {
		ts.Fatalf("exit status %d, want %s; killed: %v, ended: %v\n%s", status, args[0], killed >= 0, ended, seen)
	}
}

// cmdSidecarLog writes the log of a container to stdout: sidecarlog CONTAINER.
func (e *scriptEngine) cmdSidecarLog(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: sidecarlog CONTAINER")
	}
	ts.Check(e.rt.Logs(context.Background(), args[0], runtime.LogOptions{Stdout: ts.Stdout(), Stderr: ts.Stdout()}))
}

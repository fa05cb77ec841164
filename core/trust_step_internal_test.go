package core

import (
	"bytes"
	"context"
	"crypto/x509"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bottle-run/bottle/core/ca"
	"github.com/bottle-run/bottle/core/egress"
	"github.com/bottle-run/bottle/core/internal/inside"
	"github.com/bottle-run/bottle/runtime"
	"github.com/bottle-run/bottle/runtime/fake"
)

// trustBench is a launch whose agent's container runs.
func trustBench(t *testing.T, plan Plan, image runtime.ImageConfig, files map[string]string, secrets map[string]string) (*fake.Engine, *launch) {
	t.Helper()
	e := fake.New()
	e.Handle(inside.Path, func(ctx context.Context, p *fake.Process) int {
		switch p.Args[1] {
		case "share":
			content, err := io.ReadAll(p.Stdin)
			if err != nil || p.Files.WriteFile(p.Args[2], fake.Node{Mode: 0o644, Content: content}) != nil {
				return 125
			}
			return 0
		default:
			<-ctx.Done()
			return 0
		}
	})
	pair, err := ca.NewPair("x", 0)
	if err != nil {
		t.Fatal(err)
	}
	plan.Egress = &egress.Policy{}
	l := &launch{
		rt: runtime.Checked(e), plan: plan, opts: LaunchOptions{Secrets: NewSecrets(secrets)}, report: newReporter(nil), name: "x", pair: pair,
		image: e.AddImage("img", image, nil, files), egress: newWayOut(plan, Secrets{}),
	}
	put, err := l.trustFiles()
	if err != nil {
		t.Fatal(err)
	}
	l.container, err = l.rt.Run(t.Context(), runtime.ContainerSpec{
		Name: "x", Image: "img", Entrypoint: inside.Idle(), ReadOnly: plan.ReadOnly, Tmpfs: []runtime.Tmpfs{{Target: inside.Tmpfs}},
		Files: append(put, runtime.File{Path: inside.Path, Mode: 0o755, Content: []byte("program")}),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.rt.RemoveContainer(context.Background(), l.container.ID); err != nil {
			t.Error(err)
		}
	})
	return e, l
}

func content(t *testing.T, e *fake.Engine, name string) string {
	t.Helper()
	files, err := e.Files("x")
	if err != nil {
		t.Fatal(err)
	}
	b, err := files.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// rootNames reads a bundle.
func rootNames(t *testing.T, text string) []string {
	t.Helper()
	certs, err := ca.NewBundle(&x509.Certificate{}, []byte(text), nil, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, c := range certs.Certs[1:] {
		names = append(names, c.Subject.CommonName)
	}
	return names
}

func TestTrustIsInstalledInAnyImage(t *testing.T) {
	of, err := ca.New(ca.Spec{Name: "of the image"})
	if err != nil {
		t.Fatal(err)
	}
	named, err := ca.New(ca.Spec{Name: "named by a variable"})
	if err != nil {
		t.Fatal(err)
	}
	const system = "/etc/ssl/certs/ca-certificates.crt"
	for name, test := range map[string]struct {
		readOnly bool
		files    map[string]string
		env      []string
		bundle   []string // beside the bottle's own
		system   []string
	}{
		"one with a store":    {files: map[string]string{system: string(of.CertPEM)}, bundle: []string{"of the image"}, system: []string{"of the image", "bottle x agent"}},
		"one with a variable": {files: map[string]string{"/opt/r": string(named.CertPEM)}, env: []string{"SSL_CERT_FILE=/opt/r"}, bundle: []string{"named by a variable"}, system: nil},
		"an empty one":        {files: map[string]string{}, system: []string{"bottle x agent"}},
		"a read-only one":     {readOnly: true, files: map[string]string{system: string(of.CertPEM)}, bundle: []string{"of the image"}, system: []string{"of the image"}},
	} {
		t.Run(name, func(t *testing.T) {
			e, l := trustBench(t, Plan{ReadOnly: test.readOnly}, runtime.ImageConfig{Env: test.env}, test.files, nil)
			if err := l.installTrust(t.Context()); err != nil {
				t.Fatal(err)
			}
			env, _ := l.trustEnv()
			if got, want := rootNames(t, content(t, e, env["SSL_CERT_FILE"])), slices.Concat([]string{"bottle x agent"}, test.bundle); !slices.Equal(got, want) {
				t.Errorf("the bundle has %q, want %q", got, want)
			}
			if got := rootNames(t, content(t, e, env["NODE_EXTRA_CA_CERTS"])); !slices.Equal(got, []string{"bottle x agent"}) {
				t.Errorf("what adds has %q", got)
			}
			if test.system != nil {
				if got := rootNames(t, content(t, e, system)); !slices.Equal(got, test.system) {
					t.Errorf("the system's store has %q, want %q", got, test.system)
				}
			}
			option, _, _ := strings.Cut(strings.TrimPrefix(env["JAVA_TOOL_OPTIONS"], "-Djavax.net.ssl.trustStore="), " ")
			if !bytes.HasPrefix([]byte(content(t, e, option)), []byte{0xfe, 0xed, 0xfe, 0xed}) {
				t.Errorf("%s is no Java store", option)
			}
			if preload := strings.TrimPrefix(env["NODE_OPTIONS"], "--require="); !strings.HasPrefix(content(t, e, preload), "'use strict'") {
				t.Errorf("%s is not the preload", preload)
			}
			if !test.readOnly && !strings.Contains(content(t, e, "/usr/local/share/ca-certificates/bottle-x.crt"), "BEGIN CERTIFICATE") {
				t.Error("the system's own tool does not find the root")
			}
		})
	}
}

func TestWhatIsSecretStaysSo(t *testing.T) {
	_, l := trustBench(t, Plan{Env: map[string]string{"NODE_OPTIONS": "--mine"}}, runtime.ImageConfig{}, nil, map[string]string{"JAVA_TOOL_OPTIONS": "-Dtoken=hush", "PIP_CERT": "/own"})
	plain, secret := l.trustEnv()
	for name, value := range plain {
		if strings.Contains(value, "hush") {
			t.Errorf("%s is not kept secret", name)
		}
	}
	if !strings.HasSuffix(secret["JAVA_TOOL_OPTIONS"], " -Dtoken=hush") || len(secret) != 1 {
		t.Errorf("secret: %d variables, %v", len(secret), strings.HasSuffix(secret["JAVA_TOOL_OPTIONS"], " -Dtoken=hush"))
	}
	if _, set := plain["PIP_CERT"]; set || !strings.HasSuffix(plain["NODE_OPTIONS"], " --mine") {
		t.Errorf("PIP_CERT %q, NODE_OPTIONS %q", plain["PIP_CERT"], plain["NODE_OPTIONS"])
	}
}

func TestTrustFailsAsTheEngineDoes(t *testing.T) {
	for _, op := range []string{"CopyFrom", "CopyTo"} {
		e, l := trustBench(t, Plan{}, runtime.ImageConfig{}, map[string]string{"/etc/ssl/cert.pem": ""}, nil)
		e.SetFault(func(got, _ string) error {
			if got == op {
				return io.ErrUnexpectedEOF
			}
			return nil
		})
		if err := l.installTrust(t.Context()); err == nil {
			t.Errorf("%s fails, and the step does not", op)
		}
		e.SetFault(nil)
	}
}

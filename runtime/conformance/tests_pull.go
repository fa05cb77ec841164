package conformance

import (
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/containerd/errdefs"

	"github.com/bottle-run/bottle/runtime"
)

var pullTests = []Test{
	{
		Name: "pull/by-tag-and-digest", Kernel: true,
		Doc: "An image is pulled from a registry on loopback over plain HTTP, by tag and by digest, and run.",
		Run: pullPlain,
	},
	{
		Name: "pull/with-credentials", Kernel: true,
		Doc: "A registry that asks for credentials gives an image with the right ones; with none or wrong ones the pull is Unauthorized or PermissionDenied, and no error shows a password.",
		Run: pullAuth,
	},
	{
		Name: "pull/missing-is-not-found", Kernel: true,
		Doc: "A repository or tag that the registry does not have is NotFound.",
		Run: pullMissing,
	},
	{
		Name: "pull/cancelled", Kernel: true,
		Doc: "A pull whose context ends returns soon with the context's error and leaves no image.",
		Run: pullCancelled,
	},
	{
		Name: "pull/no-registry", Kernel: true,
		Doc: "A registry that does not answer is an error, and no other registry is asked.",
		Run: pullNoRegistry,
	},
}

// serve runs an HTTP server on loopback and returns its address.
func (e *Env) serve(h http.Handler) (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	s := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, ErrorLog: log.New(io.Discard, "", 0)}
	done := make(chan struct{})
	go func() {
		_ = s.Serve(l)
		close(done)
	}()
	e.Cleanup(func(context.Context) error {
		err := s.Close()
		<-done
		return err
	})
	return l.Addr().String(), nil
}

// registry serves an image registry with one image, behind a guard if there is
// one.
func (e *Env) registry(repository, tag string, guard func(http.Handler) http.Handler) (string, v1.Image, error) {
	img, err := e.small(v1.Config{Labels: e.managed()})
	if err != nil {
		return "", nil, err
	}
	r := newRegistry()
	if err := r.add(repository, tag, img); err != nil {
		return "", nil, err
	}
	var h http.Handler = r
	if guard != nil {
		h = guard(h)
	}
	addr, err := e.serve(h)
	return addr, img, err
}

func pullPlain(ctx context.Context, e *Env) error {
	addr, img, err := e.registry("some/image", "v1", nil)
	if err != nil {
		return err
	}
	digest, err := img.Digest()
	if err != nil {
		return err
	}
	for _, ref := range []string{addr + "/some/image:v1", addr + "/some/image@" + digest.String()} {
		e.removeImage(ref)
		progress := &lineWriter{seen: make(chan struct{})}
		pulled, err := e.Runtime.PullImage(ctx, ref, runtime.PullOptions{Progress: progress})
		if err != nil {
			return err
		}
		if pulled.ID == "" || pulled.Labels[LabelRun] != e.suite.name {
			return failed("expected the image of the registry, got %+v", pulled)
		}
		out, err := e.output(ctx, ref, "echo", "pulled")
		if err != nil {
			return err
		}
		if out != "pulled\n" {
			return failed("expected the pulled image %s to run, got %q", ref, out)
		}
	}
	return nil
}

const pullUser, pullPassword = "somebody", "pass-word-9d3f"

// guarded asks for the credentials.
func guarded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, ok := r.BasicAuth(); !ok || user != pullUser || password != pullPassword {
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func pullAuth(ctx context.Context, e *Env) error {
	addr, _, err := e.registry("private/image", "v1", guarded)
	if err != nil {
		return err
	}
	ref := addr + "/private/image:v1"
	e.removeImage(ref)
	refused := func(err error) bool { return errdefs.IsUnauthorized(err) || errdefs.IsPermissionDenied(err) }
	for what, auth := range map[string]*runtime.RegistryAuth{
		"no credentials": nil, "a wrong password": {Username: pullUser, Password: "wrong-" + pullPassword},
	} {
		_, err := e.Runtime.PullImage(ctx, ref, runtime.PullOptions{Auth: auth})
		if err := kind(err, refused, "Unauthorized or PermissionDenied", "pull with "+what); err != nil {
			return err
		}
		if strings.Contains(err.Error(), pullPassword) {
			return failed("pull with %s: the error shows the password", what)
		}
	}
	pulled, err := e.Runtime.PullImage(ctx, ref, runtime.PullOptions{Auth: &runtime.RegistryAuth{Username: pullUser, Password: pullPassword}})
	if err != nil {
		return err
	}
	return check(pulled.Labels[LabelRun] == e.suite.name, "expected the image of the registry, got %+v", pulled)
}

func pullMissing(ctx context.Context, e *Env) error {
	addr, _, err := e.registry("some/image", "v1", nil)
	if err != nil {
		return err
	}
	for _, ref := range []string{addr + "/some/image:v2", addr + "/other/image:v1"} {
		_, err := e.Runtime.PullImage(ctx, ref, runtime.PullOptions{})
		if err := kind(err, errdefs.IsNotFound, "NotFound", "pull "+ref); err != nil {
			return err
		}
	}
	return nil
}

func pullCancelled(ctx context.Context, e *Env) error {
	asked := make(chan struct{}, 64)
	release := make(chan struct{})
	addr, _, err := e.registry("slow/image", "v1", func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/") {
				asked <- struct{}{}
				select {
				case <-r.Context().Done():
				case <-release:
				}
				return
			}
			next.ServeHTTP(w, r)
		})
	})
	if err != nil {
		return err
	}
	defer close(release)
	ref := addr + "/slow/image:v1"
	e.removeImage(ref)
	pullCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 1)
	go func() {
		_, err := e.Runtime.PullImage(pullCtx, ref, runtime.PullOptions{})
		done <- err
	}()
	select {
	case <-asked:
	case err := <-done:
		return failed("the pull ended before it was cancelled: %v", err)
	}
	cancel()
	select {
	case err := <-done:
		if err := kind(err, func(err error) bool { return errors.Is(err, context.Canceled) }, "the context's error", "cancel a pull"); err != nil {
			return err
		}
	case <-time.After(patience):
		return failed("a pull went on after its context had ended")
	}
	_, err = e.Runtime.InspectImage(ctx, ref)
	return kind(err, errdefs.IsNotFound, "NotFound", "inspect an image whose pull was cancelled")
}

func pullNoRegistry(ctx context.Context, e *Env) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	addr := l.Addr().String()
	if err := l.Close(); err != nil {
		return err
	}
	var asked atomic.Int32
	if _, _, err := e.registry("some/image", "v1", func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asked.Add(1)
			next.ServeHTTP(w, r)
		})
	}); err != nil {
		return err
	}
	_, err = e.Runtime.PullImage(ctx, addr+"/some/image:v1", runtime.PullOptions{})
	if err := kind(err, func(error) bool { return true }, "an error", "pull from a registry that does not answer"); err != nil {
		return err
	}
	return check(asked.Load() == 0, "expected no other registry to be asked, but one was, %d times", asked.Load())
}

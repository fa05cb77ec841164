package podman

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/bottle-run/bottle/runtime"
)

func TestAnswersHaveKinds(t *testing.T) {
	for _, c := range []struct {
		name   string
		status int
		body   string
		is     func(error) bool
	}{
		{"taken container name", 500, `{"cause":"that name is already in use","message":"creating container storage: the container name \"x\" is already in use by 12: that name is already in use","response":500}`, errdefs.IsAlreadyExists},
		{"taken network name", 409, `{"cause":"network already exists","message":"network name x already used: network already exists","response":409}`, errdefs.IsAlreadyExists},
		{"overlapping subnet", 500, `{"cause":"subnet 10.0.0.0/27 is already used on the host or by another config","message":"","response":500}`, errdefs.IsFailedPrecondition},
		{"missing image", 500, `{"cause":"image not known","message":"x: image not known","response":500}`, errdefs.IsNotFound},
		{"missing container", 404, `{"cause":"no such container","message":"no container with name or ID \"x\" found: no such container","response":404}`, errdefs.IsNotFound},
		{"image in use", 409, `{"cause":"image is in use by a container","message":"image used by 12: image is in use by a container","response":409}`, errdefs.IsFailedPrecondition},
		{"wrong state", 409, `{"cause":"container state improper","message":"","response":409}`, errdefs.IsFailedPrecondition},
		{"read-only target", 500, `{"cause":"read-only file system","message":"copier: put: read-only file system","response":500}`, errdefs.IsFailedPrecondition},
		{"address outside of the subnet", 500, `{"cause":"","message":"requested static ip 1.2.3.4 not in any subnet on network x","response":500}`, errdefs.IsInvalidArgument},
		{"taken address", 500, `{"cause":"","message":"IPAM error: requested ip address 10.0.0.2 is already allocated to container ID 12","response":500}`, errdefs.IsFailedPrecondition},
		{"unknown capability", 500, `{"cause":"unknown capability","message":"","response":500}`, errdefs.IsInvalidArgument},
		{"no key left", 500, `{"cause":"OCI runtime error","message":"runc: runc create failed: unable to start container process: error during container init: unable to join session keyring: unable to create session key: disk quota exceeded: OCI runtime error","response":500}`, errdefs.IsResourceExhausted},
		{"plain text", 400, `what is this`, errdefs.IsInvalidArgument},
		{"nothing said", 503, ``, errdefs.IsUnavailable},
		{"something else", 500, `{"message":"boom"}`, errdefs.IsInternal},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := readError(&http.Response{StatusCode: c.status, Body: io.NopCloser(strings.NewReader(c.body))})
			if !c.is(err) {
				t.Errorf("wrong kind of %v", err)
			}
			if err.Error() == "" {
				t.Error("expected a text")
			}
		})
	}
}

func TestErrorsNameOperationAndObject(t *testing.T) {
	err := wrap(t.Context(), "remove network", "net", errInUse)
	var e *runtime.Error
	if !errors.As(err, &e) || e.Engine != Name || e.Op != "remove network" || e.Object != "net" || !errdefs.IsFailedPrecondition(err) {
		t.Errorf("got %#v", err)
	}
	if err := wrap(t.Context(), "run container", "box", errors.New(noSessionKey+": disk quota exceeded")); !errors.As(err, &e) || !strings.Contains(e.Hint, "kernel.keys.maxkeys") {
		t.Errorf("no hint: %#v", err)
	}
	if wrap(t.Context(), "x", "y", nil) != nil {
		t.Error("expected no error of none")
	}
	if again := wrap(t.Context(), "remove network", "net", err); !errors.Is(again, err) || again.Error() != err.Error() {
		t.Errorf("expected an error to be wrapped once, got %v", again)
	}
}

func TestTheContextsErrorComesFirst(t *testing.T) {
	reason := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(reason)
	err := wrap(ctx, "op", "", errors.New("connection reset"))
	if !errors.Is(err, reason) || !errors.Is(err, context.Canceled) {
		t.Errorf("expected the context's error and its cause, got %v", err)
	}
}

func TestRemovalThatTheServiceReportsInASuccess(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasSuffix(r.URL.Path, "/_ping"):
			w.Header().Set("Libpod-API-Version", "4.3.1")
		case r.Method == http.MethodDelete:
			_, _ = io.WriteString(w, `[{"Name":"n","Err":{}}]`)
		default:
			_, _ = io.WriteString(w, `{"name":"n","id":"1","labels":{"`+runtime.LabelManaged+`":"true"}}`)
		}
	}))
	defer server.Close()
	rt, err := Driver{}.Open(t.Context(), runtime.Options{Host: "tcp://" + server.Listener.Addr().String()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rt.Close() }()
	if err := rt.RemoveNetwork(t.Context(), "n"); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("expected FailedPrecondition, got %v", err)
	}
}

func TestAContainerThatEndsWhileItIsLookedAtIsLookedAtAgain(t *testing.T) {
	var asked atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Libpod-API-Version", "4.3.1")
		switch {
		case strings.HasSuffix(r.URL.Path, "/_ping"):
		case asked.Add(1) < 3:
			w.WriteHeader(http.StatusInternalServerError)
			_, _ = io.WriteString(w, `{"cause":"no such process","message":"read /proc/19163/cgroup: no such process","response":500}`)
		default:
			_, _ = io.WriteString(w, `{"Id":"1","State":{"Status":"exited","ExitCode":7},"Config":{"Labels":{"`+runtime.LabelManaged+`":"true","`+labelContainer+`":"true"}}}`)
		}
	}))
	defer server.Close()
	rt, err := Driver{}.Open(t.Context(), runtime.Options{Host: "tcp://" + server.Listener.Addr().String()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rt.Close() }()
	status, err := rt.Wait(t.Context(), "c")
	if err != nil || status.Code != 7 {
		t.Errorf("expected exit status 7, got %+v and %v", status, err)
	}
	if n := asked.Load(); n != 3 {
		t.Errorf("expected it to be looked at three times, not %d", n)
	}
}

func TestForeignObjectsAreRefused(t *testing.T) {
	var changed []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet {
			changed = append(changed, r.Method+" "+r.URL.Path)
		}
		w.Header().Set("Libpod-API-Version", "4.3.1")
		_, _ = io.WriteString(w, `{"name":"n","id":"1","Id":"1","labels":{},"Labels":{},"State":{"Status":"running"},"Config":{"Labels":{}}}`)
	}))
	defer server.Close()
	rt, err := Driver{}.Open(t.Context(), runtime.Options{Host: "tcp://" + server.Listener.Addr().String()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rt.Close() }()
	ctx := t.Context()
	_, execErr := rt.Exec(ctx, "x", runtime.ExecSpec{Command: []string{"true"}})
	for name, err := range map[string]error{
		"RemoveNetwork": rt.RemoveNetwork(ctx, "x"), "RemoveContainer": rt.RemoveContainer(ctx, "x"),
		"RemoveImage": rt.RemoveImage(ctx, "x"), "Stop": rt.Stop(ctx, "x", 0), "Kill": rt.Kill(ctx, "x", "SIGTERM"),
		"CopyTo": rt.CopyTo(ctx, "x", "/", strings.NewReader("")), "Exec": execErr,
	} {
		if !errdefs.IsPermissionDenied(err) {
			t.Errorf("%s: expected PermissionDenied, got %v", name, err)
		}
	}
	if len(changed) > 0 {
		t.Errorf("expected nothing to be changed, got %q", changed)
	}
}

func TestOpenSaysWhatWasTried(t *testing.T) {
	_, err := Driver{}.Open(t.Context(), runtime.Options{Host: "unix://" + t.TempDir() + "/none.sock"})
	if !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), "none.sock") {
		t.Errorf("expected Unavailable with the socket's name, got %v", err)
	}
	if _, err := (Driver{}).Open(t.Context(), runtime.Options{Host: "http://x"}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("expected InvalidArgument, got %v", err)
	}
}

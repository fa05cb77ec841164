package podman

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"

	"github.com/containerd/errdefs"
	"github.com/containers/podman/v5/pkg/bindings"

	"github.com/bottle-run/bottle/runtime"
)

// apiError is the service's answer to a request that failed.
type apiError struct {
	Cause   string `json:"cause"`
	Message string `json:"message"`
	Status  int    `json:"response"`
}

func (e *apiError) Error() string {
	if e.Message != "" {
		return e.Message
	}
	if e.Cause != "" {
		return e.Cause
	}
	return fmt.Sprintf("the service answered %d %s", e.Status, http.StatusText(e.Status))
}

// maxError bounds what is read of an error's body.
const maxError = 64 << 10

// readError makes an error with a kind of an answer that is not a success.
func readError(resp *http.Response) error {
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxError))
	e := &apiError{}
	if json.Unmarshal(body, e) != nil || (e.Message == "" && e.Cause == "") {
		e.Message = strings.TrimSpace(string(body))
	}
	e.Status = resp.StatusCode
	return runtime.WithKind(kindOf(e), e)
}

// kinds maps what libpod says to kinds, first match first: its status codes are
// too coarse (a taken container name and a missing image are both 500).
var kinds = []struct {
	text string
	kind error
}{
	{"that name is already in use", errdefs.ErrAlreadyExists},
	{"network already exists", errdefs.ErrAlreadyExists},
	{"container already exists", errdefs.ErrAlreadyExists},
	{"is already used on the host or by another config", errdefs.ErrFailedPrecondition},
	{"is already allocated to container", errdefs.ErrFailedPrecondition},
	{"not in any subnet on network", errdefs.ErrInvalidArgument},
	{"unknown capability", errdefs.ErrInvalidArgument},
	{"network interface already in use", errdefs.ErrFailedPrecondition},
	{"network is being used", errdefs.ErrFailedPrecondition},
	{"image is in use", errdefs.ErrFailedPrecondition},
	{"image used by", errdefs.ErrFailedPrecondition},
	{"image is known, but is not in use", errdefs.ErrFailedPrecondition},
	{noSessionKey, errdefs.ErrResourceExhausted},
	{"read-only file system", errdefs.ErrFailedPrecondition},
	{"container state improper", errdefs.ErrFailedPrecondition},
	{"can only kill running containers", errdefs.ErrFailedPrecondition},
	{"container is not running", errdefs.ErrFailedPrecondition},
	{"container-init binary not found", errdefs.ErrFailedPrecondition},
	{"no such container", errdefs.ErrNotFound},
	{"no container with name or ID", errdefs.ErrNotFound},
	{"no such exec session", errdefs.ErrNotFound},
	{"no such image", errdefs.ErrNotFound},
	{"image not known", errdefs.ErrNotFound},
	{"network not found", errdefs.ErrNotFound},
	{"OCI runtime attempted to invoke a command that was not found", errdefs.ErrNotFound},
	{"executable file not found", errdefs.ErrNotFound},
	{"OCI permission denied", errdefs.ErrPermissionDenied},
	{"OCI runtime permission denied", errdefs.ErrPermissionDenied},
	{"invalid OCI runtime", errdefs.ErrInvalidArgument},
	{"default OCI runtime", errdefs.ErrInvalidArgument},
	{"no matching entries in passwd file", errdefs.ErrInvalidArgument},
	{"unable to find user", errdefs.ErrInvalidArgument},
	{"unable to find group", errdefs.ErrInvalidArgument},
	{"no matching entries in group file", errdefs.ErrInvalidArgument},
	{"could not find the file", errdefs.ErrNotFound},
	{"unauthorized", errdefs.ErrUnauthenticated},
	{"authentication required", errdefs.ErrUnauthenticated},
	{"manifest unknown", errdefs.ErrNotFound},
	{"name unknown", errdefs.ErrNotFound},
	{"no such file or directory", errdefs.ErrNotFound},
	{"no such host", errdefs.ErrUnavailable},
	{"connection refused", errdefs.ErrUnavailable},
	{"permission denied", errdefs.ErrPermissionDenied},
}

// noSessionKey is what runc says when the kernel gives this user no more keys: each container
// has a session keyring, and a user 200 (kernel.keys.maxkeys, keyrings(7)).
const noSessionKey = "unable to create session key"

func kindOfText(text string) error {
	for _, k := range kinds {
		if strings.Contains(text, k.text) {
			return k.kind
		}
	}
	return nil
}

func kindOf(e *apiError) error {
	for _, text := range []string{e.Cause, e.Message} {
		if kind := kindOfText(text); kind != nil {
			return kind
		}
	}
	switch e.Status {
	case http.StatusBadRequest:
		return errdefs.ErrInvalidArgument
	case http.StatusUnauthorized:
		return errdefs.ErrUnauthenticated
	case http.StatusForbidden:
		return errdefs.ErrPermissionDenied
	case http.StatusNotFound:
		return errdefs.ErrNotFound
	case http.StatusConflict:
		return errdefs.ErrFailedPrecondition
	case http.StatusNotImplemented:
		return errdefs.ErrNotImplemented
	case http.StatusServiceUnavailable:
		return errdefs.ErrUnavailable
	}
	return errdefs.ErrInternal
}

// transportError gives a failure to reach the service its kind.
func transportError(err error) error {
	var connect bindings.ConnectError
	var op *net.OpError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, os.ErrPermission):
		return runtime.WithKind(errdefs.ErrPermissionDenied, err)
	case errors.As(err, &connect), errors.As(err, &op), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF),
		errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.EPIPE):
		return runtime.WithKind(errdefs.ErrUnavailable, err)
	}
	return err
}

// wrap makes the error that a method returns. The context's own error comes
// first: what a broken connection says is then of no interest.
func wrap(ctx context.Context, op, object string, err error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		cause := context.Cause(ctx)
		if !errors.Is(err, cause) && !errors.Is(err, ctx.Err()) {
			if errors.Is(cause, ctx.Err()) {
				err = cause
			} else {
				err = errors.Join(ctx.Err(), cause)
			}
		}
	}
	var done *runtime.Error
	if errors.As(err, &done) && done.Engine == Name && done.Op == op {
		return err
	}
	return &runtime.Error{Engine: Name, Op: op, Object: object, Err: err, Hint: hint(err)}
}

// hint says what the user can do about an error, if this package knows.
func hint(err error) string {
	text := err.Error()
	switch {
	case strings.Contains(text, "container-init binary not found"):
		return "install catatonit, Podman's init"
	case strings.Contains(text, noSessionKey):
		return "each running container takes one of the keys that the kernel lets a user have, and all are taken: stop some bottles, or sysctl kernel.keys.maxkeys=5000 kernel.keys.maxbytes=500000"
	case strings.Contains(text, "slirp4netns"):
		return "rootless networks need slirp4netns and /dev/net/tun readable and writable for this user"
	case strings.Contains(text, "netavark") && strings.Contains(text, "no such file"):
		return "install netavark and aardvark-dns"
	case strings.Contains(text, "newuidmap"):
		return "install uidmap and give this user ranges in /etc/subuid and /etc/subgid"
	case strings.Contains(text, "cgroups in hybrid mode not supported"):
		return "crun refuses this host's cgroups: set runtime = \"runc\" in containers.conf"
	}
	return ""
}

func isNotFound(err error) bool { return err != nil && errdefs.IsNotFound(err) }

// foreign is the error for an object that bottle did not make.
func foreign(kind string) error {
	return runtime.Errorf(errdefs.ErrPermissionDenied, "this %s was not made by bottle (it has no label %s)", kind, runtime.LabelManaged)
}

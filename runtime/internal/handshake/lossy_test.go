package handshake

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/bottle-run/bottle/runtime"
)

func TestWhatAConnectionLosesIsTakenFromTheLogOnce(t *testing.T) {
	const all = "first\nsecond\nthird\n"
	broken := errors.New("connection reset by peer")
	for said := range len(all) {
		for _, end := range []error{nil, broken} {
			a := Attached{
				Errors: func(w io.Writer) error {
					if _, err := io.WriteString(w, all[:said]); err != nil {
						return err
					}
					return end
				},
				Log: func(_ context.Context, w io.Writer) error {
					_, err := io.Copy(w, io.MultiReader(strings.NewReader(all[:7]), strings.NewReader(all[7:])))
					return err
				},
				Ended: func(context.Context) (runtime.ExitStatus, error) { return runtime.ExitStatus{}, nil },
			}
			var got bytes.Buffer
			if err := a.Process(t.Context(), nil).Errors(&got); err != nil || got.String() != all {
				t.Errorf("after %q, %v: %q, %v", all[:said], end, got.String(), err)
			}
		}
	}
}

func TestAConnectionThatBreaksUnderAProcessThatRunsIsTold(t *testing.T) {
	broken := errors.New("connection reset by peer")
	unknown := errors.New("it runs")
	a := Attached{
		Errors: func(io.Writer) error { return broken },
		Log:    func(context.Context, io.Writer) error { t.Error("the log was read"); return nil },
		Ended:  func(context.Context) (runtime.ExitStatus, error) { return runtime.ExitStatus{}, unknown },
	}
	if err := a.Process(t.Context(), nil).Errors(io.Discard); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
}

func TestWhoHasHeardEnoughIsToldNoMore(t *testing.T) {
	enough := errors.New("enough")
	a := Attached{
		Errors: func(w io.Writer) error { _, err := io.WriteString(w, "x"); return err },
		Log:    func(context.Context, io.Writer) error { t.Error("the log was read"); return nil },
		Ended:  func(context.Context) (runtime.ExitStatus, error) { return runtime.ExitStatus{}, nil },
	}
	if err := a.Process(t.Context(), nil).Errors(failingWriter{enough}); !errors.Is(err, enough) {
		t.Errorf("got %v", err)
	}
	// A log that is gone with its container is empty.
	a.Log = func(context.Context, io.Writer) error { return runtime.Errorf(errdefs.ErrNotFound, "gone") }
	if err := a.Process(t.Context(), nil).Errors(io.Discard); err != nil {
		t.Errorf("got %v", err)
	}
}

type failingWriter struct{ err error }

func (f failingWriter) Write([]byte) (int, error) { return 0, f.err }

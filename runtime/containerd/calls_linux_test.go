package containerd

import (
	"context"
	"errors"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const (
	waiting = "/containerd.services.tasks.v1.Tasks/Wait"
	making  = "/containerd.services.tasks.v1.Tasks/Create"
)

// untilCut is a call that ends when it is cut off.
func untilCut(ctx context.Context, _ string, _, _ any, _ *grpc.ClientConn, _ ...grpc.CallOption) error {
	<-ctx.Done()
	return status.FromContextError(ctx.Err()).Err()
}

func TestACallSendsNoDeadline(t *testing.T) {
	for _, method := range []string{waiting, making} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		err := settled(ctx, method, nil, nil, nil, func(ctx context.Context, _ string, _, _ any, _ *grpc.ClientConn, _ ...grpc.CallOption) error {
			if _, ok := ctx.Deadline(); ok {
				t.Errorf("%s: the deadline goes to the server", method)
			}
			return nil
		})
		if err != nil {
			t.Errorf("%s: %v", method, err)
		}
	}
}

func TestACallThatWaitsEndsWithItsContext(t *testing.T) {
	deadline, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := native(settled(deadline, waiting, nil, nil, nil, untilCut)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("at a deadline: expected DeadlineExceeded, got %v", err)
	}
	cancelled, cancel := context.WithCancel(t.Context())
	time.AfterFunc(10*time.Millisecond, cancel)
	if err := native(settled(cancelled, waiting, nil, nil, nil, untilCut)); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: expected Canceled, got %v", err)
	}
}

func TestACallThatMakesSomethingIsSeenToItsEnd(t *testing.T) {
	want := status.Error(codes.AlreadyExists, "it exists")
	for _, outcome := range []error{nil, want} {
		ctx, cancel := context.WithCancel(t.Context())
		err := settled(ctx, making, nil, nil, nil, func(calling context.Context, _ string, _, _ any, _ *grpc.ClientConn, _ ...grpc.CallOption) error {
			cancel()
			select {
			case <-calling.Done():
				t.Error("the call was cut off")
			case <-time.After(20 * time.Millisecond):
			}
			return outcome
		})
		if !errors.Is(err, outcome) {
			t.Errorf("expected the call's own outcome %v, got %v", outcome, err)
		}
	}
}

func TestACallAfterItsContextIsNotMade(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := settled(ctx, making, nil, nil, nil, func(context.Context, string, any, any, *grpc.ClientConn, ...grpc.CallOption) error {
		t.Error("the call was made")
		return nil
	})
	if !errors.Is(native(err), context.Canceled) {
		t.Errorf("expected Canceled, got %v", err)
	}
}

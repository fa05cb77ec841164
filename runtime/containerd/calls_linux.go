package containerd

import (
	"context"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// callPatience bounds how long a call is seen to its end once its context has ended.
const callPatience = 15 * time.Second

// whole names the calls that go on in containerd when they are cut off: what they make
// or remove would come or go behind the back of whoever undoes it then.
var whole = map[string]bool{
	"containerd.services.containers.v1.Containers/Create": true,
	"containerd.services.containers.v1.Containers/Delete": true,
	"containerd.services.snapshots.v1.Snapshots/Prepare":  true,
	"containerd.services.snapshots.v1.Snapshots/Remove":   true,
	"containerd.services.tasks.v1.Tasks/Create":           true,
	"containerd.services.tasks.v1.Tasks/Start":            true,
	"containerd.services.tasks.v1.Tasks/Delete":           true,
	"containerd.services.tasks.v1.Tasks/Exec":             true,
	"containerd.services.tasks.v1.Tasks/DeleteProcess":    true,
}

// settled is a [grpc.UnaryClientInterceptor] under which the end of a context is always
// told in the same way, and leaves nothing half done. No deadline is sent: containerd
// would keep it as well, and where it is the first to notice, it answers with an unknown
// error. A call of [whole] is seen to its end, and its own outcome returned.
func settled(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	if err := ctx.Err(); err != nil {
		return status.FromContextError(err).Err()
	}
	calling, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	ended := cut
	if whole[strings.TrimPrefix(method, "/")] {
		ended = func() {
			patience := time.AfterFunc(callPatience, cut)
			context.AfterFunc(calling, func() { patience.Stop() })
		}
	}
	defer context.AfterFunc(ctx, ended)()
	err := invoke(calling, method, req, reply, conn, opts...)
	if ctx.Err() != nil && status.Code(err) == codes.Canceled {
		return status.FromContextError(ctx.Err()).Err()
	}
	return err
}

// Package runtime is the one interface through which bottle speaks to a
// container engine, with the values that cross it, the kinds of error it
// returns and the features an engine may lack.
//
// The engines themselves live below it (runtime/docker, runtime/podman,
// runtime/containerd) and import this package, never each other. Callers hold a
// [Runtime] and nothing of an engine's own: no type, no error text, no name.
//
// # What every implementation promises
//
// The promises are proved by runtime/conformance, which every engine passes.
//
//   - Run is one call and all or nothing. See [Containers]. A [Handshake] is a part of it: what
//     the first process needs to know reaches it past the engine's records.
//   - A container on an internal network alone reaches nothing outside that
//     network, by any protocol. See [NetworkSpec].
//   - The zero [ContainerSpec] is the hardened one: no capability, the engine's
//     default seccomp profile, no new privileges, a limit on processes, an init
//     that reaps, and no network at all.
//   - Removing is idempotent; creating is not.
//   - Every object made carries [LabelManaged]; lists return only such objects,
//     and no call changes an object without it (PermissionDenied).
//   - Every call honours its context. A stream is never buffered whole.
//
// # Errors
//
// Errors are of type [*Error]: they name the engine, the operation and the
// object, and answer to the predicates of github.com/containerd/errdefs
// (IsNotFound, IsAlreadyExists, IsInvalidArgument, IsFailedPrecondition,
// IsPermissionDenied, IsUnavailable, IsNotImplemented, IsUnauthorized). A call
// that its context ended returns an error for which errors.Is(err,
// context.Cause(ctx)) or errors.Is(err, ctx.Err()) holds. Nobody matches text.
package runtime

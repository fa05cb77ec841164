//go:build !linux

package world

import (
	"context"
	"errors"
	"net"
	"net/netip"
)

var errLinux = errors.New("the tests of sealing need network namespaces, which only Linux has: run the suite on the engine's own host")

func inProcess(context.Context) (World, error) { return nil, errLinux }

// Serve exists on Linux only.
func Serve(context.Context, string, func()) error { return errLinux }

// Bind exists on Linux only.
func (*client) Bind(context.Context, netip.AddrPort) (net.Listener, error) { return nil, errLinux }

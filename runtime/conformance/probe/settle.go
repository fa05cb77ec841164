package probe

import (
	"context"
	"os"
	"strconv"
	"strings"
	"time"
)

// Settle waits until each IPv6 address that is tentative when it is called may be used, or is
// gone: until then nothing is sent from it and nothing taken for it (RFC 4862, 5.4).
func Settle(ctx context.Context) error {
	for waited := tentative(); len(waited) > 0; {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(50 * time.Millisecond):
		}
		now := tentative()
		for key := range waited {
			if !now[key] {
				delete(waited, key)
			}
		}
	}
	return nil
}

// tentative lists address and interface of /proc/net/if_inet6. It is empty without IPv6.
func tentative() map[string]bool {
	const flag = 0x40 // IFA_F_TENTATIVE
	list := map[string]bool{}
	content, err := os.ReadFile("/proc/net/if_inet6")
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(content)) {
		fields := strings.Fields(line)
		if len(fields) < 6 {
			continue
		}
		if flags, err := strconv.ParseUint(fields[4], 16, 32); err == nil && flags&flag != 0 {
			list[fields[0]+" "+fields[5]] = true
		}
	}
	return list
}

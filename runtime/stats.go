package runtime

import "time"

// Stats is what a container uses.
type Stats struct {
	// CPU is the processor time that its processes have used so far.
	CPU time.Duration
	// Memory is what they use now, in bytes, without what the kernel can give back at once.
	Memory int64
	// MemoryLimit is how much that may be; 0 is no limit.
	MemoryLimit int64
	// PIDs is how many processes and threads there are.
	PIDs int64
}

// maxMemoryLimit is above what any machine has: a limit that is larger is none.
const maxMemoryLimit = 1 << 60

// LimitOf returns a memory limit as [Stats] holds it: engines tell a number for none, too.
func LimitOf(bytes, machine uint64) int64 {
	if bytes == 0 || bytes >= maxMemoryLimit || machine > 0 && bytes >= machine {
		return 0
	}
	return int64(bytes)
}

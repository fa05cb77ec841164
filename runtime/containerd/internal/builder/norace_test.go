//go:build !race && linux

package builder

const raceEnabled = false

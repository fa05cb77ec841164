//go:build !unix

package session

func isReadOnly(error) bool { return false }

func isFull(error) bool { return false }

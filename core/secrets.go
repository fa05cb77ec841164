package core

import (
	"fmt"
	"io"
	"maps"
	"slices"
)

// Secrets are values that nobody but the bottle may see. However they are printed or
// encoded, only the names appear. There are two sorts, which do not mix: variables, for
// the agent's processes, and tokens, for the sidecars, which the agent never gets.
type Secrets struct {
	values map[string]string
	tokens map[string]string
}

// NewSecrets takes the variables over.
func NewSecrets(values map[string]string) Secrets { return Secrets{values: maps.Clone(values)} }

// WithTokens returns the same variables with these tokens, by the names of the host's
// variables that they were taken from.
func (s Secrets) WithTokens(tokens map[string]string) Secrets {
	s.tokens = maps.Clone(tokens)
	return s
}

// Names returns the names of the variables and tokens, sorted.
func (s Secrets) Names() []string {
	return slices.Compact(slices.Sorted(func(yield func(string) bool) {
		for _, m := range []map[string]string{s.values, s.tokens} {
			for name := range m {
				if !yield(name) {
					return
				}
			}
		}
	}))
}

// Format implements fmt.Formatter for every verb.
func (s Secrets) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, fmt.Sprint(s.Names())) }

// MarshalText implements encoding.TextMarshaler, which encoding/json uses too.
func (s Secrets) MarshalText() ([]byte, error) { return fmt.Append(nil, s.Names()), nil }

package core

import (
	"fmt"
	"io"
	"maps"
	"slices"
)

// Secrets are variables whose values nobody but the bottle's processes may see.
// However they are printed or encoded, only the names appear.
type Secrets struct {
	values map[string]string
}

// NewSecrets takes the variables over.
func NewSecrets(values map[string]string) Secrets { return Secrets{values: maps.Clone(values)} }

// Names returns the variables' names, sorted.
func (s Secrets) Names() []string { return slices.Sorted(maps.Keys(s.values)) }

// Format implements fmt.Formatter for every verb.
func (s Secrets) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, fmt.Sprint(s.Names())) }

// MarshalText implements encoding.TextMarshaler, which encoding/json uses too.
func (s Secrets) MarshalText() ([]byte, error) { return fmt.Append(nil, s.Names()), nil }

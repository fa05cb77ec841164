package core

import (
	"context"
	"slices"
	"strings"

	"github.com/bottle-run/bottle/runtime"
)

// MatchName returns the one of names that is meant by text: the one that is text, or
// the only one that begins with it. It is of KindNotFound if there is none, and of
// KindInput if there are several.
func MatchName(names []string, text string) (string, error) {
	if slices.Contains(names, text) {
		return text, nil
	}
	var matches []string
	for _, n := range names {
		if text != "" && strings.HasPrefix(n, text) && !slices.Contains(matches, n) {
			matches = append(matches, n)
		}
	}
	switch len(matches) {
	case 0:
		return "", Errorf(KindNotFound, "there is no bottle %q", text)
	case 1:
		return matches[0], nil
	}
	slices.Sort(matches)
	return "", Errorf(KindInput, "%q is the beginning of several bottles' names: %s: write more of it", text, strings.Join(matches, ", "))
}

// OpenMatching is [Open] for a name, or for the beginning of a name that is no other
// bottle's.
func OpenMatching(ctx context.Context, rt runtime.Runtime, text string, observe Observer) (*Bottle, error) {
	all, err := List(ctx, rt)
	if err != nil {
		return nil, err
	}
	names := make([]string, len(all))
	for i, s := range all {
		names[i] = s.Name
	}
	name, err := MatchName(names, text)
	switch KindOf(err) {
	case KindInput:
		return nil, err
	case KindNotFound:
		name = text // Open says what there is
	}
	return Open(ctx, rt, name, observe)
}

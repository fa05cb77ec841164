package core

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// maxName is how long a bottle's name may be: with a prefix and a suffix it is
// part of the names of its objects, which have 63 characters.
const maxName = 40

// maxCandidates is how many names are tried for a bottle whose name is derived.
const maxCandidates = 99

var bottleName = regexp.MustCompile(`^[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?$`)

// CheckName returns an error unless name can be the name of a bottle.
func CheckName(name string) error {
	if bottleName.MatchString(name) {
		return nil
	}
	return Errorf(KindInput, "%q cannot be the name of a bottle: lower-case letters, digits and '-' in between, at most %d", name, maxName)
}

var notSlug = regexp.MustCompile(`[^a-z0-9]+`)

// slug makes a bottle's name of an agent's.
func slug(agent string) string {
	s := strings.Trim(notSlug.ReplaceAllString(strings.ToLower(agent), "-"), "-")
	// Room for the longest number that candidate adds.
	if room := maxName - len("-"+strconv.Itoa(maxCandidates)); len(s) > room {
		s = strings.TrimRight(s[:room], "-")
	}
	if s == "" {
		return "agent"
	}
	return s
}

// candidate is the i-th name (from 0) that is tried.
func candidate(base string, i int) string {
	if i == 0 {
		return base
	}
	return fmt.Sprintf("%s-%d", base, i+1)
}

// The names of a bottle's objects. A bottle's name has no dot, so the container
// of one never has the name of something else's of another.

func containerName(bottle string) string { return "bottle-" + bottle }
func restartedName(bottle string, generation int) string {
	return fmt.Sprintf("bottle-%s.restart-%d", bottle, generation)
}
func internalNetworkName(bottle string) string { return "bottle-" + bottle + ".internal" }
func egressNetworkName(bottle string) string   { return "bottle-" + bottle + ".egress" }
func sidecarName(bottle, role string) string   { return "bottle-" + bottle + "." + role }

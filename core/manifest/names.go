package manifest

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
)

var (
	namePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$`)
	envPattern  = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
	gitPattern  = regexp.MustCompile(`^[A-Za-z0-9-]+(\.[^\n\x00]+)?\.[A-Za-z][A-Za-z0-9-]*$`)
)

func nameValid(s string) bool { return namePattern.MatchString(s) }

// reservedEnv are variables that bottle itself sets.
var reservedEnv = map[string]string{
	"BOTTLE_EXEC_ID": "bottle marks processes with it",
	"BOTTLE_PROMPT":  "bottle sets it to the prompt's path",
}

// checkEnvName says what is wrong with a variable's name, or "".
func checkEnvName(name string) string {
	if !envPattern.MatchString(name) {
		return fmt.Sprintf("%q is no name of a variable: letters, digits and '_', not beginning with a digit", name)
	}
	if why, reserved := reservedEnv[name]; reserved {
		return fmt.Sprintf("%s cannot be set: %s", name, why)
	}
	return ""
}

// CheckEnvName returns an error if name cannot be the name of a variable that
// the user sets in a bottle.
func CheckEnvName(name string) error {
	if msg := checkEnvName(name); msg != "" {
		return errors.New(msg)
	}
	return nil
}

func checkGitName(name string) string {
	if !gitPattern.MatchString(name) {
		return fmt.Sprintf("%q is no name of a git setting: want section.name or section.subsection.name, such as user.email", name)
	}
	return ""
}

// checkInside says what is wrong with a path inside the bottle, or "".
func checkInside(p string, home bool) string {
	rest, isHome := strings.CutPrefix(p, "~/")
	switch {
	case isHome && !home:
		return fmt.Sprintf("%q: ~ does not work here: give an absolute path", p)
	case isHome:
		p = "/" + rest
	case !strings.HasPrefix(p, "/"):
		if home {
			return fmt.Sprintf("%q is not a path inside the bottle: it begins with / or ~/", p)
		}
		return fmt.Sprintf("%q is not an absolute path inside the bottle", p)
	}
	for part := range strings.SplitSeq(p, "/") {
		if part == ".." {
			return fmt.Sprintf("%q: .. cannot be in a path inside the bottle", p)
		}
	}
	if strings.Trim(p, "/") == "" {
		return fmt.Sprintf("%q is the root directory", p)
	}
	if own := "/" + strings.Trim(p, "/"); !isHome && (own == reservedDir || strings.HasPrefix(own, reservedDir+"/")) {
		return fmt.Sprintf("%q: %s is bottle's own directory", p, reservedDir)
	}
	return ""
}

// reservedDir holds bottle's own program inside every bottle.
const reservedDir = "/.bottle"

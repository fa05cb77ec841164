package doctor

import (
	"regexp"
	"strconv"
	"strings"
)

// version is an upstream version: three numbers, and a release candidate's number,
// which is final where there is none.
type version struct {
	n   [3]int
	pre int
}

const final = 1 << 30

var versionForm = regexp.MustCompile(`^v?(\d{1,6})\.(\d{1,6})(?:\.(\d{1,6}))?(?:[-~]?(?:rc|alpha|beta)[.-]?(\d{1,6})?)?`)

// parseVersion reads the upstream part of a version, which may be a package's.
func parseVersion(text string) (v version, ok bool) {
	m := versionForm.FindStringSubmatch(text)
	if m == nil {
		return v, false
	}
	for i := range v.n {
		v.n[i], _ = strconv.Atoi(m[i+1]) // empty is 0
	}
	v.pre = final
	if strings.ContainsAny(m[0], "rab") {
		v.pre, _ = strconv.Atoi(m[4])
	}
	return v, true
}

func (v version) compare(w version) int {
	for i := range v.n {
		if v.n[i] != w.n[i] {
			return v.n[i] - w.n[i]
		}
	}
	return v.pre - w.pre
}

// fixed reports whether a version has a fix that came with the given ones, each the
// first of its branch (first two numbers) that has it. Branches after the last have
// it, too; others do not.
func (v version) fixed(in []string) bool {
	newest := version{}
	for _, text := range in {
		w, ok := parseVersion(text)
		if !ok {
			continue
		}
		if v.n[0] == w.n[0] && v.n[1] == w.n[1] {
			return v.compare(w) >= 0
		}
		if w.compare(newest) > 0 {
			newest = w
		}
	}
	return v.compare(newest) >= 0
}

var packaged = regexp.MustCompile(`(?i)[+~-](ds|dfsg|deb|git|really)|ubuntu|\.(el|fc|amzn|mga|azl|cm)\d|[-+]\d+(\.\d+)*(\+b\d+|~)|-r\d+$|lp\d|bp\d`)

// isPackaged reports whether a version is a distribution's, which may have fixes of
// later ones.
func isPackaged(text string) bool { return packaged.MatchString(text) }

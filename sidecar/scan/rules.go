package scan

import (
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/pelletier/go-toml/v2"
	gitleaks "github.com/zricethezav/gitleaks/v8/config"

	"github.com/bottle-run/bottle/sidecar/internal/match"
)

// The rules are those of gitleaks' own configuration, taken from its library, so that a
// new release of it is a line in go.mod. Its detector is not used: it compiles every
// expression ahead (tens of megabytes) and scans whole files. Here an expression is
// compiled when one of its keywords is first seen.

type tomlConfig struct {
	Allowlist  tomlAllow   `toml:"allowlist"`
	Allowlists []tomlAllow `toml:"allowlists"`
	Rules      []tomlRule  `toml:"rules"`
}

type tomlRule struct {
	ID          string      `toml:"id"`
	Description string      `toml:"description"`
	Regex       string      `toml:"regex"`
	Path        string      `toml:"path"`
	SecretGroup int         `toml:"secretGroup"`
	Entropy     float64     `toml:"entropy"`
	Keywords    []string    `toml:"keywords"`
	Allowlists  []tomlAllow `toml:"allowlists"`
}

type tomlAllow struct {
	Condition   string   `toml:"condition"`
	Paths       []string `toml:"paths"`
	RegexTarget string   `toml:"regexTarget"`
	Regexes     []string `toml:"regexes"`
	StopWords   []string `toml:"stopwords"`
}

type ruleSet struct {
	rules     []*rule
	keywords  *match.Automaton
	byKeyword [][]int // rules by number of the keyword
	global    []*allow
}

type rule struct {
	id, description string
	expr            func() *regexp.Regexp
	group           int
	entropy         float64
	allow           []*allow
}

// allow is what a rule, or all, do not take for a secret. The expressions and the words
// of one are alternatives unless all is set.
type allow struct {
	all    bool
	target string // "", "match" or "line"
	exprs  func() []*regexp.Regexp
	words  []string
}

func newRuleSet(disabled []string) (*ruleSet, error) {
	var c tomlConfig
	if err := toml.Unmarshal([]byte(gitleaks.DefaultConfig), &c); err != nil {
		return nil, fmt.Errorf("reading gitleaks' rules: %w", err)
	}
	rs := &ruleSet{}
	for _, a := range append(c.Allowlists, c.Allowlist) {
		if compiled := newAllow(a); compiled != nil {
			rs.global = append(rs.global, compiled)
		}
	}
	numbers := map[string]int{}
	var needles [][]byte
	for _, t := range c.Rules {
		// Rules about names of files have no meaning here.
		if t.Regex == "" || t.Path != "" || slices.Contains(disabled, t.ID) {
			continue
		}
		if len(t.Keywords) == 0 {
			return nil, fmt.Errorf("reading gitleaks' rules: %s has no keyword", t.ID)
		}
		r := &rule{id: t.ID, description: describe(t.Description), group: t.SecretGroup, entropy: t.Entropy}
		r.expr = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(t.Regex) })
		for _, a := range t.Allowlists {
			if compiled := newAllow(a); compiled != nil {
				r.allow = append(r.allow, compiled)
			}
		}
		for _, word := range t.Keywords {
			word = strings.ToLower(word)
			n, ok := numbers[word]
			if !ok {
				n = len(needles)
				numbers[word] = n
				needles = append(needles, []byte(word))
				rs.byKeyword = append(rs.byKeyword, nil)
			}
			rs.byKeyword[n] = append(rs.byKeyword[n], len(rs.rules))
		}
		rs.rules = append(rs.rules, r)
	}
	rs.keywords = match.New(needles, true)
	return rs, nil
}

// describe shortens a description to what was found.
func describe(s string) string {
	s, _, _ = strings.Cut(s, ",")
	return strings.TrimSuffix(s, ".")
}

func newAllow(t tomlAllow) *allow {
	all := strings.EqualFold(t.Condition, "AND") || t.Condition == "&&"
	// Nothing has a path here: what is allowed in some files only is not allowed.
	if len(t.Regexes)+len(t.StopWords) == 0 || all && len(t.Paths) > 0 {
		return nil
	}
	a := &allow{all: all, target: t.RegexTarget}
	a.exprs = sync.OnceValue(func() []*regexp.Regexp {
		var exprs []*regexp.Regexp
		for _, e := range t.Regexes {
			exprs = append(exprs, regexp.MustCompile(e))
		}
		return exprs
	})
	for _, w := range t.StopWords {
		a.words = append(a.words, strings.ToLower(w))
	}
	return a
}

func (a *allow) allows(secret, whole, line []byte) bool {
	target := secret
	switch a.target {
	case "match":
		target = whole
	case "line":
		target = line
	}
	exprs := a.exprs()
	byExpr := slices.ContainsFunc(exprs, func(e *regexp.Regexp) bool { return e.Match(target) })
	lower := strings.ToLower(string(secret))
	byWord := slices.ContainsFunc(a.words, func(w string) bool { return strings.Contains(lower, w) })
	if a.all {
		return (len(exprs) == 0 || byExpr) && (len(a.words) == 0 || byWord)
	}
	return byExpr || byWord
}

// maxMatches bounds how many places of one window are judged.
const maxMatches = 50

// find returns where the rule sees secrets in a text.
func (r *rule) find(rs *ruleSet, text []byte) [][2]int {
	var spans [][2]int
	for _, m := range r.expr().FindAllSubmatchIndex(text, maxMatches) {
		start, end := m[0], m[1]
		switch {
		case r.group > 0 && 2*r.group+1 < len(m):
			start, end = m[2*r.group], m[2*r.group+1]
		case r.group == 0:
			for i := 2; i+1 < len(m); i += 2 {
				if m[i] >= 0 && m[i+1] > m[i] {
					start, end = m[i], m[i+1]
					break
				}
			}
		}
		if start < 0 || r.entropy > 0 && entropy(text[start:end]) <= r.entropy {
			continue
		}
		line := lineAround(text, m[0], m[1])
		allowed := func(a *allow) bool { return a.allows(text[start:end], text[m[0]:m[1]], line) }
		if !slices.ContainsFunc(r.allow, allowed) && !slices.ContainsFunc(rs.global, allowed) {
			spans = append(spans, [2]int{start, end})
		}
	}
	return spans
}

// seen returns where in a text the keywords of which rules are.
func (rs *ruleSet) seen(text []byte) map[int]keywordsAt {
	var seen map[int]keywordsAt
	var st match.State
	for i, c := range text {
		st = rs.keywords.Step(st, c)
		for _, needle := range rs.keywords.Found(st) {
			if seen == nil {
				seen = map[int]keywordsAt{}
			}
			for _, rule := range rs.byKeyword[needle] {
				k, ok := seen[rule]
				if k.last = i; !ok {
					k.first = i
				}
				seen[rule] = k
			}
		}
	}
	return seen
}

// spans returns where any rule sees secrets in a text.
func (rs *ruleSet) spans(text []byte) [][2]int {
	var spans [][2]int
	for rule := range rs.seen(text) {
		spans = append(spans, rs.rules[rule].find(rs, text)...)
	}
	return spans
}

func lineAround(text []byte, start, end int) []byte {
	for start > 0 && text[start-1] != '\n' {
		start--
	}
	for end < len(text) && text[end] != '\n' {
		end++
	}
	return text[start:end]
}

// entropy is Shannon's, in bits per byte.
func entropy(b []byte) float64 {
	var counts [256]int
	for _, c := range b {
		counts[c]++
	}
	var sum float64
	for _, n := range counts {
		if n > 0 {
			p := float64(n) / float64(len(b))
			sum -= p * math.Log2(p)
		}
	}
	return sum
}

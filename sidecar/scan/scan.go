// Package scan looks for secrets in what leaves a bottle.
//
// Two things are looked for: the exact values that the bottle holds, in every form
// that [secrets.Forms] lists and through any mixture of percent encoding; and what
// the rules of gitleaks take for a secret, in plain text, percent-encoded, in base64
// and in hexadecimal. Bodies are scanned as they stream, decompressed if they say that
// they are compressed.
//
// # Promises
//
//   - Nothing is buffered but a window; memory is bounded whatever is sent.
//   - What a finding is in is not forwarded; of a known value at most the first five
//     bytes are forwarded before it is recognised. Of what a rule finds, the part that
//     came in earlier reads is.
//   - A finding never holds the secret.
//
// It does not find what is encrypted, encoded in a way of the agent's own, or spread
// over several requests: a scan stops accidents and known credentials, not a
// determined sender.
package scan

import (
	"fmt"
	"slices"

	"github.com/bottle-run/bottle/sidecar/config"
	"github.com/bottle-run/bottle/sidecar/internal/match"
	"github.com/bottle-run/bottle/sidecar/policy"
	"github.com/bottle-run/bottle/sidecar/secrets"
)

// Finding says what was found. It does not hold the secret.
type Finding struct {
	// Rule is "canary:NAME" for a known value and "secret:ID" for a rule of gitleaks,
	// "encoding" for a body that cannot be read.
	Rule string
	// Reason is a sentence for the reader of a denial.
	Reason string
}

func (f *Finding) Error() string { return f.Rule + ": " + f.Reason }

// What a scan is told is declared where configurations are, so that who writes one need
// not import the rules.
type (
	// Options say what is looked for.
	Options = config.Scan
	// Exemption says what is let through.
	Exemption = config.Exemption
)

// DefaultDisabled are the rules that take ordinary requests for secrets: words such as
// "key" or "token" before something random, the tokens that services hand out to be
// sent back to them, and examples of curl commands.
var DefaultDisabled = []string{"generic-api-key", "jwt", "jwt-base64", "curl-auth-header", "curl-auth-user"}

// Scanner looks for secrets. It is immutable.
type Scanner struct {
	rules    *ruleSet
	known    []known
	values   *match.Automaton // known values in the text without percent encoding
	hexes    *match.Automaton // the same in hexadecimal, in either case
	owner    []int            // of the needles of values
	hexOwner []int
	exempt   []exemption
}

type known struct {
	name  string
	value string
	hosts []policy.HostPattern
}

type exemption struct {
	host  policy.HostPattern
	rules []string
}

// New makes a scanner for rules and for the values of a set.
func New(o Options, set secrets.Set) (*Scanner, error) {
	s := &Scanner{}
	for i, e := range o.Exempt {
		host, err := policy.ParseHostPattern(e.Host)
		if err != nil {
			return nil, &policy.FieldError{Path: fmt.Sprintf("exempt[%d].host", i), Err: err}
		}
		s.exempt = append(s.exempt, exemption{host: host, rules: e.Rules})
	}
	disabled := o.Disable
	if disabled == nil {
		disabled = DefaultDisabled
	}
	if !o.Off {
		rules, err := newRuleSet(disabled)
		if err != nil {
			return nil, err
		}
		s.rules = rules
	}
	if err := s.learn(set); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *Scanner) learn(set secrets.Set) error {
	var values, hexes [][]byte
	for _, name := range set.Names() {
		secret := set[name]
		k := known{name: name, value: string(secret.Value)}
		for i, h := range secret.Hosts {
			p, err := policy.ParseHostPattern(h)
			if err != nil {
				return &policy.FieldError{Path: fmt.Sprintf("secrets.%s.hosts[%d]", name, i), Err: err}
			}
			k.hosts = append(k.hosts, p)
		}
		for _, form := range secrets.Forms(secret.Value) {
			// The text is searched normalised, so that is what is searched for.
			n := &normaliser{}
			values = append(values, n.all(form))
			s.owner = append(s.owner, len(s.known))
		}
		if len(k.value) >= secrets.MinLength {
			hexes = append(hexes, fmt.Appendf(nil, "%x", k.value))
			s.hexOwner = append(s.hexOwner, len(s.known))
		}
		s.known = append(s.known, k)
	}
	s.values, s.hexes = match.New(values, false), match.New(hexes, true)
	return nil
}

// may reports whether a known value may go to a host.
func (k *known) may(host string) bool {
	return slices.ContainsFunc(k.hosts, func(p policy.HostPattern) bool { return p.Match(host) })
}

func (k *known) finding(host string) *Finding {
	return &Finding{
		Rule:   "canary:" + k.name,
		Reason: fmt.Sprintf("the request holds the secret %s, which may not go to %s", k.name, host),
	}
}

func (s *Scanner) exempted(host, rule string) bool {
	return slices.ContainsFunc(s.exempt, func(e exemption) bool {
		return e.host.Match(host) && (len(e.rules) == 0 || slices.Contains(e.rules, rule))
	})
}

// Text scans a text that is at hand as a whole, such as a URL or a header, on its way to
// a host in canonical form. It returns nil if nothing is found.
func (s *Scanner) Text(host string, text string) *Finding {
	st := s.Stream(host)
	_, f := st.Feed([]byte(text))
	return f
}

// Mask returns a text with known values, and what rules find in it, replaced by
// asterisks: for logs. Host is where the text was going.
func (s *Scanner) Mask(m *secrets.Masker, text string) string {
	text = m.String(text)
	if s.rules == nil {
		return text
	}
	for _, span := range s.rules.spans([]byte(text)) {
		b := []byte(text)
		for i := span[0]; i < span[1]; i++ {
			b[i] = '*'
		}
		text = string(b)
	}
	return text
}

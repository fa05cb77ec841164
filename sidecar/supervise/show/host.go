package show

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"unicode"

	"golang.org/x/net/idna"
	"golang.org/x/net/publicsuffix"
)

// Host is a host, or a pattern of hosts, as an operator is shown it.
type Host struct {
	// Text is the name in ASCII, with the Unicode that it stands for beside it.
	Text string `json:"text"`
	// Owner is the part of the name that somebody has registered, and can make names
	// below of. Empty for an address, and for a name without one.
	Owner string `json:"owner,omitempty"`
	// Warnings say what an eye would miss.
	Warnings []string `json:"warnings,omitempty"`
}

// NewHost looks at a host or pattern in the canonical form of package policy. Known are
// others, which it might be taken for.
func NewHost(pattern string, known []string) Host {
	name, wildcard := strings.CutPrefix(pattern, "*.")
	h := Host{Text: Line(pattern)}
	warn := func(format string, args ...any) { h.Warnings = append(h.Warnings, fmt.Sprintf(format, args...)) }
	if pattern == "*" {
		warn("WILDCARD: it stands for every host")
		return h
	}
	if addr, err := netip.ParseAddr(name); err == nil {
		warn("it is an address: whose it is cannot be told from it, and may change")
		_ = addr
		return h
	}
	suffix, icann := publicsuffix.PublicSuffix(name)
	h.Owner, _ = publicsuffix.EffectiveTLDPlusOne(name)
	if h.Owner == "" && (icann || strings.Contains(suffix, ".")) {
		h.Owner = name
		if wildcard {
			warn("anybody can get a name below %s", name)
		} else {
			warn("%s is a suffix that is shared by many owners", name)
		}
	}
	if wildcard {
		warn("WILDCARD: it stands for every name below %s, at any depth, those that do not exist yet too", name)
	}
	unicodeName := name
	if strings.Contains(name, "xn--") {
		if u, err := idna.Punycode.ToUnicode(name); err == nil && u != name {
			unicodeName = u
			h.Text += " (" + Line(u) + ")"
		}
		warn("it is not plain ASCII: what it looks like is not what decides")
	}
	for label := range strings.SplitSeq(unicodeName, ".") {
		if ascii(label) {
			continue
		}
		if scripts := scriptsOf(label); mixed(scripts) {
			warn("the label %s mixes the scripts %s", Line(label), strings.Join(scripts, " and "))
		}
	}
	if s := skeleton(unicodeName); s != unicodeName && ascii(s) && !ascii(unicodeName) {
		warn("it looks like %s, and is another host", s)
	}
	h.Warnings = append(h.Warnings, alike(name, unicodeName, h.Owner, known)...)
	return h
}

// alike compares a name with known ones.
func alike(name, unicodeName, owner string, known []string) []string {
	var warnings []string
	seen := map[string]bool{name: true, owner: true}
	for _, k := range known {
		k = strings.TrimPrefix(k, "*.")
		if _, err := netip.ParseAddr(k); err == nil || k == "*" || k == "" || seen[k] {
			continue
		}
		seen[k] = true
		site, err := publicsuffix.EffectiveTLDPlusOne(k)
		if err != nil {
			site = k
		}
		if site == owner {
			continue
		}
		switch {
		case tight(skeleton(unicodeName)) == tight(skeleton(k)), owner != "" && tight(skeleton(unicodeOf(owner))) == tight(skeleton(unicodeOf(site))):
			warnings = append(warnings, fmt.Sprintf("it looks like %s, which the policy names, and is another host", Line(k)))
		case strings.HasPrefix(name, k+".") || strings.HasPrefix(name, k+"-") || strings.Contains(name, "."+k+"."):
			warnings = append(warnings, fmt.Sprintf("it holds the name %s, which the policy names, but belongs to %s", Line(k), orName(owner, name)))
		case owner != "" && len(site) > 5 && distance(owner, site) == 1:
			warnings = append(warnings, fmt.Sprintf("%s differs by one character from %s, which the policy names", owner, Line(site)))
		}
	}
	slices.Sort(warnings)
	return slices.Compact(warnings)
}

func orName(owner, name string) string {
	if owner != "" {
		return owner
	}
	return name
}

func unicodeOf(name string) string {
	if u, err := idna.Punycode.ToUnicode(name); err == nil {
		return u
	}
	return name
}

func ascii(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r >= 0x80 }) < 0
}

// scriptsOf returns the scripts of a label's letters, sorted.
func scriptsOf(label string) []string {
	var scripts []string
	for _, r := range label {
		if !unicode.IsLetter(r) {
			continue
		}
		for name, table := range unicode.Scripts {
			if name != "Common" && name != "Inherited" && unicode.Is(table, r) && !slices.Contains(scripts, name) {
				scripts = append(scripts, name)
			}
		}
	}
	slices.Sort(scripts)
	return scripts
}

// mixed reports whether scripts do not belong together in one word. Japanese, Korean and
// Chinese names mix some (UTS 39, section 5.1).
func mixed(scripts []string) bool {
	if len(scripts) < 2 {
		return false
	}
	for _, together := range [][]string{{"Han", "Hiragana", "Katakana", "Latin"}, {"Han", "Hangul", "Latin"}, {"Han", "Bopomofo", "Latin"}} {
		if !slices.ContainsFunc(scripts, func(s string) bool { return !slices.Contains(together, s) }) {
			return false
		}
	}
	return true
}

// lookalikes are letters that are taken for those of ASCII, in lower case, as UTS 39 has
// them and fonts draw them.
var lookalikes = func() map[rune]string {
	m := map[rune]string{}
	for to, from := range map[string]string{
		"a": "аαɑạàáâãäåāăą", "b": "ЬьƅЪ", "c": "сϲᴄⅽçćĉċč", "d": "ԁɗⅾďđ", "e": "еєҽèéêëēĕėęěẹ", "f": "ƒſẝϝ",
		"g": "ɡցğĝġģ", "h": "һհĥħ", "i": "іιıɩìíîïĩīĭįⅰị", "j": "јϳĵ", "k": "κкķĸ", "l": "ӏⅼℓĺļľŀłǀןІ",
		"m": "мⅿṃ", "n": "ոռпñńņňŉṇ", "o": "оοօσ๐໐ᴏòóôõöøōŏőọ", "p": "рρϼ", "q": "ԛզգ", "r": "гᴦŕŗř", "s": "ѕꜱśŝşš",
		"t": "тτţťŧ", "u": "υսᴜùúûüũūŭůűųụ", "v": "νѵᴠⅴ", "w": "ԝաɯωѡŵ", "x": "хχⅹ×", "y": "уγүỿýÿŷ", "z": "ᴢźżž", "-": "‐‑‒–—−ー",
	} {
		for _, r := range from {
			m[r] = to
		}
	}
	return m
}()

// skeleton is what a name is taken for.
func skeleton(name string) string {
	var b strings.Builder
	for _, r := range name {
		if to, ok := lookalikes[r]; ok {
			b.WriteString(to)
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

// tight also takes for one what ASCII itself has of look-alikes.
func tight(s string) string {
	return strings.NewReplacer("rn", "m", "vv", "w", "cl", "d", "0", "o", "1", "l", "i", "l", "5", "s", "-", "").Replace(s)
}

// distance is how many insertions, deletions, replacements or swaps of neighbours turn one
// name into another, for names that are short.
func distance(a, b string) int {
	if len(a)-len(b) > 1 || len(b)-len(a) > 1 {
		return 2
	}
	i := 0
	for i < len(a) && i < len(b) && a[i] == b[i] {
		i++
	}
	j := 0
	for j < len(a)-i && j < len(b)-i && a[len(a)-1-j] == b[len(b)-1-j] {
		j++
	}
	x, y := a[i:len(a)-j], b[i:len(b)-j]
	switch {
	case x == "" && y == "":
		return 0
	case len(x) <= 1 && len(y) <= 1, len(x) == 2 && len(y) == 2 && x[0] == y[1] && x[1] == y[0]:
		return 1
	}
	return 2
}

package policy

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"golang.org/x/net/idna"
)

// maxHost is the longest name that DNS can carry, in bytes.
const maxHost = 253

// lookup is UTS 46 processing as browsers do it for a name that is to be resolved.
var lookup = idna.New(
	idna.MapForLookup(),
	idna.BidiRule(),
	idna.Transitional(false),
	idna.CheckHyphens(false),
	idna.StrictDomainName(false),
)

// CanonicalHost brings the host of a request into its one canonical form: a lower
// case ASCII name without a trailing dot, an IPv4 address as a dotted quad, or an
// IPv6 address as RFC 5952 writes it, without brackets. IPv4-mapped addresses become
// the IPv4 address that they stand for.
//
// Whatever else an IP address can be written as (decimal, octal, hexadecimal, fewer
// than four parts, with a zone) is refused, as are names that are not ASCII,
// A-labels that are not what IDNA would have made, and empty labels.
func CanonicalHost(s string) (string, error) {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] >= 0x7f {
			return "", fmt.Errorf("host %q holds a character that is not printable ASCII", s)
		}
	}
	return canonicalHost(s)
}

// canonicalConfigHost is [CanonicalHost] for what an operator writes: Unicode is
// converted to its A-label.
func canonicalConfigHost(s string) (string, error) {
	if isASCII(s) {
		return CanonicalHost(s)
	}
	a, err := lookup.ToASCII(s)
	if err != nil {
		return "", fmt.Errorf("host %q is not a valid internationalised name: %w", s, err)
	}
	return canonicalHost(a)
}

func canonicalHost(s string) (string, error) {
	if s == "" {
		return "", errors.New("the host is empty")
	}
	if s[0] == '[' {
		if s[len(s)-1] != ']' {
			return "", fmt.Errorf("host %q has no closing bracket", s)
		}
		addr, err := netip.ParseAddr(s[1 : len(s)-1])
		if err != nil || !addr.Is6() {
			return "", fmt.Errorf("host %q is not an IPv6 address", s)
		}
		return canonicalAddr(addr)
	}
	if strings.Contains(s, ":") {
		addr, err := netip.ParseAddr(s)
		if err != nil {
			return "", fmt.Errorf("host %q is not an IPv6 address", s)
		}
		return canonicalAddr(addr)
	}
	name := strings.ToLower(strings.TrimSuffix(s, "."))
	if name == "" || len(name) > maxHost {
		return "", fmt.Errorf("host %q is empty or longer than %d bytes", s, maxHost)
	}
	labels := strings.Split(name, ".")
	if looksNumeric(labels[len(labels)-1]) {
		addr, err := netip.ParseAddr(name)
		if err != nil {
			return "", fmt.Errorf("host %q is an IP address in a form other than the dotted quad", s)
		}
		return canonicalAddr(addr)
	}
	for _, label := range labels {
		if err := checkLabel(label); err != nil {
			return "", fmt.Errorf("host %q: %w", s, err)
		}
	}
	if strings.Contains(name, "xn--") {
		if err := checkPunycode(name); err != nil {
			return "", fmt.Errorf("host %q: %w", s, err)
		}
	}
	return name, nil
}

func canonicalAddr(addr netip.Addr) (string, error) {
	if addr.Zone() != "" {
		return "", fmt.Errorf("address %s has a zone", addr)
	}
	return addr.Unmap().String(), nil
}

// looksNumeric reports whether resolvers that follow inet_aton, or the URL standard,
// would take a name that ends in the label for an IPv4 address.
func looksNumeric(label string) bool {
	digits := strings.TrimPrefix(label, "0x")
	if digits != label {
		return strings.Trim(digits, "0123456789abcdef") == ""
	}
	return strings.Trim(label, "0123456789") == ""
}

func checkLabel(label string) error {
	if label == "" || len(label) > 63 {
		return errors.New("a label is empty or longer than 63 bytes")
	}
	if label[0] == '-' || label[len(label)-1] == '-' {
		return fmt.Errorf("label %q begins or ends with a hyphen", label)
	}
	for i := range len(label) {
		switch c := label[i]; {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '-', c == '_':
		default:
			return fmt.Errorf("label %q holds %q", label, c)
		}
	}
	return nil
}

// checkPunycode refuses A-labels that decode to nothing that IDNA would encode the
// same way: two names that look different must not be one.
func checkPunycode(name string) error {
	u, err := lookup.ToUnicode(name)
	if err != nil {
		return fmt.Errorf("the punycode is invalid: %w", err)
	}
	for label := range strings.SplitSeq(u, ".") {
		if strings.HasPrefix(label, "xn--") {
			return errors.New("the punycode is invalid")
		}
	}
	a, err := lookup.ToASCII(u)
	if err != nil || a != name {
		return errors.New("the punycode is not in its canonical form")
	}
	return nil
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

// ParseAuthority splits HOST, HOST:PORT or [IPV6]:PORT and canonicalises the host.
// Without a port it is defaultPort; zero means that a port must be given. User
// information is refused.
func ParseAuthority(s string, defaultPort uint16) (host string, port uint16, err error) {
	if strings.Contains(s, "@") {
		return "", 0, errors.New("the authority holds user information")
	}
	var name, number string
	var hasPort bool
	switch {
	case strings.HasPrefix(s, "["):
		end := strings.IndexByte(s, ']')
		if end < 0 {
			return "", 0, fmt.Errorf("authority %q has no closing bracket", s)
		}
		name = s[:end+1]
		if rest := s[end+1:]; rest != "" {
			if rest[0] != ':' {
				return "", 0, fmt.Errorf("authority %q is malformed", s)
			}
			number, hasPort = rest[1:], true
		}
	default:
		name, number, hasPort = strings.Cut(s, ":")
		if strings.Contains(number, ":") {
			return "", 0, fmt.Errorf("authority %q holds more than one colon: an IPv6 address needs brackets", s)
		}
	}
	if host, err = CanonicalHost(name); err != nil {
		return "", 0, err
	}
	if !hasPort {
		if defaultPort == 0 {
			return "", 0, fmt.Errorf("authority %q has no port", s)
		}
		return host, defaultPort, nil
	}
	port, err = parsePort(number)
	return host, port, err
}

func parsePort(s string) (uint16, error) {
	if s == "" || len(s) > 5 || strings.Trim(s, "0123456789") != "" || s[0] == '0' {
		return 0, fmt.Errorf("port %q is not a number between 1 and 65535", s)
	}
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil {
		return 0, fmt.Errorf("port %q is not a number between 1 and 65535", s)
	}
	return uint16(n), nil
}

// JoinHostPort writes an authority: with brackets around an IPv6 address, and without
// the port if it is zero.
func JoinHostPort(host string, port uint16) string {
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	if port == 0 {
		return host
	}
	return host + ":" + strconv.Itoa(int(port))
}

// DefaultPort is the port of a scheme: 443 for https, 80 otherwise.
func DefaultPort(scheme string) uint16 {
	if scheme == "https" {
		return 443
	}
	return 80
}

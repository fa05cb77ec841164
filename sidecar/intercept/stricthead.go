package intercept

import (
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
)

// head is what of a request's head decides how it is framed and where it goes.
type head struct {
	method, target string
	http10         bool
	hosts          []string
	lengths        []string
	encodings      []string
	connection     []string
	upgrade        bool
}

func (c *strictConn) parseHead() (bool, error) {
	// Parsers differ in how many of these they skip.
	if len(c.in) >= 2 && c.in[0] == '\r' && c.in[1] == '\n' {
		return false, errors.New("an empty line stands where a request should begin")
	}
	lines, n, err := c.fields("head of the request")
	if err != nil || n == 0 {
		return false, err
	}
	h, err := readHead(lines)
	if err != nil {
		return false, err
	}
	if err := h.checkHost(); err != nil {
		return false, err
	}
	if c.state, c.remaining, err = h.framing(); err != nil {
		c.state = inHead
		return false, err
	}
	if c.state == inTunnel {
		c.opened.Store(true)
	}
	c.pass(n)
	return true, nil
}

func readHead(lines []string) (*head, error) {
	method, rest, ok := strings.Cut(lines[0], " ")
	target, version, ok2 := strings.Cut(rest, " ")
	if !ok || !ok2 || method == "" || target == "" {
		return nil, errors.New("the first line is no request line")
	}
	for i := range len(method) {
		if !tokenChar(method[i]) {
			return nil, errors.New("the method holds a character that it may not hold")
		}
	}
	for i := range len(target) {
		if target[i] <= ' ' || target[i] == 0x7f {
			return nil, errors.New("the request target holds a control character")
		}
	}
	if method != "CONNECT" {
		// net/http would answer by itself, in words of its own and without a record.
		if _, err := url.ParseRequestURI(target); err != nil {
			return nil, errors.New("the request target holds a malformed percent escape or is no URL")
		}
	}
	h := &head{method: method, target: target}
	switch version {
	case "HTTP/1.1":
	case "HTTP/1.0":
		h.http10 = true
	default:
		return nil, errors.New("the version is neither HTTP/1.1 nor HTTP/1.0")
	}
	for _, line := range lines[1:] {
		name, value, err := field(line)
		if err != nil {
			return nil, err
		}
		switch strings.ToLower(name) {
		case "host":
			h.hosts = append(h.hosts, value)
		case "content-length":
			h.lengths = append(h.lengths, value)
		case "transfer-encoding":
			h.encodings = append(h.encodings, value)
		case "connection":
			h.connection = append(h.connection, strings.ToLower(value))
		case "upgrade":
			h.upgrade = h.upgrade || strings.EqualFold(value, "websocket")
		}
		// Servers behind gateways take underscores for hyphens.
		switch strings.ReplaceAll(strings.ToLower(name), "_", "-") {
		case "content-length", "transfer-encoding", "host":
			if strings.Contains(name, "_") {
				return nil, fmt.Errorf("the header %s may be taken for another", name)
			}
		}
	}
	return h, nil
}

// checkHost holds the Host header against the target. net/http takes the target's word
// and forgets the header.
func (h *head) checkHost() error {
	if len(h.hosts) > 1 {
		return errors.New("there is more than one Host header")
	}
	if len(h.hosts) == 0 && !h.http10 {
		return errors.New("there is no Host header")
	}
	for _, host := range h.hosts {
		if strings.ContainsFunc(host, func(r rune) bool { return r <= ' ' || r >= 0x7f || strings.ContainsRune("@/?#\\\"<>^`{|},;", r) }) {
			return errors.New("the Host header holds a character that no host has")
		}
	}
	authority := ""
	switch {
	case h.method == "CONNECT":
		authority = h.target
	case strings.HasPrefix(h.target, "/"), h.target == "*":
		return nil
	default:
		scheme, rest, ok := strings.Cut(h.target, "://")
		if !ok || !strings.EqualFold(scheme, "http") && !strings.EqualFold(scheme, "https") {
			return errors.New("the request target is neither a path nor an http or https URL")
		}
		authority = rest
		if i := strings.IndexAny(rest, "/?#"); i >= 0 {
			authority = rest[:i]
		}
	}
	if len(h.hosts) == 1 && !strings.EqualFold(withoutPort(h.hosts[0]), withoutPort(authority)) {
		return fmt.Errorf("the Host header is %q, but the request target says %q", h.hosts[0], authority)
	}
	return nil
}

// withoutPort takes the port off an authority: clients differ in whether Host repeats
// it. What remains is compared as it is written; the handler judges the canonical form.
func withoutPort(s string) string {
	if i := strings.LastIndexByte(s, ':'); i >= 0 && !strings.HasSuffix(s, "]") && strings.Trim(s[i+1:], "0123456789") == "" {
		return s[:i]
	}
	return s
}

// framing says what follows the head.
func (h *head) framing() (parseState, int64, error) {
	if len(h.lengths) > 1 {
		return 0, 0, errors.New("there is more than one Content-Length")
	}
	if len(h.encodings) > 1 {
		return 0, 0, errors.New("there is more than one Transfer-Encoding")
	}
	if len(h.lengths) > 0 && len(h.encodings) > 0 {
		return 0, 0, errors.New("there are both Content-Length and Transfer-Encoding")
	}
	for _, c := range h.connection {
		for option := range strings.SplitSeq(c, ",") {
			switch strings.TrimSpace(option) {
			case "content-length", "transfer-encoding", "host":
				return 0, 0, fmt.Errorf("Connection names %s, so that the next hop would drop it", strings.TrimSpace(option)) //nolint:staticcheck // a header's name
			}
		}
	}
	if len(h.encodings) == 1 {
		if h.http10 || h.method == "CONNECT" || h.upgrade || !strings.EqualFold(h.encodings[0], "chunked") {
			return 0, 0, fmt.Errorf("Transfer-Encoding %q cannot be used here", h.encodings[0])
		}
		return inChunkSize, 0, nil
	}
	var length int64
	if len(h.lengths) == 1 {
		s := h.lengths[0]
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil || strings.Trim(s, "0123456789") != "" {
			return 0, 0, fmt.Errorf("Content-Length %q is no number", s)
		}
		length = n
	}
	switch {
	case h.method == "CONNECT" || h.upgrade:
		if length > 0 {
			return 0, 0, errors.New("a request for a tunnel has a body")
		}
		return inTunnel, 0, nil
	case length > 0:
		return inFixed, length, nil
	}
	return inHead, 0, nil
}

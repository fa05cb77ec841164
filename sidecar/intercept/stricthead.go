package intercept

import (
	"context"
	"net/http"
	"net/textproto"
	"net/url"
	"strconv"
	"strings"
)

// head is the head of a request.
type head struct {
	method, target, proto string
	url                   *url.URL
	header                http.Header // without Host, Transfer-Encoding and Trailer
	host                  string      // of the Host header
	hosts                 int
	http10                bool
	upgrade               bool // to WebSocket
	lengths, encodings    []string
	trailers              []string

	// What follows from it.
	state   parseState // what comes next
	length  int64      // of the body, -1 if it is chunked
	trailer http.Header
	close   bool // the connection is not to be kept
}

// readHead reads the lines of a head. It is the judge of one field at a time.
func readHead(block string) (*head, error) {
	first, rest, _ := strings.Cut(block, "\r\n")
	h := &head{}
	var version string
	method, after, ok := strings.Cut(first, " ")
	target, version, ok2 := strings.Cut(after, " ")
	if !ok || !ok2 || method == "" || target == "" {
		return nil, &violation{"the first line is no request line"}
	}
	for i := range len(method) {
		if !tokens[method[i]] {
			return nil, &violation{"the method holds a character that it may not hold"}
		}
	}
	for i := range len(target) {
		if target[i] <= ' ' || target[i] == 0x7f {
			return nil, &violation{"the request target holds a control character"}
		}
	}
	h.method, h.target, h.proto = method, target, version
	switch version {
	case "HTTP/1.1":
	case "HTTP/1.0":
		h.http10 = true
	default:
		return nil, &violation{"the version is neither HTTP/1.1 nor HTTP/1.0"}
	}
	var err error
	if method == http.MethodConnect {
		h.url = &url.URL{Host: target}
	} else if h.url, err = url.ParseRequestURI(target); err != nil {
		return nil, &violation{"the request target holds a malformed percent escape or is no URL"}
	}
	return h, h.readFields(rest)
}

func (h *head) readFields(lines string) error {
	if lines == "" {
		h.header = http.Header{}
		return nil
	}
	n := strings.Count(lines, "\r\n") + 1
	if n >= maxFields {
		return violatef("the head of the request has more than %d fields", maxFields)
	}
	h.header = make(http.Header, n)
	values := make([]string, 0, n) // what most fields have one of, in one piece
	for line := range strings.SplitSeq(lines, "\r\n") {
		name, value, err := field(line)
		if err != nil {
			return err
		}
		key := textproto.CanonicalMIMEHeaderKey(name)
		switch key {
		case "Host":
			h.hosts++
			h.host = value
			continue
		case "Content-Length":
			h.lengths = append(h.lengths, value)
		case "Transfer-Encoding":
			h.encodings = append(h.encodings, value)
			continue
		case "Trailer":
			h.trailers = append(h.trailers, value)
			continue
		case "Expect":
			if !strings.EqualFold(value, "100-continue") {
				return violatef("nobody knows what Expect: %q means", value)
			}
		case "Upgrade":
			h.upgrade = h.upgrade || strings.EqualFold(value, "websocket")
		}
		if strings.IndexByte(name, '_') >= 0 {
			// Servers behind gateways take underscores for hyphens.
			switch strings.ReplaceAll(strings.ToLower(name), "_", "-") {
			case "content-length", "transfer-encoding", "host":
				return violatef("the header %s may be taken for another", name)
			}
		}
		if before, ok := h.header[key]; ok {
			h.header[key] = append(before, value)
			continue
		}
		values = append(values, value)
		h.header[key] = values[len(values)-1 : len(values) : len(values)]
	}
	return nil
}

// checkHost holds the Host header against the target.
func (h *head) checkHost() error {
	if h.hosts > 1 {
		return &violation{"there is more than one Host header"}
	}
	if h.hosts == 0 && !h.http10 {
		return &violation{"there is no Host header"}
	}
	for i := range len(h.host) {
		if b := h.host[i]; b <= ' ' || b >= 0x7f || strings.IndexByte("@/?#\\\"<>^`{|},;", b) >= 0 {
			return &violation{"the Host header holds a character that no host has"}
		}
	}
	authority := ""
	switch {
	case h.method == http.MethodConnect:
		authority = h.target
	case h.target[0] == '/', h.target == "*":
		return nil
	default:
		scheme, rest, ok := strings.Cut(h.target, "://")
		if !ok || !strings.EqualFold(scheme, "http") && !strings.EqualFold(scheme, "https") {
			return &violation{"the request target is neither a path nor an http or https URL"}
		}
		authority = rest
		if i := strings.IndexAny(rest, "/?#"); i >= 0 {
			authority = rest[:i]
		}
	}
	if h.hosts == 1 && !strings.EqualFold(withoutPort(h.host), withoutPort(authority)) {
		return violatef("the Host header is %q, but the request target says %q", h.host, authority)
	}
	h.host = authority
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
func (h *head) framing() error {
	if len(h.lengths) > 1 {
		return &violation{"there is more than one Content-Length"}
	}
	if len(h.encodings) > 1 {
		return &violation{"there is more than one Transfer-Encoding"}
	}
	if len(h.lengths) > 0 && len(h.encodings) > 0 {
		return &violation{"there are both Content-Length and Transfer-Encoding"}
	}
	keep := !h.http10
	for _, c := range h.header["Connection"] {
		for option := range strings.SplitSeq(c, ",") {
			switch option = strings.ToLower(strings.TrimSpace(option)); option {
			case "content-length", "transfer-encoding", "host":
				return violatef("Connection names %s, so that the next hop would drop it", option) //nolint:staticcheck // a header's name
			case "close":
				h.close = true
			case "keep-alive":
				keep = true
			}
		}
	}
	h.close = h.close || !keep
	if len(h.encodings) == 1 {
		if h.http10 || h.method == http.MethodConnect || h.upgrade || !strings.EqualFold(h.encodings[0], "chunked") {
			return violatef("Transfer-Encoding %q cannot be used here", h.encodings[0])
		}
		h.state, h.length = inChunkSize, -1
		return h.announced()
	}
	if len(h.lengths) == 1 {
		s := h.lengths[0]
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil || strings.Trim(s, "0123456789") != "" {
			return violatef("Content-Length %q is no number", s)
		}
		h.length = n
	}
	switch {
	case h.method == http.MethodConnect || h.upgrade:
		if h.length > 0 {
			return &violation{"a request for a tunnel has a body"}
		}
		h.state = inTunnel
	case h.length > 0:
		h.state = inFixed
	}
	return nil
}

// announced takes note of the trailers that the head announces.
func (h *head) announced() error {
	for _, v := range h.trailers {
		for name := range strings.SplitSeq(v, ",") {
			switch name = textproto.CanonicalMIMEHeaderKey(strings.Trim(name, " \t")); name {
			case "":
				continue
			case "Transfer-Encoding", "Trailer", "Content-Length":
				return violatef("%s may not be a trailer", name)
			}
			if h.trailer == nil {
				h.trailer = http.Header{}
			}
			h.trailer[name] = nil
		}
	}
	return nil
}

// request makes the request that a head begins, but for its body.
func (h *head) request(ctx context.Context) *http.Request {
	r := (&http.Request{}).WithContext(ctx)
	r.Method, r.URL, r.RequestURI = h.method, h.url, h.target
	r.Proto, r.ProtoMajor, r.ProtoMinor = h.proto, 1, 1
	if h.http10 {
		r.ProtoMinor = 0
	}
	r.Header, r.Host, r.Trailer, r.Close = h.header, h.host, h.trailer, h.close
	r.ContentLength, r.Body = h.length, http.NoBody
	if h.length < 0 {
		r.TransferEncoding = []string{"chunked"}
	}
	return r
}

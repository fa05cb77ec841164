package upstream

import (
	"bufio"
	"errors"
	"fmt"
	"net/http"
	"net/textproto"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// writeRequest writes a request that has no body, as [http.Request.Write] does.
func writeRequest(bw *bufio.Writer, req *http.Request) error {
	host := req.Host
	if host == "" {
		host = req.URL.Host
	}
	if host == "" || !httpguts.ValidHostHeader(host) || strings.ContainsFunc(host, func(r rune) bool { return r > '~' }) {
		return fmt.Errorf("%q is no host", host)
	}
	target := req.URL.RequestURI()
	for i := range len(target) {
		if target[i] <= ' ' || target[i] == 0x7f {
			return errors.New("the request target holds a control character")
		}
	}
	if !httpguts.ValidHeaderFieldName(req.Method) { // the same characters
		return errors.New("the method holds a character that it may not hold")
	}
	b := append(append(bw.AvailableBuffer(), req.Method...), ' ')
	b = append(append(b, target...), " HTTP/1.1\r\nHost: "...)
	b = append(append(b, host...), "\r\n"...)
	_, _ = bw.Write(b) // errors stay until it is flushed
	if agent, ok := req.Header["User-Agent"]; !ok {
		_, _ = bw.WriteString("User-Agent: Go-http-client/1.1\r\n")
	} else if len(agent) > 0 && agent[0] != "" {
		writeField(bw, "User-Agent", agent[0])
	}
	if req.Close {
		_, _ = bw.WriteString("Connection: close\r\n")
	}
	if req.Method == http.MethodPost || req.Method == http.MethodPut || req.Method == http.MethodPatch {
		_, _ = bw.WriteString("Content-Length: 0\r\n")
	}
	for name, values := range req.Header {
		switch name {
		case "Host", "User-Agent", "Content-Length", "Transfer-Encoding", "Trailer":
			continue
		}
		if !httpguts.ValidHeaderFieldName(name) {
			continue
		}
		for _, v := range values {
			writeField(bw, name, v)
		}
	}
	_, err := bw.WriteString("\r\n")
	return err
}

// writeField writes a field. Line ends in it become spaces.
func writeField(bw *bufio.Writer, name, value string) {
	b := append(append(bw.AvailableBuffer(), name...), ": "...)
	at := len(b)
	b = append(b, textproto.TrimString(value)...)
	for i := at; i < len(b); i++ {
		if b[i] == '\n' || b[i] == '\r' {
			b[i] = ' '
		}
	}
	_, _ = bw.Write(append(b, "\r\n"...))
}

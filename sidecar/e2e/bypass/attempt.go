package bypass

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// A Case is one attempt.
type Case struct {
	Name string
	// Connect is the authority that a tunnel is asked for; empty for a request to the
	// proxy itself.
	Connect string
	// SNI is the server name of TLS in the tunnel; empty for a tunnel without TLS.
	SNI string
	// Raw is what is sent then, as it is.
	Raw []byte
	// Rule is the one that the last answer has to name.
	Rule string
}

// Outcome is how an attempt was answered.
type Outcome struct {
	Name   string
	Status int
	// Header is the rule in the X-Bottle-Denied header.
	Header string
	Body   []byte
}

// patience bounds an attempt.
const patience = time.Minute

// Attempt makes one, at a proxy's address. The outcome is that of the last request, or of
// CONNECT if that was refused. It is an error if there is no answer.
func Attempt(proxy string, c Case) (Outcome, error) {
	conn, err := net.Dial("tcp", proxy)
	if err != nil {
		return Outcome{}, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return Outcome{}, err
	}
	var rw io.ReadWriter = conn
	if c.Connect != "" {
		if _, err := fmt.Fprintf(conn, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", c.Connect, c.Connect); err != nil {
			return Outcome{}, err
		}
		// Beyond it nobody speaks first.
		resp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: http.MethodConnect})
		if err != nil {
			return Outcome{}, fmt.Errorf("CONNECT: %w", err)
		}
		if resp.StatusCode != http.StatusOK {
			return outcome(c, resp)
		}
		if c.SNI != "" {
			// The certificate is looked at elsewhere.
			rw = tls.Client(conn, &tls.Config{ServerName: c.SNI, InsecureSkipVerify: true})
		}
	}
	// The proxy may be done with it before all is written, and the answer is there.
	go func() { _, _ = rw.Write(c.Raw) }()
	var last Outcome
	br := bufio.NewReader(rw)
	for range 1 + bytes.Count(c.Raw, []byte("\r\n"+Again)) {
		resp, err := http.ReadResponse(br, nil)
		if err != nil {
			break
		}
		if last, err = outcome(c, resp); err != nil {
			return last, err
		}
	}
	if last.Status == 0 {
		return last, fmt.Errorf("there is no answer")
	}
	return last, nil
}

// Again begins a header of every request of a connection after the first.
const Again = "X-Again:"

func outcome(c Case, resp *http.Response) (Outcome, error) {
	defer resp.Body.Close()
	// A connection that is cut takes the end of a body with it.
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil && !strings.Contains(err.Error(), "unexpected EOF") {
		return Outcome{}, err
	}
	return Outcome{Name: c.Name, Status: resp.StatusCode, Header: resp.Header.Get("X-Bottle-Denied"), Body: body}, nil
}

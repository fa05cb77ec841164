package e2e

import (
	"bufio"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

// frame makes a text frame as a client sends it.
func frame(text string) []byte {
	mask := [4]byte{1, 2, 3, 4}
	b := []byte{0x81, 0x80 | 126}
	b = binary.BigEndian.AppendUint16(b, uint16(len(text)))
	b = append(b, mask[:]...)
	for i := range len(text) {
		b = append(b, text[i]^mask[i&3])
	}
	return b
}

// echoFrames is a WebSocket server that sends back what it gets, in unmasked frames.
func echoFrames(rw http.ResponseWriter, r *http.Request) {
	sum := sha1.Sum([]byte(r.Header.Get("Sec-Websocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	conn, buf, err := http.NewResponseController(rw).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: %s\r\nX-Extensions: %s\r\n\r\n",
		base64.StdEncoding.EncodeToString(sum[:]), r.Header.Get("Sec-Websocket-Extensions"))
	for {
		head := make([]byte, 8)
		if _, err := io.ReadFull(buf, head); err != nil {
			return
		}
		text := make([]byte, binary.BigEndian.Uint16(head[2:]))
		if _, err := io.ReadFull(buf, text); err != nil {
			return
		}
		for i := range text {
			text[i] ^= head[4+i&3]
		}
		if string(text) == "tell" {
			text = []byte("token: " + r.Header.Get("Authorization"))
		}
		_, _ = conn.Write(append([]byte{0x81, byte(len(text))}, text...))
	}
}

func TestWebSocket(t *testing.T) {
	w := newWorld(t)
	w.handle["/ws"], w.handle["/public/ws"] = echoFrames, echoFrames
	w.handle["/never"] = func(rw http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(rw, "no") }
	open := func(host, path string) (io.ReadWriter, *bufio.Reader, *http.Response) {
		tc := w.tls(w.tunnel(w.egress, host+":"+w.https, ""), host, "http/1.1")
		fmt.Fprintf(tc, "GET %s HTTP/1.1\r\nHost: %s:%s\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n", path, host, w.https)
		br := bufio.NewReader(tc)
		resp, err := http.ReadResponse(br, nil)
		must(t, err)
		return tc, br, resp
	}
	read := func(br *bufio.Reader) (byte, string) {
		head := make([]byte, 2)
		_, err := io.ReadFull(br, head)
		must(t, err)
		text := make([]byte, head[1])
		_, err = io.ReadFull(br, text)
		must(t, err)
		return head[0], string(text)
	}
	c, br, resp := open("allowed.test", "/ws")
	if resp.StatusCode != http.StatusSwitchingProtocols || resp.Header.Get("Sec-Websocket-Accept") != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" || resp.Header.Get("X-Extensions") != "" {
		t.Fatalf("%s %v", resp.Status, resp.Header)
	}
	for _, text := range []string{"hello", strings.Repeat("long ", 20)} {
		_, _ = c.Write(frame(text))
		if _, got := read(br); got != text {
			t.Errorf("%q came back as %q", text, got)
		}
	}
	_, _ = c.Write(frame("leaking " + canary))
	if op, got := read(br); op != 0x88 || binary.BigEndian.Uint16([]byte(got)) != 1008 {
		t.Errorf("after a secret: %x %q", op, got)
	}
	waitFor(t, func() bool { return strings.Contains(w.fwLog.String(), "canary:canary") })

	c, br, _ = open("api.test", "/public/ws")
	_, _ = c.Write(frame("tell"))
	if _, got := read(br); got != "token: Bearer "+strings.Repeat("*", len(apiToken)) {
		t.Errorf("an echo: %q", got)
	}

	_, br, resp = open("api.test", "/private/ws")
	body, _ := io.ReadAll(io.LimitReader(br, resp.ContentLength))
	teaches(t, resp, string(body), "no-route")

	// A server that does not switch: what follows on the connection is not parsed.
	w.arrived()
	c, br, resp = open("allowed.test", "/never")
	if resp.StatusCode != 200 || !resp.Close {
		t.Errorf("no switch: %s, close: %v", resp.Status, resp.Close)
	}
	fmt.Fprintf(c.(io.Writer), "GET /smuggled HTTP/1.1\r\nHost: allowed.test:%s\r\nHost: evil.test\r\n\r\n", w.https)
	_, _ = io.Copy(io.Discard, br)
	for _, s := range w.arrived() {
		if s.target != "/never" {
			t.Errorf("arrived: %+v", s)
		}
	}
}

func TestSlowClientsAndIdleOnes(t *testing.T) {
	w := newWorld(t)
	w.fw, w.ep = nil, nil
	short := func(name string, start func()) {
		data := w.read(name)
		data["limits"] = map[string]any{"header_timeout": "700ms", "idle_timeout": "700ms", "connections": 50}
		w.write(name, data)
		start()
	}
	short("fw/config.json", func() { w.startFirewall() })
	data := w.read("ep/config.json")
	data["firewall"] = w.firewall
	w.write("ep/config.json", data)
	short("ep/config.json", func() { w.restartEgress() })
	var slow []net.Conn
	for _, raw := range []string{"", "GET http://allowed.test/ HTTP/1.1\r\nHost: al", "CONNECT allowed.test:443 HTTP/1.1\r\n"} {
		c := w.dial(w.egress)
		_, _ = io.WriteString(c, raw)
		slow = append(slow, c)
	}
	slow = append(slow, w.tunnel(w.egress, "allowed.test:"+w.https, "")) // and no TLS after it
	for i, c := range slow {
		if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("the slow client %d is kept", i)
		}
	}

	w.handle["/ws"] = echoFrames
	w.handle["/hang"] = func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	w.handle["/slow"] = func(rw http.ResponseWriter, _ *http.Request) {
		for range 10 { // longer than the limit, but it moves
			_, _ = io.WriteString(rw, "x")
			rw.(http.Flusher).Flush()
			time.Sleep(100 * time.Millisecond)
		}
	}
	for _, http2 := range []bool{false, true} {
		cl := w.client(http2)
		resp, body := do(t, cl, request(t, "GET", "https://allowed.test:"+w.https+"/slow", nil))
		if resp.StatusCode != 200 || body != "xxxxxxxxxx" {
			t.Errorf("what moves was cut: %s %q", resp.Status, body)
		}
		resp, err := cl.Get("https://allowed.test:" + w.https + "/hang")
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode < 500 {
				t.Errorf("what does not move: %s", resp.Status)
			}
		}
	}
	// A WebSocket may live for longer than the limit, too, while something moves.
	tc := w.tls(w.tunnel(w.egress, "allowed.test:"+w.https, ""), "allowed.test", "http/1.1")
	fmt.Fprintf(tc, "GET /ws HTTP/1.1\r\nHost: allowed.test:%s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n", w.https)
	br := bufio.NewReader(tc)
	resp, err := http.ReadResponse(br, nil)
	must(t, err)
	if resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("%s", resp.Status)
	}
	for i := range 10 {
		_, _ = tc.Write(frame("hello"))
		got := make([]byte, 7)
		if _, err := io.ReadFull(br, got); err != nil || string(got[2:]) != "hello" {
			t.Fatalf("frame %d: %q, %v", i, got, err)
		}
		time.Sleep(100 * time.Millisecond)
	}
	if _, err := br.ReadByte(); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("a WebSocket on which nothing moves is kept")
	}
}

package main

import (
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
)

// answer is the body of a small answer: 1 KiB.
var answer = []byte(strings.Repeat("an answer of an origin server. ", 34)[:1024])

// serveOrigin serves TLS on a free port of 127.0.0.1, whose address it prints, and on the
// same port of 127.0.0.2, until it is killed. /bytes/N
// answers with that many bytes, everything else with a small answer.
func serveOrigin(cert, key string) error {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	_, port, err := net.SplitHostPort(ln.Addr().String())
	if err != nil {
		return err
	}
	other, err := net.Listen("tcp", net.JoinHostPort("127.0.0.2", port))
	if err != nil {
		return err
	}
	fmt.Println(ln.Addr())
	block := make([]byte, 256<<10)
	for i := range block {
		block[i] = "0123456789abcdef \n"[i*7%18]
	}
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		size, ok := strings.CutPrefix(r.URL.Path, "/bytes/")
		if !ok {
			w.Header().Set("Content-Type", "text/plain")
			w.Header().Set("Content-Length", strconv.Itoa(len(answer)))
			_, _ = w.Write(answer)
			return
		}
		left, err := strconv.ParseInt(size, 10, 64)
		if err != nil {
			http.Error(w, "no number", http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Header().Set("Content-Length", size)
		for left > 0 {
			n, err := w.Write(block[:min(left, int64(len(block)))])
			if err != nil {
				return // the client is gone
			}
			left -= int64(n)
		}
	})
	ended := make(chan error, 2)
	for _, l := range []net.Listener{ln, other} {
		go func() { ended <- http.ServeTLS(l, handler, cert, key) }()
	}
	return <-ended
}

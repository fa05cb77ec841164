package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// attack does to the supervise sidecar what a hostile agent would: it looks for ports, here
// and at the addresses of others, guesses what an operator's end points would be called, sends
// huge bodies, holds connections, and proposes as much as it can. It says what came of it.
func attack(neighbours []string) int {
	const host = "supervise"
	fmt.Println("open ports:", openPorts(host))
	for _, n := range neighbours {
		conn, err := net.DialTimeout("tcp", n, 3*time.Second)
		if err == nil {
			_ = conn.Close()
			fmt.Println("REACHED", n)
			continue
		}
		fmt.Println("not reached:", n)
	}
	client := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{}}
	base := "http://" + host + ":9100/"
	statuses := map[int]int{}
	var seen strings.Builder
	send := func(method, path string, body io.Reader) {
		req, err := http.NewRequest(method, base+path, body)
		if err != nil {
			return
		}
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Accept", "application/json, text/event-stream")
		resp, err := client.Do(req)
		if err != nil {
			statuses[0]++
			return
		}
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
		_ = resp.Body.Close()
		seen.Write(text)
		statuses[resp.StatusCode]++
	}
	for _, path := range []string{
		"proposals", "proposals/p1", "proposals/p1/approve", "proposals/p1/finish", "proposals/watch", "put", "reload", "policy", "health",
		"..%2fproposals", "//proposals", "admin", "operator", "control", ".well-known/x", "debug/pprof/",
	} {
		for _, method := range []string{"GET", "POST", "PUT", "DELETE", "OPTIONS"} {
			send(method, path, strings.NewReader(`{"revision":"x","policy_revision":"x","by":"operator","token":"x"}`))
		}
	}
	call := func(tool, arguments string) {
		send("POST", "", strings.NewReader(fmt.Sprintf(`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":%q,"arguments":%s}}`, tool, arguments)))
	}
	for _, tool := range []string{"approve", "approve_proposal", "finish", "put", "get_policy", "proposals/approve"} {
		call(tool, `{"id":"p1"}`)
	}
	for i := range 200 {
		call("propose_egress", fmt.Sprintf(`{"add":[{"host":"h%d.example"}],"reason":%q}`, i, strings.Repeat("x", 1900)))
	}
	// Bodies that do not end.
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			resp, err := client.Post(base, "application/json", io.LimitReader(zeros{}, 256<<20))
			if err == nil {
				_ = resp.Body.Close()
			}
		})
	}
	wg.Wait()
	// Connections that say a little, or nothing, and stay.
	var held []net.Conn
	for i := range 600 {
		conn, err := net.DialTimeout("tcp", host+":9100", 2*time.Second)
		if err != nil {
			continue
		}
		if i%2 == 0 {
			_, _ = conn.Write([]byte("POST / HTTP/1.1\r\nHost: supervise\r\nContent-Type: application/json\r\nContent-Length: 100\r\n"))
		}
		held = append(held, conn)
	}
	for range 10 {
		for _, c := range held {
			_ = c.SetWriteDeadline(time.Now().Add(10 * time.Millisecond))
			_, _ = c.Write([]byte("X"))
		}
		time.Sleep(300 * time.Millisecond)
	}
	for _, c := range held {
		_ = c.Close()
	}
	if statuses[200] == 0 || statuses[429] == 0 && statuses[0] == 0 {
		fmt.Println("ODD: what was sent had no effect at all")
	}
	fmt.Println("statuses:", statuses)
	if strings.Contains(seen.String(), "of the neighbour") || bytes.Contains([]byte(seen.String()), []byte(`"token"`)) {
		fmt.Println("LEAKED")
	}
	return 0
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// openPorts tries every port.
func openPorts(host string) []int {
	var open []int
	var mu sync.Mutex
	ports := make(chan int)
	var wg sync.WaitGroup
	for range 128 {
		wg.Go(func() {
			for p := range ports {
				conn, err := net.DialTimeout("tcp", net.JoinHostPort(host, fmt.Sprint(p)), 5*time.Second)
				if err != nil {
					continue
				}
				_ = conn.Close()
				mu.Lock()
				open = append(open, p)
				mu.Unlock()
			}
		})
	}
	for p := 1; p < 1<<16; p++ {
		ports <- p
	}
	close(ports)
	wg.Wait()
	slices.Sort(open)
	return open
}

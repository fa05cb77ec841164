// Command fetch asks for URLs the way an ordinary program does: with the proxy and the
// roots that the environment names. It prints the status, selected headers and the body.
//
//	fetch [-X METHOD] [-H 'NAME: VALUE'] [-d BODY] [-every TIME] [-direct ADDRESS] URL
//
//	attack ADDRESS... attacks the supervise sidecar
//	ask TOOL ARGUMENTS, by this other name: calls a tool of the server that BOTTLE_SUPERVISE names
//	bypass < CASES, by a third: makes each attempt at the environment's proxy, and prints how
//	it was answered; JSON
//
// Exit codes: 0 an answer came, 7 none.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/bottle-run/bottle/sidecar/e2e/bypass"
)

type headers []string

func (h *headers) String() string     { return "" }
func (h *headers) Set(s string) error { *h = append(*h, s); return nil }

func main() {
	if strings.HasSuffix(os.Args[0], "bypass") {
		os.Exit(attempts())
	}
	if strings.HasSuffix(os.Args[0], "attack") {
		os.Exit(attack(os.Args[1:]))
	}
	method := flag.String("X", "GET", "method")
	body := flag.String("d", "", "body")
	direct := flag.String("direct", "", "HOST:PORT of a proxy to use instead of the environment's; none: no proxy")
	every := flag.Duration("every", 0, "ask again and again")
	var add headers
	flag.Var(&add, "H", "header")
	flag.Parse()
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSHandshakeTimeout, transport.ResponseHeaderTimeout = 10*time.Second, 20*time.Second
	switch {
	case *direct == "none":
		transport.Proxy = nil
	case *direct != "":
		transport.Proxy = http.ProxyURL(&url.URL{Scheme: "http", Host: *direct})
	}
	client := &http.Client{Transport: transport, Timeout: 30 * time.Second}
	if strings.HasSuffix(os.Args[0], "ask") {
		os.Exit(callTool(client, flag.Arg(0), flag.Arg(1)))
	}
	for {
		req, err := http.NewRequest(*method, flag.Arg(0), strings.NewReader(*body))
		if err != nil {
			fmt.Println("no request:", err)
			os.Exit(2)
		}
		for _, h := range add {
			name, value, _ := strings.Cut(h, ":")
			req.Header.Add(name, strings.TrimSpace(value))
		}
		code := ask(client, req)
		if *every == 0 {
			os.Exit(code)
		}
		time.Sleep(*every)
	}
}

// callTool makes one call of MCP, which needs no session: JSON-RPC 2.0 over HTTP.
func callTool(client *http.Client, tool, arguments string) int {
	call := fmt.Sprintf(`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":%q,"arguments":%s}}`, tool, arguments)
	req, err := http.NewRequest(http.MethodPost, os.Getenv("BOTTLE_SUPERVISE"), strings.NewReader(call))
	if err != nil {
		fmt.Println("no request:", err)
		return 2
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json, text/event-stream")
	req.Header.Set("MCP-Protocol-Version", "2025-06-18")
	return ask(client, req)
}

// attempts makes those of a table.
func attempts() int {
	proxy, err := url.Parse(os.Getenv("https_proxy"))
	if err != nil {
		fmt.Println("no proxy:", err)
		return 2
	}
	var cases []bypass.Case
	if err := json.NewDecoder(os.Stdin).Decode(&cases); err != nil {
		fmt.Println("no table:", err)
		return 2
	}
	out := json.NewEncoder(os.Stdout)
	for _, c := range cases {
		got, err := bypass.Attempt(proxy.Host, c)
		if err != nil {
			got = bypass.Outcome{Name: c.Name, Body: []byte(err.Error())}
		}
		if err := out.Encode(got); err != nil {
			return 7
		}
	}
	return 0
}

func ask(client *http.Client, req *http.Request) int {
	resp, err := client.Do(req)
	if err != nil {
		fmt.Println("no answer:", err)
		return 7
	}
	defer resp.Body.Close()
	fmt.Println("status", resp.StatusCode, resp.Header.Get("Content-Type"))
	text, err := io.ReadAll(resp.Body)
	fmt.Printf("%s\n", text)
	if err != nil {
		fmt.Println("cut off:", err)
		return 7
	}
	return 0
}

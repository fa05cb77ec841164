// Command client gets a URL as most Go programs do, and prints what comes back.
package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
)

func main() {
	res, err := http.Get(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println("status", res.StatusCode)
	if _, err := io.Copy(os.Stdout, res.Body); err != nil {
		os.Exit(1)
	}
}

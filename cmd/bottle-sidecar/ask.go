package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/bottle-run/bottle/sidecar/control"
	"github.com/bottle-run/bottle/sidecar/delivery"
)

// answerTime bounds what a sidecar may take to answer.
const answerTime = 30 * time.Second

// ask makes a client, and a context in which to use it.
func (c *call) ask() (*control.Client, context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(context.Background(), answerTime)
	return control.NewClient(*c.dir), ctx, cancel
}

// put delivers the document that it reads.
func put(c *call) error {
	wait := c.flags.Bool("wait", false, "wait until the sidecar runs, and say whether it is ready")
	if err := c.parse(0); err != nil {
		return err
	}
	document, err := io.ReadAll(io.LimitReader(c.stdin, delivery.MaxDocument+1))
	if err != nil {
		return fmt.Errorf("reading the delivery: %w", err)
	}
	client, ctx, cancel := c.ask()
	defer cancel()
	if *wait {
		if err := client.WaitRunning(ctx); err != nil {
			return &exitError{exitNotReady, err}
		}
	}
	if err := client.Put(ctx, bytes.NewReader(document)); err != nil {
		return fmt.Errorf("not taken up: %w", err)
	}
	if !*wait {
		return nil
	}
	if err := client.Health(ctx); err != nil {
		return &exitError{exitNotReady, fmt.Errorf("not ready: %w", err)}
	}
	return nil
}

// healthcheck asks the sidecar of this container, or a server by its URL.
func healthcheck(c *call) error {
	url := c.flags.String("url", "", "ask the server at this `URL` instead, until it answers 200")
	if err := c.parse(0); err != nil {
		return err
	}
	client, ctx, cancel := c.ask()
	defer cancel()
	var err error
	if *url != "" {
		err = healthy(ctx, *url)
	} else {
		err = client.Health(ctx)
	}
	if err != nil {
		return &exitError{exitNotReady, err}
	}
	return nil
}

// pause is how long lies between two questions to a server that cannot say when it will
// be ready.
const pause = 50 * time.Millisecond

// healthy returns when a server answers 200. If ctx ends before, the error is the last one.
func healthy(ctx context.Context, url string) error {
	// No proxy of the environment, and nothing that it would be sent on to.
	client := &http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true, ResponseHeaderTimeout: 5 * time.Second},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	last := errors.New("it was not asked")
	for {
		err := answers(ctx, client, url)
		if err == nil {
			return nil
		}
		if ctx.Err() == nil {
			last = err
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return fmt.Errorf("%s is not healthy after %v: %w", url, answerTime, last)
		case <-timer.C:
		}
	}
}

func answers(ctx context.Context, client *http.Client, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("it answers %s", resp.Status)
	}
	return nil
}

func reload(c *call) error {
	if err := c.parse(0); err != nil {
		return err
	}
	client, ctx, cancel := c.ask()
	defer cancel()
	return client.Reload(ctx)
}

func showPolicy(c *call) error {
	if err := c.parse(0); err != nil {
		return err
	}
	client, ctx, cancel := c.ask()
	defer cancel()
	policy, err := client.Policy(ctx)
	if err != nil {
		return err
	}
	_, err = c.stdout.Write(policy)
	return err
}

func testPolicy(c *call) error {
	if err := c.parse(2); err != nil {
		return err
	}
	client, ctx, cancel := c.ask()
	defer cancel()
	verdict, allowed, err := client.Test(ctx, c.args[0], c.args[1])
	if err != nil {
		return err
	}
	if _, err := c.stdout.Write(verdict); err != nil {
		return err
	}
	if !allowed {
		return &exitError{exitDenied, errors.New("the request would be denied")}
	}
	return nil
}

package intercept

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// Denial is an answer that says no, and teaches.
type Denial struct {
	// Status is the HTTP status. Default: 403.
	Status int
	// Rule is the id of the rule that decided.
	Rule string
	// Reason is a sentence.
	Reason string
	// NextSteps say what can be done.
	NextSteps []string
}

// denialBody is what a client sees.
type denialBody struct {
	Error     string   `json:"error"`
	Rule      string   `json:"rule"`
	Reason    string   `json:"reason"`
	Host      string   `json:"host,omitempty"`
	Method    string   `json:"method"`
	Path      string   `json:"path,omitempty"`
	NextSteps []string `json:"next_steps"`
	Supervise string   `json:"supervise,omitempty"`
}

// DenialHeader carries the rule of a denial, so that a denial can be told from an
// upstream's own 403.
const DenialHeader = "X-Bottle-Denied"

// maxShown bounds the path in a denial, in bytes.
const maxShown = 512

// Write answers a request with a denial. The path is shown as given: without its query,
// secrets masked. Supervise is the URL at which more can be asked for, if there is one.
func (d Denial) Write(w http.ResponseWriter, r *Request, path, supervise string) int {
	if d.Status == 0 {
		d.Status = http.StatusForbidden
	}
	body := denialBody{
		Error: "denied by bottle", Rule: d.Rule, Reason: d.Reason, Host: r.Addr, Method: r.Method,
		NextSteps: d.NextSteps, Supervise: supervise,
	}
	if d.Status >= 500 {
		body.Error = "failed in bottle"
	}
	if body.Path, _, _ = strings.Cut(path, "?"); len(body.Path) > maxShown {
		body.Path = body.Path[:maxShown]
	}
	if body.NextSteps == nil {
		body.NextSteps = []string{}
	}
	if supervise != "" && d.Status == http.StatusForbidden {
		body.NextSteps = append([]string{"propose a change of the policy at " + supervise + " and wait for the operator's answer"}, body.NextSteps...)
	}
	h := w.Header()
	h.Set(DenialHeader, headerSafe(d.Rule))
	h.Set("Cache-Control", "no-store")
	if strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") && r.ProtoMajor == 2 {
		h.Set("Content-Type", "application/grpc")
		h.Set("Grpc-Status", grpcStatus(d.Status))
		h.Set("Grpc-Message", url.PathEscape(fmt.Sprintf("%s (rule %s): %s", body.Error, d.Rule, strings.Join(append([]string{d.Reason}, body.NextSteps...), "; "))))
		w.WriteHeader(http.StatusOK)
		return http.StatusOK
	}
	h.Set("Content-Type", "application/json")
	h.Set("X-Content-Type-Options", "nosniff")
	if r.Header.Get("Upgrade") != "" {
		h.Set("Connection", "close")
	}
	text, err := json.MarshalIndent(body, "", "  ")
	if err != nil {
		text = []byte(`{"error":"denied by bottle"}`)
	}
	h.Set("Content-Length", fmt.Sprint(len(text)+1))
	w.WriteHeader(d.Status)
	if r.Method != http.MethodHead {
		// The client may be gone.
		_, _ = w.Write(append(text, '\n'))
	}
	return d.Status
}

func grpcStatus(status int) string {
	switch {
	case status == http.StatusBadRequest:
		return "3" // INVALID_ARGUMENT
	case status >= 500:
		return "14" // UNAVAILABLE
	}
	return "7" // PERMISSION_DENIED
}

func headerSafe(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s)
}

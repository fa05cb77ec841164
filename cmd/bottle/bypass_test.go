package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/bottle-run/bottle/runtime/conformance/world"
	"github.com/bottle-run/bottle/sidecar/e2e/bypass"
)

// bypassZone is where the hosts of the table of bypasses are.
const bypassZone = "bypass." + world.Zone

// cmdBypasses goes through the table of bypasses. The agent makes the attempts:
//
//	bypasses write FILE
//	stdin FILE
//	exec bottle exec NAME -- bypass
//	bypasses check
//
// The check sees that each was refused by its rule, and that nothing of it has arrived. The
// variables CANARY and API_TOKEN have the secrets, INTERNAL, METADATA and MIXED the names.
func (o *outside) cmdBypasses(ts *testscript.TestScript, neg bool, args []string) {
	place := bypass.World{
		Zone: bypassZone, Port: "443", Internal: ts.Getenv("INTERNAL"), Metadata: ts.Getenv("METADATA"), Mixed: ts.Getenv("MIXED"), Inside: "127.0.0.2",
		Canary: ts.Getenv("CANARY"), CanaryRule: "canary:CANARY", APIToken: ts.Getenv("API_TOKEN"), APITokenRule: "canary:API_TOKEN",
	}
	table := place.Table()
	switch {
	case !neg && len(args) == 2 && args[0] == "write":
		input, err := json.Marshal(table)
		ts.Check(err)
		ts.Check(os.WriteFile(ts.MkAbs(args[1]), input, 0o600))
	case !neg && len(args) == 1 && args[0] == "check":
		decoder := json.NewDecoder(strings.NewReader(ts.ReadFile("stdout")))
		var wrong []string
		for _, c := range table {
			var got bypass.Outcome
			ts.Check(decoder.Decode(&got))
			if why := refused(c, got); why != "" {
				wrong = append(wrong, why)
			}
		}
		for _, s := range o.take(func(s seenRequest) bool { return strings.HasSuffix(s.Host, bypassZone) || s.Host == place.Inside }) {
			// The first request of a connection, and the head of a body that was cut.
			if s.Host != "allowed."+bypassZone || s.Target != "/ok" && (s.Method != http.MethodPost || s.Body != "") {
				wrong = append(wrong, fmt.Sprintf("arrived: %+v", s))
			}
		}
		if len(wrong) > 0 {
			ts.Fatalf("of %d attempts:\n%s", len(table), strings.Join(wrong, "\n"))
		}
		ts.Logf("%d attempts were refused", len(table))
	default:
		ts.Fatalf("usage: bypasses write FILE, bypasses check")
	}
}

// refused says what is wrong with the answer to an attempt.
func refused(c bypass.Case, got bypass.Outcome) string {
	var denied struct{ Rule, Reason string }
	err := json.Unmarshal(got.Body, &denied)
	if err != nil || got.Name != c.Name || got.Status < 400 || denied.Rule != c.Rule || got.Header != c.Rule || denied.Reason == "" {
		return fmt.Sprintf("%s: want the rule %s; status %d, rule %q: %.200s", c.Name, c.Rule, got.Status, got.Header, got.Body)
	}
	return ""
}

package gitgate

import (
	"bufio"
	"bytes"
	"io"
	"strings"
	"testing"

	"github.com/bottle-run/bottle/sidecar/config"
	"github.com/bottle-run/bottle/sidecar/gitgate/internal/pack"
	"github.com/bottle-run/bottle/sidecar/gitgate/internal/pktline"
	"github.com/bottle-run/bottle/sidecar/gitgate/ref"
	"github.com/bottle-run/bottle/sidecar/scan"
	"github.com/bottle-run/bottle/sidecar/secrets"
)

// offline is a client without a connection.
func offline(t testing.TB, in []byte) *client {
	s, err := scan.New(scan.Options{Off: true}, secrets.Set{"canary": {Value: canary}})
	if err != nil {
		t.Fatal(err)
	}
	st := &state{scanner: s, limits: config.GitLimits{}.WithDefaults(), mask: func(s string) string { return s }}
	return &client{st: st, r: pktline.NewReader(bytes.NewReader(in)), w: bufio.NewWriter(io.Discard)}
}

// FuzzCommands reads what a push is to do. What is taken is well formed.
func FuzzCommands(f *testing.F) {
	a, zero := strings.Repeat("a", 40), strings.Repeat("0", 40)
	for _, s := range []string{
		line(zero+" "+a+" refs/heads/x\x00 report-status") + "0000", line("shallow "+a) + line(a+" "+zero+" refs/tags/x") + "0000",
		line("push-cert\x00") + "0000", line(zero+" "+zero+" refs/heads/x") + "0000", "0000", line(zero+" "+a+" refs/heads/-x") + line(zero+" "+a+" refs/heads/a b") + "0000",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		p := &pusher{client: offline(t, in), repo: &repository{url: &config.GitURL{Host: "x.test"}}, has: &advert{format: pack.SHA1, refs: map[string]pack.ID{}}, caps: []string{"report-status"}}
		p.repo.push, _ = newPushPolicy(everything)
		if some, err := p.readCommands(); err != nil || !some {
			return
		}
		for i := range p.commands {
			c := &p.commands[i]
			if p.judgeRef(c) == nil && ref.Check(c.name) != nil {
				t.Fatalf("%q was taken", c.name)
			}
		}
	})
}

// FuzzFetchCommands reads commands of version 2, and wants and haves of version 0.
func FuzzFetchCommands(f *testing.F) {
	a := strings.Repeat("a", 40)
	for _, s := range []string{
		line("command=ls-refs\n") + line("agent=x") + "0001" + line("peel\n") + line("ref-prefix refs/heads/") + "0000",
		line("command=fetch\n") + "0001" + line("want "+a) + line("have "+a) + line("done") + "0000",
		line("want "+a+" multi_ack") + line("deepen 1") + "0000" + line("have "+a) + "0000" + line("done"),
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		id, _ := pack.SHA1.Parse(a)
		fetcher := func() *fetcher {
			return &fetcher{client: offline(t, in), repo: &repository{url: &config.GitURL{Host: "x.test"}}, format: pack.SHA1, shown: map[pack.ID]struct{}{id: {}}, looked: true}
		}
		f := fetcher()
		if a, err := f.readCommand(); err == nil && a != nil && f.check(a) == nil {
			for _, arg := range a.args {
				if strings.Contains(arg, canary) || strings.HasPrefix(arg, "filter") || strings.HasPrefix(arg, "want-ref") {
					t.Fatalf("%q is passed on", arg)
				}
				if want, ok := strings.CutPrefix(arg, "want "); ok && want != strings.Repeat("a", 40) {
					t.Fatalf("%q may be wanted", want)
				}
			}
		}
		f = fetcher()
		if packets, _, err := f.needs([]string{"multi_ack"}); err == nil && packets != nil {
			if !strings.HasPrefix(string(packets[4:]), "want "+strings.Repeat("a", 40)) {
				t.Fatalf("%q is passed on", packets)
			}
			_, _, _ = f.haves()
		}
	})
}

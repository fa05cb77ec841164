package gitgate

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/bottle-run/bottle/sidecar/gitgate/internal/pack"
	"github.com/bottle-run/bottle/sidecar/gitgate/internal/pktline"
)

// advert is what an upstream says of itself and of its references in version 0.
type advert struct {
	format pack.Format
	caps   []string // of the upstream
	refs   map[string]pack.ID
	lines  []string // of references, without capabilities
}

func (a *advert) has(name string) bool { return slices.Contains(a.caps, name) }

// readAdvert reads what begins with a packet.
func readAdvert(s session, p pktline.Packet) (*advert, error) {
	a := &advert{format: pack.SHA1, refs: map[string]pack.ID{}}
	bad := func() (*advert, error) {
		return nil, upstreamFailed("what the upstream says of its references is malformed")
	}
	total := 0
	for first := true; p.Kind != pktline.Flush; {
		if p.Kind != pktline.Data {
			return bad()
		}
		if err := upstreamSays(p); err != nil {
			return nil, err
		}
		if total += len(p.Raw); total > maxAdvertised {
			return nil, upstreamFailed("the upstream lists more than %d bytes", maxAdvertised)
		}
		line := p.Text()
		if first && line != "version 1" {
			first = false
			var caps string
			var ok bool
			if line, caps, ok = strings.Cut(line, "\x00"); !ok {
				return bad()
			}
			a.caps = strings.Fields(caps)
			for _, c := range a.caps {
				if v, ok := strings.CutPrefix(c, "object-format="); ok {
					if a.format, ok = pack.FormatOf(v); !ok {
						return nil, upstreamFailed("the upstream names its objects in a way that the gate does not know: %s", clip(v, 40))
					}
				}
			}
			if strings.HasSuffix(line, " capabilities^{}") {
				line = ""
			}
		}
		if line != "" && line != "version 1" {
			if shallow, ok := strings.CutPrefix(line, "shallow "); ok {
				if _, ok := a.format.Parse(shallow); !ok {
					return bad()
				}
			} else {
				hex, name, _ := strings.Cut(line, " ")
				id, ok := a.format.Parse(hex)
				if !ok || name == "" || strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f }) {
					return bad()
				}
				if name != ".have" {
					a.refs[name] = id
				}
			}
			if len(line) > maxLine/2 {
				return bad()
			}
			a.lines = append(a.lines, line)
		}
		var err error
		if p, err = s.advertisement().Next(); err != nil {
			return nil, s.trouble(upstreamFailed("reading what the upstream has: %w", unexpected(err)))
		}
	}
	if a.caps == nil {
		return bad()
	}
	return a, nil
}

// write appends the advertisement with other capabilities.
func (a *advert) write(caps []string) []byte {
	lines := a.lines
	if len(lines) == 0 || strings.HasPrefix(lines[0], "shallow ") {
		lines = append([]string{a.format.Zero() + " capabilities^{}"}, lines...)
	}
	var b []byte
	for i, line := range lines {
		if i == 0 {
			line += "\x00" + strings.Join(caps, " ")
		}
		b = pktline.AppendString(b, line+"\n")
	}
	return pktline.AppendFlush(b)
}

// fetchCaps are the capabilities that are passed on, beside those with a value. Left out is
// no-done, which is only for requests that each have their own connection.
var fetchCaps = []string{
	"multi_ack", "multi_ack_detailed", "thin-pack", "side-band", "side-band-64k", "ofs-delta", "shallow", "deepen-since", "deepen-not",
	"deepen-relative", "no-progress", "include-tag",
}

// version0 serves protocol version 0 (gitprotocol-pack).
func (f *fetcher) version0(first pktline.Packet) error {
	a, err := readAdvert(f.s, first)
	if err != nil {
		return err
	}
	f.format = a.format
	for _, line := range a.lines {
		f.see(line)
	}
	caps := []string{"agent=" + agentName}
	for _, c := range a.caps {
		name, _, _ := strings.Cut(c, "=")
		switch {
		case name == "symref" && len(c) > 300, len(caps) > 80:
		case slices.Contains(fetchCaps, c), name == "symref", name == "object-format":
			caps = append(caps, c)
		case f.repo.anyObject && slices.Contains([]string{"filter", "allow-tip-sha1-in-want", "allow-reachable-sha1-in-want"}, c):
			caps = append(caps, c)
		}
	}
	if _, err := f.w.Write(a.write(caps)); err != nil {
		return fmt.Errorf("answering: %w", err)
	}
	if err := f.w.Flush(); err != nil {
		return fmt.Errorf("answering: %w", err)
	}
	needs, deepens, err := f.needs(caps)
	if err != nil {
		return err
	}
	if needs == nil {
		if w := f.s.stream(); w != nil {
			_, _ = io.WriteString(w, "0000") // nothing is wanted
		}
		return nil
	}
	if w := f.s.stream(); w != nil {
		return f.duplex(w, needs)
	}
	return f.rounds(needs, deepens)
}

// needs reads what a client wants, up to the flush that ends it. It returns the packets to
// send to the upstream, nil if nothing is wanted.
func (f *fetcher) needs(caps []string) (packets []byte, deepens bool, err error) {
	var texts []string
	for {
		p, err := f.r.Next()
		if err != nil {
			if errors.Is(err, io.EOF) && packets == nil {
				return nil, false, nil
			}
			return nil, false, fmt.Errorf("reading what is wanted: %w", err)
		}
		if p.Kind == pktline.Flush {
			break
		}
		if len(packets)+len(p.Raw) > maxAsked || len(p.Data) > maxLine {
			return nil, false, deny("malformed", "what is wanted is too long")
		}
		line := p.Text()
		name, value, _ := strings.Cut(line, " ")
		ok := p.Kind == pktline.Data
		switch name {
		case "want":
			if packets == nil {
				var clientCaps string
				value, clientCaps, _ = strings.Cut(value, " ")
				kept := []string{"agent=" + agentName}
				for c := range strings.FieldsSeq(clientCaps) {
					switch {
					case strings.HasPrefix(c, "agent="), strings.HasPrefix(c, "session-id="):
					case slices.Contains(caps, c):
						kept = append(kept, c)
					default:
						return nil, false, deny("capability", "the git gate does not pass on %q", clip(c, 40))
					}
				}
				line = "want " + value + " " + strings.Join(kept, " ")
			}
			id, parsed := f.format.Parse(value)
			if _, shown := f.shown[id]; parsed && !shown && !f.repo.anyObject {
				return nil, false, deny("not-advertised", "no reference of the upstream is at %s: fetch a branch or a tag that has it, or ask the operator to set any_object for the repository", value)
			}
			ok = ok && parsed
		case "shallow":
			_, parsed := f.format.Parse(value)
			ok = ok && parsed
		case "deepen", "deepen-since":
			deepens = true
			ok = ok && value != "" && len(value) < 20 && strings.Trim(value, "0123456789") == ""
		case "deepen-not":
			deepens = true
			texts = append(texts, value)
		case "filter":
			ok = ok && f.repo.anyObject && isFilter(value)
		default:
			ok = false
		}
		if !ok || packets == nil && name != "want" {
			return nil, false, deny("argument", "the git gate does not pass on %q", clip(line, 80))
		}
		packets = pktline.AppendString(packets, line+"\n")
	}
	if found := f.st.scanner.Text(f.repo.url.Host, strings.Join(texts, "\n")); found != nil {
		return nil, false, deny(found.Rule, "%s", found.Reason)
	}
	if packets != nil {
		packets = pktline.AppendFlush(packets)
	}
	return packets, deepens, nil
}

// haves reads what a client has, up to a flush or done. It returns the lines, and what
// ended them.
func (f *fetcher) haves() (lines []byte, done bool, err error) {
	for {
		p, err := f.r.Next()
		if err != nil {
			return nil, false, err
		}
		line := p.Text()
		value, ok := strings.CutPrefix(line, "have ")
		_, parsed := f.format.Parse(value)
		switch {
		case p.Kind == pktline.Flush:
			return lines, false, nil
		case p.Kind == pktline.Data && line == "done":
			return lines, true, nil
		case p.Kind != pktline.Data || !ok || !parsed:
			return nil, false, deny("argument", "the git gate does not pass on %q", clip(line, 80))
		case len(lines) > maxAsked:
			return nil, false, deny("malformed", "what the client has is longer than %d bytes", maxAsked)
		}
		lines = pktline.AppendString(lines, line+"\n")
	}
}

// duplex serves the rest over one connection to the upstream: what the client says is
// checked, what the upstream says is copied as it comes.
func (f *fetcher) duplex(w io.Writer, needs []byte) error {
	send := func(b []byte) error {
		f.out += int64(len(b))
		if _, err := w.Write(b); err != nil {
			return f.s.trouble(upstreamFailed("sending to the upstream: %w", err))
		}
		return nil
	}
	if err := send(needs); err != nil {
		return err
	}
	type copied struct {
		n   int64
		err error
	}
	ended := make(chan copied, 1)
	go func() {
		n, err := copyNow(f.w, f.s.advertisement().R)
		ended <- copied{n, err}
	}()
	asking := func() error {
		for {
			lines, done, err := f.haves()
			if err != nil {
				return err
			}
			if done {
				return send(pktline.AppendString(lines, "done\n"))
			}
			if err := send(pktline.AppendFlush(lines)); err != nil {
				return err
			}
		}
	}
	err := asking()
	if err != nil {
		f.s.close() // ends the copy, which alone may write to the client
	}
	c := <-ended
	f.in = c.n
	switch {
	case errors.Is(err, io.EOF):
		return nil // the client has what it needs: a shallow clone is asked for and left
	case err != nil:
		return err
	case c.err != nil:
		return errTold{c.err}
	}
	return nil
}

// copyNow copies without waiting for more than there is.
func copyNow(w interface {
	io.Writer
	Flush() error
}, r io.Reader) (int64, error) {
	buf := make([]byte, 64<<10)
	var total int64
	for {
		n, err := r.Read(buf)
		total += int64(n)
		if n > 0 {
			if _, err := w.Write(buf[:n]); err != nil {
				return total, fmt.Errorf("answering: %w", err)
			}
			if err := w.Flush(); err != nil {
				return total, fmt.Errorf("answering: %w", err)
			}
		}
		if errors.Is(err, io.EOF) {
			return total, nil
		}
		if err != nil {
			return total, upstreamFailed("reading the upstream's answer: %w", err)
		}
	}
}

// rounds serves the rest by requests that each stand alone (gitprotocol-http): each repeats
// what is wanted, and what both sides were found to have in common.
func (f *fetcher) rounds(needs []byte, deepens bool) error {
	if deepens {
		// How the client's history is cut off is told before it says what it has.
		answer, err := f.round(needs)
		if err != nil {
			return err
		}
		if err := f.relay(answer, func(string) {}); err != nil {
			return err
		}
	}
	var common []byte
	for {
		lines, done, err := f.haves()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		body := slices.Concat(needs, common, lines)
		if len(body) > 2*maxAsked {
			return deny("malformed", "the negotiation is longer than %d bytes", 2*maxAsked)
		}
		if done {
			body = pktline.AppendString(body, "done\n")
		} else {
			body = pktline.AppendFlush(body)
		}
		answer, err := f.round(body)
		if err != nil {
			return err
		}
		if deepens {
			if err := skipToFlush(answer); err != nil {
				return f.s.trouble(err)
			}
		}
		if done {
			n, err := copyNow(f.w, answer.R)
			f.in += n
			if err != nil {
				return errTold{err}
			}
			return nil
		}
		if common, err = f.acks(answer, common); err != nil {
			return err
		}
	}
}

func (f *fetcher) round(body []byte) (*pktline.Reader, error) {
	f.out += int64(len(body))
	return f.s.ask(bytes.NewReader(body), int64(len(body)))
}

func skipToFlush(r *pktline.Reader) error {
	for {
		p, err := r.Next()
		if err != nil {
			return upstreamFailed("reading the upstream's answer: %w", unexpected(err))
		}
		if err := upstreamSays(p); err != nil {
			return err
		}
		if p.Kind == pktline.Flush {
			return nil
		}
	}
}

// acks passes on what the upstream says of a round, and adds to what is common.
func (f *fetcher) acks(answer *pktline.Reader, common []byte) ([]byte, error) {
	for {
		p, err := answer.Next()
		if errors.Is(err, io.EOF) {
			return common, f.w.Flush()
		}
		if err != nil {
			return nil, f.s.trouble(upstreamFailed("reading the upstream's answer: %w", err))
		}
		if err := upstreamSays(p); err != nil {
			return nil, err
		}
		f.in += int64(len(p.Raw))
		if fields := strings.Fields(p.Text()); len(fields) > 1 && fields[0] == "ACK" {
			if _, ok := f.format.Parse(fields[1]); ok {
				have := pktline.AppendString(nil, "have "+fields[1]+"\n")
				if !bytes.Contains(common, have) {
					common = append(common, have...)
				}
			}
		}
		if _, err := f.w.Write(p.Raw); err != nil {
			return nil, fmt.Errorf("answering: %w", err)
		}
	}
}

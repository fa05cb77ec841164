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

const (
	// maxAdvertised bounds what an upstream may say of its references, in bytes.
	maxAdvertised = 64 << 20
	// maxAsked bounds one request of a client, in bytes.
	maxAsked = 8 << 20
	// maxLine bounds a line of either side that is passed on with something added, in bytes.
	maxLine = 60_000
)

// fetcher serves one connection that fetches.
type fetcher struct {
	*client
	repo   *repository
	s      session
	format pack.Format
	shown  map[pack.ID]struct{} // what the upstream has advertised
	looked bool                 // all references were asked for
}

func (c *client) fetch(repo *repository, version int) error {
	s, err := repo.up.open(c.ctx, uploadPack, version)
	if err != nil {
		return err
	}
	defer s.close()
	f := &fetcher{client: c, repo: repo, s: s, format: pack.SHA1, shown: map[pack.ID]struct{}{}}
	first, err := s.advertisement().Next()
	if err != nil {
		return s.trouble(upstreamFailed("reading what the upstream has: %w", unexpected(err)))
	}
	if err := upstreamSays(first); err != nil {
		return err
	}
	if first.Text() == "version 2" {
		if version != 2 {
			return upstreamFailed("the upstream speaks protocol version 2 without having been asked to")
		}
		return f.version2()
	}
	if x, ok := s.(*exchange); ok {
		x.version = 0 // requests are to be read as what was advertised
	}
	return f.version0(first)
}

// unexpected makes the end of a stream an error like others.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// upstreamSays returns the error that a packet of an upstream may be.
func upstreamSays(p pktline.Packet) error {
	if text, ok := strings.CutPrefix(p.Text(), "ERR "); ok && p.Kind == pktline.Data {
		return upstreamFailed("the upstream says: %s", clip(text, 1000))
	}
	return nil
}

// version2 serves protocol version 2 (gitprotocol-v2): commands, each with its answer.
func (f *fetcher) version2() error {
	if err := f.capabilities(); err != nil {
		return err
	}
	for {
		again, err := f.command()
		if err != nil || !again {
			return err
		}
	}
}

// fetchFeatures are the features of the command fetch that are passed on. Left out are those
// that lead elsewhere (packfile-uris), and those by which a reference is wanted by a name
// that was not shown (ref-in-want).
var fetchFeatures = []string{"shallow", "wait-for-done", "filter"}

// capabilities passes on what is known of what the upstream can do.
func (f *fetcher) capabilities() error {
	out := pktline.AppendString(nil, "version 2\n")
	out = pktline.AppendString(out, "agent="+agentName+"\n")
	for {
		p, err := f.s.advertisement().Next()
		if err != nil {
			return f.s.trouble(upstreamFailed("reading what the upstream can do: %w", unexpected(err)))
		}
		if p.Kind == pktline.Flush {
			break
		}
		name, value, _ := strings.Cut(p.Text(), "=")
		switch name {
		case "ls-refs":
			if value == "unborn" {
				name += "=unborn"
			}
		case "fetch":
			var features []string
			for feature := range strings.FieldsSeq(value) {
				if slices.Contains(fetchFeatures, feature) && (feature != "filter" || f.repo.anyObject) {
					features = append(features, feature)
				}
			}
			name += "=" + strings.Join(features, " ")
			name = strings.TrimSuffix(name, "=")
		case "object-format":
			format, ok := pack.FormatOf(value)
			if !ok {
				return upstreamFailed("the upstream names its objects in a way that the gate does not know: %s", clip(value, 40))
			}
			f.format = format
			name += "=" + value
		default:
			continue
		}
		out = pktline.AppendString(out, name+"\n")
	}
	if _, err := f.w.Write(pktline.AppendFlush(out)); err != nil {
		return err
	}
	return f.w.Flush()
}

// asked is a command of a client.
type asked struct {
	command string
	args    []string
}

// readCommand reads a command. Nil is the end.
func (f *fetcher) readCommand() (*asked, error) {
	a := &asked{}
	total, section := 0, 0
	for {
		p, err := f.r.Next()
		if err != nil {
			if errors.Is(err, io.EOF) && a.command == "" {
				return nil, nil
			}
			return nil, fmt.Errorf("reading a command: %w", err)
		}
		if total += len(p.Raw); total > maxAsked || len(p.Data) > maxLine {
			return nil, deny("malformed", "a command is too long")
		}
		text := p.Text()
		switch {
		case p.Kind == pktline.Flush && a.command == "":
			return nil, nil
		case p.Kind == pktline.Flush:
			return a, nil
		case p.Kind == pktline.Delim && section == 0 && a.command != "":
			section = 1
		case p.Kind != pktline.Data:
			return nil, deny("malformed", "a command is malformed")
		case section == 1:
			a.args = append(a.args, text)
		case a.command == "":
			command, ok := strings.CutPrefix(text, "command=")
			if !ok || command != "ls-refs" && command != "fetch" {
				return nil, deny("command", "the git gate does not know the command %q", clip(text, 40))
			}
			a.command = command
		default:
			name, value, _ := strings.Cut(text, "=")
			switch {
			case name == "agent" || name == "session-id":
			case name == "object-format" && value == f.format.String():
			case name == "object-format":
				return nil, deny("malformed", "the upstream names its objects by %v, not by %s", f.format, clip(value, 40))
			default:
				return nil, deny("capability", "the git gate does not pass on %q", clip(name, 40))
			}
		}
	}
}

// command serves one command.
func (f *fetcher) command() (again bool, err error) {
	a, err := f.readCommand()
	if a == nil || err != nil {
		return false, err
	}
	if err := f.check(a); err != nil {
		return false, err
	}
	answer, err := f.send(a)
	if err != nil {
		return false, err
	}
	see := func(string) {}
	if a.command == "ls-refs" {
		see = f.see
	}
	return true, f.relay(answer, see)
}

// send sends a command to the upstream.
func (f *fetcher) send(a *asked) (*pktline.Reader, error) {
	body := pktline.AppendString(nil, "command="+a.command+"\n")
	body = pktline.AppendString(body, "agent="+agentName+"\n")
	if f.format != pack.SHA1 {
		body = pktline.AppendString(body, "object-format="+f.format.String()+"\n")
	}
	body = pktline.AppendDelim(body)
	for _, arg := range a.args {
		body = pktline.AppendString(body, arg+"\n")
	}
	body = pktline.AppendFlush(body)
	f.out += int64(len(body))
	return f.s.ask(bytes.NewReader(body), int64(len(body)))
}

// relay passes an answer on, up to its end. Before the pack each line is shown to see.
func (f *fetcher) relay(answer *pktline.Reader, see func(line string)) error {
	listed := 0
	for {
		p, err := answer.Next()
		if err != nil {
			return f.s.trouble(upstreamFailed("reading the upstream's answer: %w", unexpected(err)))
		}
		if p.Kind == pktline.Data && (len(p.Data) == 0 || p.Data[0] > pktline.BandError) {
			if listed += len(p.Data); listed > maxAdvertised {
				return upstreamFailed("the upstream lists more than %d bytes", maxAdvertised)
			}
			if err := upstreamSays(p); err != nil {
				return err
			}
			see(p.Text())
		}
		f.in += int64(len(p.Raw))
		if _, err := f.w.Write(p.Raw); err != nil {
			return fmt.Errorf("answering: %w", err)
		}
		if answer.R.Buffered() == 0 || p.Kind == pktline.Flush {
			if err := f.w.Flush(); err != nil {
				return fmt.Errorf("answering: %w", err)
			}
		}
		if p.Kind == pktline.Flush {
			return nil
		}
	}
}

// see remembers what a line of an answer to ls-refs shows.
func (f *fetcher) see(line string) {
	fields := strings.Fields(line)
	for i, field := range fields {
		if i > 0 {
			var ok bool
			if field, ok = strings.CutPrefix(field, "peeled:"); !ok {
				continue
			}
		}
		if id, ok := f.format.Parse(field); ok {
			f.shown[id] = struct{}{}
		}
	}
}

// check says whether a command may be passed on.
func (f *fetcher) check(a *asked) error {
	var texts, wants []string
	for _, arg := range a.args {
		name, value, has := strings.Cut(arg, " ")
		ok := false
		switch a.command + " " + name {
		case "ls-refs peel", "ls-refs symrefs", "ls-refs unborn",
			"fetch done", "fetch thin-pack", "fetch no-progress", "fetch include-tag", "fetch ofs-delta", "fetch deepen-relative", "fetch wait-for-done":
			ok = !has
		case "ls-refs ref-prefix", "fetch deepen-not":
			ok = has && !strings.ContainsFunc(value, func(r rune) bool { return r <= ' ' || r == 0x7f })
			texts = append(texts, value)
		case "fetch want":
			wants = append(wants, value)
			ok = true // looked at below
		case "fetch have", "fetch shallow":
			_, ok = f.format.Parse(value)
		case "fetch deepen", "fetch deepen-since":
			ok = value != "" && len(value) < 20 && strings.Trim(value, "0123456789") == ""
		case "fetch filter":
			ok = f.repo.anyObject && isFilter(value)
		}
		if !ok {
			return deny("argument", "the git gate does not pass on %q", clip(arg, 80))
		}
	}
	if found := f.st.scanner.Text(f.repo.url.Host, strings.Join(texts, "\n")); found != nil {
		return deny(found.Rule, "%s", found.Reason)
	}
	return f.wanted(wants)
}

// isFilter reports whether a text is a filter of objects (git-rev-list, --filter) that
// names nothing within the repository.
func isFilter(s string) bool {
	for part := range strings.SplitSeq(strings.TrimPrefix(s, "combine:"), "+") {
		kind, value, _ := strings.Cut(part, ":")
		number := value != "" && strings.Trim(value, "0123456789") == ""
		switch kind {
		case "blob":
			limit, ok := strings.CutPrefix(value, "limit=")
			if value != "none" && (!ok || limit == "" || strings.Trim(limit, "0123456789kmgKMG") != "") {
				return false
			}
		case "tree":
			if !number {
				return false
			}
		case "object":
			if !slices.Contains([]string{"type=blob", "type=tree", "type=commit", "type=tag"}, value) {
				return false
			}
		default:
			return false
		}
	}
	return true
}

// wanted says whether objects may be wanted. If the client has not asked what there is, the
// gate does.
func (f *fetcher) wanted(wants []string) error {
	for _, want := range wants {
		id, ok := f.format.Parse(want)
		if !ok {
			return deny("argument", "%q is no name of an object", clip(want, 80))
		}
		if f.repo.anyObject {
			continue
		}
		if _, ok := f.shown[id]; ok {
			continue
		}
		if !f.looked {
			f.looked = true
			if err := f.look(); err != nil {
				return err
			}
		}
		if _, ok := f.shown[id]; !ok {
			return deny("not-advertised", "no reference of the upstream is at %s: fetch a branch or a tag that has it, or ask the operator to set any_object for the repository", want)
		}
	}
	return nil
}

// look asks for all references.
func (f *fetcher) look() error {
	answer, err := f.send(&asked{command: "ls-refs", args: []string{"peel"}})
	if err != nil {
		return err
	}
	listed := 0
	for {
		p, err := answer.Next()
		if err != nil {
			return f.s.trouble(upstreamFailed("asking the upstream what it has: %w", unexpected(err)))
		}
		if p.Kind == pktline.Flush {
			return nil
		}
		if listed += len(p.Data); listed > maxAdvertised {
			return upstreamFailed("the upstream lists more than %d bytes", maxAdvertised)
		}
		if err := upstreamSays(p); err != nil {
			return err
		}
		f.see(p.Text())
	}
}

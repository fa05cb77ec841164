package gitgate

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/bottle-run/bottle/sidecar/gitgate/internal/pack"
	"github.com/bottle-run/bottle/sidecar/gitgate/internal/pktline"
)

// maxEdges is how many commits of the upstream's, on which a push stands, are asked about.
const maxEdges = 1000

// descends reports whether a commit descends from another, which the upstream has. What the
// push brings is walked; if that ends at commits that only the upstream has, it is asked for
// those that lie in between.
func (p *pusher) descends(from, to pack.ID) (bool, error) {
	edges, found, err := walk(p.pack, p.has.format, []pack.ID{from}, to)
	if err != nil || found || len(edges) == 0 {
		return found, err
	}
	if len(edges) > maxEdges {
		return false, fmt.Errorf("it stands on more than %d commits", maxEdges)
	}
	file, err := p.st.quarantine()
	if err != nil {
		return false, err
	}
	defer file.Close()
	between, err := p.between(file, edges, to)
	if err != nil {
		return false, err
	}
	_, found, err = walk(between, p.has.format, edges, to)
	return found, err
}

// walk follows the parents of commits within a pack. It returns the commits at which it came
// out of it, and whether it came to a commit.
func walk(p *pack.Pack, f pack.Format, from []pack.ID, to pack.ID) (edges []pack.ID, found bool, err error) {
	seen := map[pack.ID]bool{}
	for len(from) > 0 {
		id := from[len(from)-1]
		from = from[:len(from)-1]
		if id == to {
			return nil, true, nil
		}
		if seen[id] {
			continue
		}
		seen[id] = true
		i, ok := p.Find(id)
		if !ok {
			edges = append(edges, id)
			continue
		}
		if p.Type(i) != pack.Commit {
			return nil, false, fmt.Errorf("%s is a %v, not a commit", f.Hex(id), p.Type(i))
		}
		content, err := p.Content(i)
		if err != nil {
			return nil, false, err
		}
		header, err := f.ReadCommit(content)
		if err != nil {
			return nil, false, err
		}
		from = append(from, header.Parents...)
	}
	return edges, false, nil
}

// between fetches the commits that can be reached from some and not from another.
func (p *pusher) between(file pack.File, from []pack.ID, to pack.ID) (*pack.Pack, error) {
	s, err := p.repo.up.open(p.ctx, uploadPack, 2)
	if err != nil {
		return nil, err
	}
	defer s.close()
	filter, err := fetchable(s)
	if err != nil {
		return nil, err
	}
	f := p.has.format
	body := pktline.AppendString(nil, "command=fetch\n")
	body = pktline.AppendString(body, "agent="+agentName+"\n")
	if f != pack.SHA1 {
		body = pktline.AppendString(body, "object-format="+f.String()+"\n")
	}
	body = pktline.AppendDelim(body)
	for _, arg := range []string{"no-progress", "ofs-delta"} {
		body = pktline.AppendString(body, arg+"\n")
	}
	if filter {
		body = pktline.AppendString(body, "filter tree:0\n")
	}
	for _, id := range from {
		body = pktline.AppendString(body, "want "+f.Hex(id)+"\n")
	}
	body = pktline.AppendString(body, "have "+f.Hex(to)+"\n")
	body = pktline.AppendString(body, "done\n")
	body = pktline.AppendFlush(body)
	answer, err := s.ask(bytes.NewReader(body), int64(len(body)))
	if err != nil {
		return nil, err
	}
	for {
		pkt, err := answer.Next()
		if err != nil {
			return nil, s.trouble(upstreamFailed("asking the upstream for its history: %w", unexpected(err)))
		}
		if err := upstreamSays(pkt); err != nil {
			return nil, err
		}
		if pkt.Kind == pktline.Flush {
			return nil, upstreamFailed("asking the upstream for its history: it sent none")
		}
		if pkt.Kind == pktline.Data && pkt.Text() == "packfile" {
			break
		}
	}
	between, err := pack.Receive(&bandReader{r: answer}, file, f, p.st.packLimits(), func(int, pack.Type, int64, io.Reader) error { return nil })
	if err != nil {
		return nil, s.trouble(upstreamFailed("asking the upstream for its history: %w", err))
	}
	return between, nil
}

// fetchable reads what an upstream can do, and says whether it leaves out what is filtered.
func fetchable(s session) (filter bool, err error) {
	version, fetch := false, false
	for {
		p, err := s.advertisement().Next()
		if err != nil {
			return false, s.trouble(upstreamFailed("reading what the upstream can do: %w", unexpected(err)))
		}
		if err := upstreamSays(p); err != nil {
			return false, err
		}
		if p.Kind == pktline.Flush {
			break
		}
		text := p.Text()
		version = version || text == "version 2"
		if !version {
			return false, errors.New("the upstream does not speak protocol version 2")
		}
		if name, value, _ := strings.Cut(text, "="); name == "fetch" {
			fetch = true
			for feature := range strings.FieldsSeq(value) {
				filter = filter || feature == "filter"
			}
		}
	}
	if !fetch {
		return false, errors.New("the upstream does not speak protocol version 2")
	}
	return filter, nil
}

// bandReader reads what is sent in the band of data, up to the flush that ends it.
type bandReader struct {
	r    *pktline.Reader
	rest []byte
	err  error
}

func (b *bandReader) Read(p []byte) (int, error) {
	for len(b.rest) == 0 && b.err == nil {
		pkt, err := b.r.Next()
		switch {
		case err != nil:
			b.err = unexpected(err)
		case pkt.Kind != pktline.Data:
			b.err = io.EOF
		case len(pkt.Data) == 0:
		case pkt.Data[0] == pktline.BandData:
			b.rest = pkt.Data[1:]
		case pkt.Data[0] == pktline.BandError:
			b.err = upstreamFailed("the upstream says: %s", clip(oneLine(string(pkt.Data[1:])), 500))
		}
	}
	if len(b.rest) == 0 {
		return 0, b.err
	}
	n := copy(p, b.rest)
	b.rest = b.rest[n:]
	return n, nil
}

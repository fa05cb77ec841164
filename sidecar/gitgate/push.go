package gitgate

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/bottle-run/bottle/sidecar/gitgate/internal/pack"
	"github.com/bottle-run/bottle/sidecar/gitgate/internal/pktline"
)

// maxShallow is how many commits a client may say its history is cut off at.
const maxShallow = 100_000

// command is a change of one reference.
type command struct {
	old, new pack.ID
	name     string
}

func (c *command) deletes() bool { return c.new == pack.ID{} }
func (c *command) creates() bool { return c.old == pack.ID{} }

// pusher serves one connection that pushes.
type pusher struct {
	*client
	repo     *repository
	s        session
	has      *advert // what the upstream is and has
	caps     []string
	shallow  []string
	commands []command
	file     *os.File
	pack     *pack.Pack // nil if the push only deletes
}

func (c *client) push(repo *repository) error {
	if repo.push == nil {
		return deny("read-only", "nothing may be pushed to %s: ask the operator to allow branches for it", repo.name)
	}
	select {
	case c.st.pushes <- struct{}{}:
		defer func() { <-c.st.pushes }()
	case <-c.ctx.Done():
		return c.ctx.Err()
	}
	s, err := repo.up.open(c.ctx, receivePack, 0)
	if err != nil {
		return err
	}
	defer s.close()
	p := &pusher{client: c, repo: repo, s: s}
	if err := p.advertise(); err != nil {
		return err
	}
	some, err := p.readCommands()
	if err != nil {
		if p.asked("side-band-64k") {
			// From here on the client takes nothing else for an answer.
			p.hangUp()
			return p.refuse(err)
		}
		return err
	}
	if !some {
		p.hangUp()
		return nil
	}
	err = p.serve()
	if p.file != nil {
		p.file.Close()
	}
	return err
}

// hangUp ends a session in which nothing is to be changed.
func (p *pusher) hangUp() {
	if w := p.s.stream(); w != nil {
		_, _ = io.WriteString(w, "0000")
	}
}

// serve does what the commands say, or tells the client why not.
func (p *pusher) serve() error {
	err := p.judge()
	if err != nil {
		p.hangUp()
		return p.refuse(err)
	}
	return p.forward()
}

// judge says whether the push may be passed on.
func (p *pusher) judge() error {
	for i := range p.commands {
		if err := p.judgeRef(&p.commands[i]); err != nil {
			return err
		}
	}
	if !slices.ContainsFunc(p.commands, func(c command) bool { return !c.deletes() }) {
		return nil
	}
	var err error
	if p.file, err = p.st.quarantine(); err != nil {
		return err
	}
	in := newInspector(p)
	if p.pack, err = pack.Receive(p.r.R, p.file, p.has.format, p.st.packLimits(), in.visit); err != nil {
		if errors.Is(err, syscall.ENOSPC) {
			return deny("pack", "there is no room for the pack in the gate's quarantine: push in several steps, or ask the operator for more")
		}
		if errors.Is(err, pack.ErrRefused) || errors.Is(err, pack.ErrObject) {
			return deny("pack", "%v", err)
		}
		return err
	}
	if err := in.conclude(); err != nil {
		return err
	}
	for i := range p.commands {
		if err := p.judgeUpdate(&p.commands[i]); err != nil {
			return err
		}
	}
	return nil
}

// pushCaps are the capabilities that are offered if the upstream has them.
var pushCaps = []string{"report-status", "report-status-v2", "delete-refs", "ofs-delta", "atomic", "quiet"}

// advertise passes on what the upstream says of its references. Clients are told not to send
// deltas against what is not in the pack: no git does then, and the gate can look at every
// object without asking for others.
func (p *pusher) advertise() error {
	first, err := p.s.advertisement().Next()
	if err != nil {
		return p.s.trouble(upstreamFailed("reading what the upstream has: %w", unexpected(err)))
	}
	if p.has, err = readAdvert(p.s, first); err != nil {
		return err
	}
	if !p.has.has("report-status") {
		return upstreamFailed("the upstream cannot tell how a push went (report-status)")
	}
	caps := []string{"no-thin", "side-band-64k", "agent=" + agentName, "object-format=" + p.has.format.String()}
	for _, c := range pushCaps {
		if p.has.has(c) {
			caps = append(caps, c)
		}
	}
	if _, err := p.w.Write(p.has.write(caps)); err != nil {
		return fmt.Errorf("answering: %w", err)
	}
	p.caps = caps
	if err := p.w.Flush(); err != nil {
		return fmt.Errorf("answering: %w", err)
	}
	return nil
}

// readCommands reads what is to be done. It reports whether that is anything.
func (p *pusher) readCommands() (bool, error) {
	offered := p.caps
	p.caps = nil
	for first := true; ; {
		pkt, err := p.r.Next()
		if err != nil {
			if errors.Is(err, io.EOF) && first && len(p.shallow) == 0 {
				return false, nil
			}
			return false, fmt.Errorf("reading what is to be pushed: %w", unexpected(err))
		}
		if pkt.Kind == pktline.Flush {
			return len(p.commands) > 0, nil
		}
		if pkt.Kind != pktline.Data {
			return false, deny("malformed", "what is to be pushed is malformed")
		}
		line := pkt.Text()
		if shallow, ok := strings.CutPrefix(line, "shallow "); ok && first {
			if _, ok := p.has.format.Parse(shallow); !ok || len(p.shallow) == maxShallow {
				return false, deny("malformed", "what is to be pushed is malformed")
			}
			p.shallow = append(p.shallow, shallow)
			continue
		}
		if first {
			first = false
			var caps string
			line, caps, _ = strings.Cut(line, "\x00")
			for c := range strings.FieldsSeq(caps) {
				switch {
				case strings.HasPrefix(c, "agent="), strings.HasPrefix(c, "session-id="):
				case slices.Contains(offered, c):
					p.caps = append(p.caps, c)
				case c == "push-options":
					return false, deny("capability", "push options are not passed on: push without them")
				default:
					return false, deny("capability", "the git gate does not pass on %q", clip(c, 40))
				}
			}
		}
		c, err := parseCommand(p.has.format, line)
		if err != nil {
			return false, err
		}
		if len(p.commands) == p.st.limits.Refs {
			return false, deny("too-many-refs", "more than %d references are pushed at once: push fewer at a time", p.st.limits.Refs)
		}
		if slices.ContainsFunc(p.commands, func(o command) bool { return o.name == c.name }) {
			return false, deny("malformed", "a reference is pushed twice")
		}
		p.commands = append(p.commands, c)
		p.refs = append(p.refs, p.st.mask(clip(printable(line), 400)))
	}
}

// parseCommand reads "OLD NEW NAME".
func parseCommand(f pack.Format, line string) (command, error) {
	if strings.HasPrefix(line, "push-cert") {
		return command{}, deny("capability", "signed pushes are not passed on: push with --no-signed")
	}
	var c command
	parts := strings.SplitN(line, " ", 3)
	if len(parts) == 3 {
		var okOld, okNew bool
		c.old, okOld = f.Parse(parts[0])
		c.new, okNew = f.Parse(parts[1])
		c.name = parts[2]
		if okOld && okNew && c.name != "" && (c.old != pack.ID{} || c.new != pack.ID{}) {
			return c, nil
		}
	}
	return command{}, deny("malformed", "what is to be pushed is malformed: %q", clip(line, 200))
}

// judgeRef says whether a reference may be changed, as far as its name tells.
func (p *pusher) judgeRef(c *command) error {
	if err := p.repo.push.allows(c.name); err != nil {
		return deny("ref", "%s: %v", printable(clip(c.name, 200)), err)
	}
	if found := p.st.scanner.Text(p.repo.url.Host, c.name); found != nil {
		return deny(found.Rule, "the name of a reference holds a secret (%s): rename it", found.Rule)
	}
	switch was := p.has.refs[c.name]; {
	case c.old != was:
		return deny("stale", "%s is not what it was when the push began: fetch, and push again", c.name)
	case c.deletes() && !p.repo.push.delete:
		return deny("delete", "%s: references may not be deleted there", c.name)
	}
	return nil
}

// judgeUpdate says whether a reference may be what it is to be, as far as history tells.
func (p *pusher) judgeUpdate(c *command) error {
	if c.deletes() {
		return nil
	}
	branch := strings.HasPrefix(c.name, "refs/heads/")
	if i, ok := p.pack.Find(c.new); ok && branch && p.pack.Type(i) != pack.Commit {
		return deny("ref", "%s: a branch is at a commit, not at a %v", c.name, p.pack.Type(i))
	}
	if c.creates() || p.repo.push.force || c.old == c.new {
		return nil
	}
	if strings.HasPrefix(c.name, "refs/tags/") {
		return deny("force", "%s: a tag that is there may not be moved: give the new one another name", c.name)
	}
	descends, err := p.descends(c.new, c.old)
	switch {
	case err != nil:
		return deny("force", "%s: it cannot be told whether this is a fast-forward (%v): fetch and merge what is there, or ask the operator to allow force", c.name, err)
	case !descends:
		return deny("force", "%s: this is no fast-forward, and history may not be replaced there: fetch and merge what is there, or push to another branch", c.name)
	}
	return nil
}

// refusal is a denial with more to say than one line.
type refusal struct {
	denial
	lines []string // what, and where
	short string   // for the line of a reference
	steps []string // what to do
}

// refuse tells the client why nothing was passed on. It returns the error for the record.
func (p *pusher) refuse(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) || p.ctx.Err() != nil {
		return err // nobody is there, or the gate ends
	}
	reason := "bottle: " + clip(oneLine(p.st.mask(err.Error())), 300)
	text := []string{"this push is refused, and nothing of it has reached " + p.where() + "."}
	var r *refusal
	if errors.As(err, &r) {
		text = append(text, r.lines...)
		text = append(text, r.steps...)
		reason = "bottle: " + r.short
	} else {
		text = append(text, err.Error())
	}
	if p.asked("side-band-64k") {
		w := pktline.Sideband(p.w, pktline.BandProgress)
		for _, line := range text {
			if _, err := io.WriteString(w, "bottle: "+clip(oneLine(p.st.mask(line)), 900)+"\n"); err != nil {
				return err
			}
		}
	}
	if p.asked("report-status") || p.asked("report-status-v2") {
		report := pktline.AppendString(nil, "unpack ok\n")
		for _, c := range p.commands {
			report = pktline.AppendString(report, "ng "+printable(c.name)+" "+reason+"\n")
		}
		if err := p.report(pktline.AppendFlush(report)); err != nil {
			return err
		}
	}
	_ = p.w.Flush()
	_ = p.conn.CloseWrite()
	p.drain()
	return errTold{err}
}

func (p *pusher) where() string {
	if p.repo.url.Host == "" {
		return "the upstream"
	}
	return p.repo.url.Host
}

func (p *pusher) asked(name string) bool { return slices.Contains(p.caps, name) }

// report sends what stands in the band of data, and the end of it.
func (p *pusher) report(b []byte) error {
	w := io.Writer(p.w)
	if p.asked("side-band-64k") {
		w = pktline.Sideband(p.w, pktline.BandData)
		defer func() { _, _ = p.w.WriteString("0000") }()
	}
	_, err := w.Write(b)
	return err
}

// drainTime is how long a client may go on sending a pack that was refused.
const drainTime = 2 * time.Minute

// drain reads the rest of a pack that was refused: git reads why when it has sent it.
func (p *pusher) drain() {
	_ = p.conn.Conn.SetReadDeadline(time.Now().Add(drainTime))
	_, _ = io.CopyN(io.Discard, p.conn.Conn, p.st.limits.PackBytes)
}

// forward passes the push on and the answer back.
func (p *pusher) forward() error {
	caps := []string{"agent=" + agentName}
	for _, c := range p.caps {
		if p.has.has(c) && c != "side-band-64k" {
			caps = append(caps, c)
		}
	}
	if !slices.ContainsFunc(caps, func(c string) bool { return strings.HasPrefix(c, "report-status") }) {
		caps = append(caps, "report-status") // the gate wants to know
	}
	banded := p.has.has("side-band-64k")
	if banded {
		caps = append(caps, "side-band-64k")
	}
	if p.has.format != pack.SHA1 && !slices.ContainsFunc(caps, func(c string) bool { return strings.HasPrefix(c, "object-format=") }) {
		caps = append(caps, "object-format="+p.has.format.String())
	}
	var body []byte
	for _, id := range p.shallow {
		body = pktline.AppendString(body, "shallow "+id+"\n")
	}
	f := p.has.format
	for i, c := range p.commands {
		line := f.Hex(c.old) + " " + f.Hex(c.new) + " " + c.name
		if i == 0 {
			line += "\x00 " + strings.Join(caps, " ")
		}
		body = pktline.AppendString(body, line)
	}
	body = pktline.AppendFlush(body)
	size := int64(len(body))
	all := io.Reader(bytes.NewReader(body))
	if p.pack != nil {
		size += p.pack.Size()
		all = io.MultiReader(all, io.NewSectionReader(p.file, 0, p.pack.Size()))
	}
	p.out = size
	answer, err := p.s.ask(all, size)
	if err == nil {
		err = p.relay(answer, banded)
	}
	if err != nil {
		err = p.s.trouble(err)
		if p.asked("side-band-64k") {
			_, _ = io.WriteString(pktline.Sideband(p.w, pktline.BandError), "bottle: "+clip(oneLine(p.st.mask(err.Error())), 900)+"\n")
			return errTold{err}
		}
	}
	return err
}

// relay passes on what the upstream says of a push.
func (p *pusher) relay(answer *pktline.Reader, banded bool) error {
	var report []byte // what it says of references
	toClient := p.asked("side-band-64k")
	for {
		pkt, err := answer.Next()
		if err != nil {
			return upstreamFailed("the upstream did not say how the push went: %w", unexpected(err))
		}
		p.in += int64(len(pkt.Raw))
		said := pkt.Raw
		progress := false
		if banded && pkt.Kind == pktline.Data && len(pkt.Data) > 0 {
			if progress = pkt.Data[0] != pktline.BandData; !progress {
				said = pkt.Data[1:]
			}
		}
		if !progress && (!banded || pkt.Kind == pktline.Data) && len(report) < 1<<20 {
			report = append(report, said...)
		}
		switch {
		case banded == toClient:
			_, err = p.w.Write(pkt.Raw)
		case toClient:
			_, err = pktline.Sideband(p.w, pktline.BandData).Write(pkt.Raw)
			if err == nil && pkt.Kind == pktline.Flush {
				_, err = p.w.WriteString("0000")
			}
		case !progress && pkt.Kind == pktline.Data:
			_, err = p.w.Write(said)
		}
		if err != nil {
			return fmt.Errorf("answering: %w", err)
		}
		if answer.R.Buffered() == 0 || pkt.Kind == pktline.Flush {
			if err := p.w.Flush(); err != nil {
				return fmt.Errorf("answering: %w", err)
			}
		}
		if pkt.Kind == pktline.Flush {
			return refusedBy(report)
		}
	}
}

// refusedBy returns what an upstream's report says against a push, for the record: the client
// reads it as it is.
func refusedBy(report []byte) error {
	var against []string
	r := pktline.NewReader(bytes.NewReader(report))
	for {
		p, err := r.Next()
		if err != nil || p.Kind == pktline.Flush {
			break
		}
		if text := p.Text(); strings.HasPrefix(text, "ng ") || strings.HasPrefix(text, "unpack ") && text != "unpack ok" {
			against = append(against, text)
		}
	}
	if len(against) == 0 {
		return nil
	}
	return errTold{upstreamFailed("the upstream refused it: %s", clip(strings.Join(against, "; "), 500))}
}

func (r *refusal) Unwrap() error { return &r.denial }

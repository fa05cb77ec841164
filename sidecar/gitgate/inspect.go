package gitgate

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/bottle-run/bottle/sidecar/gitgate/internal/pack"
	"github.com/bottle-run/bottle/sidecar/scan"
)

const (
	// maxFindings is how many findings of one push are told.
	maxFindings = 20
	// maxModules is the longest .gitmodules that is read, in bytes.
	maxModules = 1 << 20
	// chunk is how much of an object is scanned at once, in bytes.
	chunk = 32 << 10
)

// finding is something wrong with an object.
type finding struct {
	object int
	rule   string
	what   string
	line   int   // 0 if it is not known, or if there are no lines
	offset int64 // of the chunk in which it was found
	wide   bool  // it was found in what is UTF-16 or UTF-32
}

// inspector looks at the objects of a push. Several are looked at at a time.
type inspector struct {
	p    *pusher
	host string

	mu       sync.Mutex
	findings []finding
	more     int
	modules  map[pack.ID]bool // what trees call .gitmodules
	clean    map[named]bool   // entries of trees with which nothing is wrong: most are in many
	buffers  sync.Pool
}

func newInspector(p *pusher) *inspector {
	return &inspector{p: p, host: p.repo.url.Host, modules: map[pack.ID]bool{}, clean: map[named]bool{}, buffers: sync.Pool{New: func() any { b := make([]byte, chunk); return &b }}}
}

func (in *inspector) found(f finding) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if len(in.findings) == maxFindings {
		in.more++
		return
	}
	in.findings = append(in.findings, f)
}

func (in *inspector) secret(i int, f *scan.Finding, offset int64, wide bool) {
	in.found(finding{object: i, rule: f.Rule, what: describe(f), offset: offset, wide: wide})
}

// describe says what a finding is, in a sentence about a push.
func describe(f *scan.Finding) string {
	if name, ok := strings.CutPrefix(f.Rule, "canary:"); ok {
		return "the secret " + name + " of this bottle"
	}
	_, what, _ := strings.Cut(f.Reason, ": ")
	return "what looks like a secret: " + what + " (rule " + strings.TrimPrefix(f.Rule, "secret:") + ")"
}

// visit looks at one object.
func (in *inspector) visit(i int, kind pack.Type, _ int64, content io.Reader) error {
	if kind == pack.Tree {
		tree, err := io.ReadAll(content)
		if err != nil {
			return err
		}
		return in.tree(i, tree)
	}
	return in.text(i, content)
}

// text looks at what is stored of a commit, a tag or a file. What holds zero bytes is also
// looked at as UTF-16 and UTF-32.
func (in *inspector) text(i int, content io.Reader) error {
	buf := in.buffers.Get().(*[]byte)
	defer in.buffers.Put(buf)
	plain := in.p.st.scanner.Stream(in.host)
	var wide *scan.Stream
	var zeros widened
	var offset int64
	for {
		n, err := io.ReadFull(content, *buf)
		b := (*buf)[:n]
		if _, f := plain.Feed(b); f != nil {
			in.secret(i, f, offset, false)
			return nil
		}
		if wide == nil && bytes.IndexByte(b, 0) >= 0 {
			wide = in.p.st.scanner.Stream(in.host)
		}
		if wide != nil {
			if _, f := wide.Feed(zeros.next(b)); f != nil {
				in.secret(i, f, offset, true)
				return nil
			}
		}
		offset += int64(n)
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) && n < chunk {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// widened picks the text out of what UTF-16 and UTF-32 make of one: the bytes that stand
// beside zeros. Where there is something else it puts a line break.
type widened struct {
	zero  bool // the last byte was zero
	held  byte // the last byte, if it is not known yet whether a zero follows
	holds bool
	out   []byte
}

// next returns what is new in the text, which is valid until the next call.
func (w *widened) next(b []byte) []byte {
	w.out = w.out[:0]
	for _, c := range b {
		switch {
		case c == 0:
			if w.holds {
				w.out = append(w.out, w.held)
			}
			w.zero, w.holds = true, false
		case w.zero:
			w.out = append(w.out, c)
			w.zero, w.holds = false, false
		default:
			if w.holds && (len(w.out) == 0 || w.out[len(w.out)-1] != '\n') {
				w.out = append(w.out, '\n')
			}
			w.held, w.holds = c, true
		}
	}
	return w.out
}

// tree looks at the names in a tree.
func (in *inspector) tree(i int, tree []byte) error {
	var names []string  // to be scanned
	var checked []named // that are well formed, and of which only the name matters
	err := in.p.has.format.WalkTree(tree, func(e pack.TreeEntry) error {
		n := named{e.Mode, e.Name}
		if in.known(n) {
			return nil
		}
		names = append(names, e.Name)
		if err := pack.CheckEntry(e); err != nil {
			in.found(finding{object: i, rule: "tree", what: strings.TrimPrefix(err.Error(), pack.ErrObject.Error()+": ")})
			return nil
		}
		if pack.IsGitmodules(e.Name) {
			if e.Mode == pack.ModeSymlink {
				in.found(finding{object: i, rule: "tree", what: ".gitmodules is a symbolic link, which git does not follow (CVE-2018-11235)"})
			}
			in.mu.Lock()
			in.modules[e.ID] = true
			in.mu.Unlock()
			return nil
		}
		checked = append(checked, n)
		return nil
	})
	if err != nil {
		return err
	}
	if len(names) == 0 {
		return nil
	}
	if f := in.p.st.scanner.Text(in.host, strings.Join(names, "\n")); f != nil {
		in.found(finding{object: i, rule: f.Rule, what: "the name of a file holds " + describe(f)})
		return nil
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	for _, n := range checked {
		if len(in.clean) < maxClean {
			in.clean[n] = true
		}
	}
	return nil
}

// named is an entry of a tree without what it is about.
type named struct {
	mode pack.Mode
	name string
}

// maxClean is how many entries are remembered.
const maxClean = 50_000

// known reports whether nothing is wrong with an entry.
func (in *inspector) known(n named) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.clean[n]
}

// conclude says what was found, if anything.
func (in *inspector) conclude() error {
	p := in.p.pack
	for id := range in.modules {
		i, ok := p.Find(id)
		if !ok || p.Type(i) != pack.Blob {
			continue // the upstream has it already
		}
		r, err := p.Open(i)
		if errors.Is(err, pack.ErrRefused) {
			return deny("pack", "%v", err)
		}
		if err != nil {
			return err
		}
		text, err := io.ReadAll(io.LimitReader(r, maxModules+1))
		if err != nil {
			return err
		}
		if len(text) > maxModules {
			in.found(finding{object: i, rule: "submodule", what: fmt.Sprintf("a .gitmodules of more than %d bytes", maxModules)})
			continue
		}
		if line, what := checkModules(string(text)); what != "" {
			in.found(finding{object: i, rule: "submodule", what: what, line: line})
		}
	}
	if len(in.findings) == 0 {
		return nil
	}
	slices.SortFunc(in.findings, func(a, b finding) int { return cmp.Or(cmp.Compare(a.object, b.object), cmp.Compare(a.what, b.what)) })
	places, err := in.places()
	if err != nil && !errors.Is(err, pack.ErrRefused) {
		return err
	}
	return in.tell(places) // without places if finding them is too much work
}

// tell puts findings into words.
func (in *inspector) tell(places map[int]place) error {
	first := in.findings[0]
	r := &refusal{denial: denial{rule: first.rule}}
	rules := map[string]bool{}
	for _, f := range in.findings {
		where, err := in.where(f, places)
		if err != nil {
			return err
		}
		r.lines = append(r.lines, where+": "+f.what)
		if rule, ok := strings.CutPrefix(f.rule, "secret:"); ok {
			rules[rule] = true
		}
	}
	if in.more > 0 {
		r.lines = append(r.lines, fmt.Sprintf("and %d more", in.more))
	}
	r.reason = strings.Join(r.lines, "; ")
	switch first.rule {
	case "tree", "submodule":
		r.short = "what is pushed would be a trap for who checks it out"
		r.steps = []string{"What to do: take it out of every commit of the push, not only out of the newest: git rebase -i, or git commit --amend."}
	default:
		r.short = "a secret is in what is pushed"
		r.steps = []string{"What to do: take the secret out of every commit of the push, not only out of the newest: git rebase -i, or git commit --amend. If it has been anywhere else, have it revoked."}
		if len(rules) > 0 {
			var names []string
			for rule := range rules {
				names = append(names, rule)
			}
			slices.Sort(names)
			host := in.host
			if host == "" {
				host = "this upstream"
			}
			r.steps = append(r.steps, fmt.Sprintf("If it is none, ask the operator to exempt %s for the rule %s.", host, strings.Join(names, ", ")))
		}
	}
	return r
}

// place is where in a history an object is.
type place struct {
	commit int // number of the commit; -1 if no commit of the push has it
	path   string
}

// places finds where objects are, the oldest commit first: packs hold the newest first.
func (in *inspector) places() (map[int]place, error) {
	p, f := in.p.pack, in.p.has.format
	wanted := map[int]bool{}
	for _, found := range in.findings {
		wanted[found.object] = true
	}
	places := map[int]place{}
	seen := make([]bool, p.Len())
	var descend func(tree, commit int, path string) error
	descend = func(tree, commit int, path string) error {
		if seen[tree] {
			return nil
		}
		seen[tree] = true
		if wanted[tree] {
			places[tree] = place{commit, path}
		}
		content, err := p.Content(tree)
		if err != nil {
			return err
		}
		return f.WalkTree(content, func(e pack.TreeEntry) error {
			i, ok := p.Find(e.ID)
			if !ok {
				return nil
			}
			below := strings.TrimPrefix(path+"/"+e.Name, "/")
			if p.Type(i) == pack.Tree {
				if strings.Count(below, "/") > maxPathDepth {
					return nil
				}
				return descend(i, commit, below)
			}
			if wanted[i] && !seen[i] {
				seen[i] = true
				places[i] = place{commit, below}
			}
			return nil
		})
	}
	for c := p.Len() - 1; c >= 0; c-- {
		if p.Type(c) != pack.Commit {
			continue
		}
		content, err := p.Content(c)
		if err != nil {
			return nil, err
		}
		// One that is malformed is the upstream's to refuse.
		header, err := f.ReadCommit(content)
		if err != nil {
			continue
		}
		if root, ok := p.Find(header.Tree); ok && p.Type(root) == pack.Tree {
			if err := descend(root, c, ""); err != nil {
				return nil, err
			}
		}
	}
	return places, nil
}

// maxPathDepth is how deep directories are followed to name a place.
const maxPathDepth = 1000

// where names the place of a finding.
func (in *inspector) where(f finding, places map[int]place) (string, error) {
	p, format := in.p.pack, in.p.has.format
	short := func(i int) string { return format.Hex(p.ID(i))[:12] }
	line := f.line
	if line == 0 && p.Type(f.object) != pack.Tree {
		var err error
		if line, err = in.lineOf(f); err != nil {
			return "", err
		}
	}
	suffix := ""
	if line > 0 {
		suffix = fmt.Sprintf(", line %d", line)
	}
	switch kind := p.Type(f.object); kind {
	case pack.Commit:
		return "commit " + short(f.object) + " itself" + suffix, nil
	case pack.Tag:
		return "tag " + short(f.object) + " itself" + suffix, nil
	default:
		at, ok := places[f.object]
		if places == nil {
			return fmt.Sprintf("%v %s%s", kind, short(f.object), suffix), nil
		}
		if !ok {
			return fmt.Sprintf("%v %s, which no commit of the push has%s", kind, short(f.object), suffix), nil
		}
		path := at.path
		if kind == pack.Tree {
			path = "directory /" + path
		}
		return "commit " + short(at.commit) + ", " + clip(path, 300) + suffix, nil
	}
}

// lineOf scans an object again to find the line at which a finding ends: as before up to the
// chunk in which it was found, and that line by line.
func (in *inspector) lineOf(f finding) (int, error) {
	r, err := in.p.pack.Open(f.object)
	if errors.Is(err, pack.ErrRefused) {
		return 0, nil // too much work
	}
	if err != nil {
		return 0, err
	}
	stream := in.p.st.scanner.Stream(in.host)
	var zeros widened
	feed := func(b []byte) bool {
		if f.wide {
			b = zeros.next(b)
		}
		_, found := stream.Feed(b)
		return found != nil
	}
	line := 1
	buf := make([]byte, chunk)
	for at := int64(0); at < f.offset; at += chunk {
		n, err := io.ReadFull(r, buf)
		if err != nil {
			return 0, nil //nolint:nilerr // it was read before: the place is not worth failing for
		}
		line += bytes.Count(buf[:n], []byte("\n"))
		if feed(buf[:n]) {
			return line, nil
		}
	}
	br := bufio.NewReaderSize(io.LimitReader(r, chunk), chunk)
	for {
		text, err := br.ReadSlice('\n')
		if len(text) == 0 && err != nil {
			return line, nil
		}
		ended := bytes.HasSuffix(text, []byte("\n"))
		if feed(text) {
			return line, nil
		}
		if ended {
			line++
		}
	}
}

package supervise

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/bottle-run/bottle/sidecar/audit"
	"github.com/bottle-run/bottle/sidecar/config"
	"github.com/bottle-run/bottle/sidecar/supervise/change"
	"github.com/bottle-run/bottle/sidecar/supervise/effect"
	"github.com/bottle-run/bottle/sidecar/supervise/ledger"
	"github.com/bottle-run/bottle/sidecar/supervise/operator"
	"github.com/bottle-run/bottle/sidecar/supervise/show"
	"github.com/bottle-run/bottle/sidecar/supervise/textdiff"
)

// Control adds what an operator may do to the mux of the control socket. Lock is held by
// whoever replaces the files of the sidecar.
func (s *Service) Control(mux *http.ServeMux, lock sync.Locker) {
	handle := func(pattern string, do func(r *http.Request) (any, error)) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			result, err := func() (any, error) {
				if s.ledger.Config() == nil {
					return nil, errUnconfigured
				}
				return do(r)
			}()
			if err != nil {
				w.WriteHeader(status(err))
				_, _ = io.WriteString(w, show.Line(err.Error())) // the client may be gone
				return
			}
			_, _ = w.Write(encode(result))
		})
	}
	handle("GET /proposals", func(*http.Request) (any, error) { return s.List(), nil })
	handle("GET /proposals/{id}", func(r *http.Request) (any, error) { return s.view(r.PathValue("id"), nil) })
	handle("POST /proposals/{id}/preview", func(r *http.Request) (any, error) {
		var e operator.Edit
		if err := decode(r, &e); err != nil {
			return nil, err
		}
		return s.view(r.PathValue("id"), &e.Change)
	})
	handle("POST /proposals/{id}/approve", func(r *http.Request) (any, error) {
		var a ledger.Approval
		if err := decode(r, &a); err != nil {
			return nil, err
		}
		return s.begin(r.PathValue("id"), a)
	})
	handle("POST /proposals/{id}/finish", func(r *http.Request) (any, error) {
		var f operator.Finish
		if err := decode(r, &f); err != nil {
			return nil, err
		}
		lock.Lock()
		defer lock.Unlock()
		return s.finish(r.PathValue("id"), f)
	})
	handle("POST /proposals/{id}/deny", func(r *http.Request) (any, error) {
		var d operator.Denial
		if err := decode(r, &d); err != nil {
			return nil, err
		}
		return s.deny(r.PathValue("id"), d)
	})
	mux.HandleFunc("GET /proposals/watch", s.watch)
}

// status is how an error travels.
func status(err error) int {
	var invalid *change.Error
	switch {
	case errors.Is(err, ledger.ErrNotFound):
		return http.StatusNotFound
	case errors.Is(err, ledger.ErrStale):
		return http.StatusPreconditionFailed
	case errors.Is(err, ledger.ErrKept):
		return http.StatusInsufficientStorage
	case errors.As(err, &invalid), errors.Is(err, errInput):
		return http.StatusUnprocessableEntity
	}
	return http.StatusConflict
}

var errInput = errors.New("reading the request")

// decode reads one JSON value of bounded size, strictly.
func decode(r *http.Request, into any) error {
	data, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	if err != nil {
		return fmt.Errorf("%w: %w", errInput, err)
	}
	if len(data) > maxBody {
		return fmt.Errorf("%w: it has more than %d bytes", errInput, maxBody)
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return fmt.Errorf("%w: %w", errInput, err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: something follows the JSON", errInput)
	}
	return nil
}

// encode writes JSON of plain ASCII.
func encode(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err) // these types can be written
	}
	return append(show.JSON(data), '\n')
}

// List returns all proposals, oldest first.
func (s *Service) List() operator.List {
	seq, _ := s.ledger.Sequence()
	conf := s.ledger.Config()
	l := operator.List{Sequence: seq, Agent: conf.Agent, PolicyRevision: change.Revision(conf.Policy), Proposals: []operator.Summary{}}
	for _, p := range s.ledger.List() {
		sum := operator.Summary{
			ID: p.ID, State: p.State, Kind: p.Change.Kind, Made: p.Made.Format("2006-01-02T15:04:05Z07:00"),
			Title: title(p.Change), Reason: clip(show.Line(p.Reason), 200), Revision: p.Revision,
		}
		if p.Decision != nil {
			sum.By = p.Decision.By
		}
		l.Proposals = append(l.Proposals, sum)
	}
	return l
}

// watch streams the list, one line of JSON with every change, until the client goes.
func (s *Service) watch(w http.ResponseWriter, r *http.Request) {
	if s.ledger.Config() == nil {
		w.WriteHeader(http.StatusConflict)
		_, _ = io.WriteString(w, errUnconfigured.Error()) // the client may be gone
		return
	}
	c := http.NewResponseController(w)
	if err := c.SetReadDeadline(time.Time{}); err != nil { // that of the request would end it
		return
	}
	for {
		_, changed := s.ledger.Sequence()
		if _, err := w.Write(encode(s.List())); err != nil {
			return
		}
		if err := c.Flush(); err != nil {
			return
		}
		select {
		case <-r.Context().Done():
			return
		case <-s.ended.Done():
			return
		case <-changed:
		}
	}
}

// view shows a proposal, or what another change in its place would do.
func (s *Service) view(id string, edited *change.Change) (operator.View, error) {
	p, err := s.ledger.Get(id)
	if err != nil {
		return operator.View{}, err
	}
	now := s.ledger.Config().Policy
	c := p.Change
	switch {
	case edited != nil:
		c = *edited
	case p.Decision != nil && p.Decision.Edited != nil:
		c = *p.Decision.Edited
	}
	v := operator.View{
		Proposal: p, PolicyRevision: change.Revision(now), Title: title(c), Reason: show.Block(p.Reason),
		Effect: effect.Effect{Permits: []effect.Item{}, Revokes: []effect.Item{}},
	}
	after, err := c.Apply(now, "proposal:"+id)
	if err != nil {
		if edited != nil {
			return operator.View{}, err
		}
		if !p.State.Final() {
			v.Conflict = show.Line(err.Error())
		}
		return v, nil
	}
	v.Effect = effect.Compare(now, after)
	v.Diff = diff(now, after)
	return v, nil
}

// diff writes the part of the policy that differs.
func diff(before, after config.Policy) string {
	part := func(name string, a, b any) string {
		return textdiff.Unified(name+" (in force)", name+" (proposed)", indented(a), indented(b))
	}
	text := part("egress.allow", before.Allow, after.Allow) + part("egress.routes", before.Routes, after.Routes) + part("git", before.Git, after.Git) +
		textdiff.Unified("Dockerfile (in force)", "Dockerfile (proposed)", before.Dockerfile, after.Dockerfile)
	if before.AllowAll != after.AllowAll {
		text += part("egress.allow_all", before.AllowAll, after.AllowAll)
	}
	return show.Block(text)
}

func indented(v any) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		panic(err) // these types can be written
	}
	return b.String()
}

// title is a change in a few words, escaped.
func title(c change.Change) string {
	var words []string
	add := func(sign, what string) { words = append(words, sign+show.Line(clip(what, 100))) }
	switch {
	case c.Allow != nil:
		for _, r := range c.Allow.Add {
			add("+", hostPorts(r.Host, r.Ports))
		}
		for _, name := range c.Allow.Remove {
			add("-", name)
		}
		if c.Allow.Replace != nil {
			add("", fmt.Sprintf("a whole new allowlist of %d entries", len(*c.Allow.Replace)))
		}
	case c.Routes != nil:
		for _, r := range c.Routes.Add {
			what := strings.TrimSpace(strings.Join(r.Methods, ",") + " " + hostPorts(r.Host, r.Ports) + " " + strings.Join(r.Paths, " "))
			if r.Credential != nil {
				what += " with " + r.Credential.Secret
			}
			add("+", what)
		}
		for _, name := range c.Routes.Remove {
			add("-", name)
		}
		if c.Routes.Replace != nil {
			add("", fmt.Sprintf("a whole new list of %d routes", len(*c.Routes.Replace)))
		}
	case c.GitPush != nil:
		add("", "push to "+c.GitPush.Repository)
	case c.Dockerfile != nil && c.Dockerfile.Content != "":
		add("", fmt.Sprintf("a whole new Dockerfile of %d bytes", len(c.Dockerfile.Content)))
	case c.Dockerfile != nil:
		add("", fmt.Sprintf("%d edits of the Dockerfile", len(c.Dockerfile.Edits)))
	}
	if len(words) > 5 {
		words = append(words[:5], fmt.Sprintf("and %d more", len(words)-5))
	}
	return strings.Join(words, "; ")
}

func hostPorts(host string, ports []uint16) string {
	for i, p := range ports {
		sep := ","
		if i == 0 {
			sep = ":"
		}
		host += fmt.Sprint(sep, p)
	}
	return host
}

// begin reserves a proposal for its approval.
func (s *Service) begin(id string, a ledger.Approval) (ledger.Begun, error) {
	if err := named(a.By); err != nil {
		return ledger.Begun{}, err
	}
	before := s.ledger.Config().Policy
	b, err := s.ledger.Begin(id, a)
	if err != nil {
		return ledger.Begun{}, err
	}
	e := eventOf(b.Proposal, "applying", a.By)
	e.Permits = texts(effect.Compare(before, b.Policy).Permits)
	s.record(audit.Ask, e, a.Reason)
	return b, nil
}

// finish ends what begin began.
func (s *Service) finish(id string, f operator.Finish) (ledger.Proposal, error) {
	if err := named(f.By); err != nil {
		return ledger.Proposal{}, err
	}
	p, err := s.ledger.Finish(id, f.Token, f.Failed)
	switch {
	case err != nil && p.ID == "":
		return p, err
	case err != nil:
		s.record(audit.Error, eventOf(p, "failed", f.By), err.Error())
		return p, err
	case f.Failed != "":
		s.record(audit.Error, eventOf(p, "failed", f.By), clip(f.Failed, 500))
		return p, nil
	}
	s.keep()
	s.record(audit.Allow, eventOf(p, "approved", f.By), p.Decision.Reason)
	return p, nil
}

func (s *Service) deny(id string, d operator.Denial) (ledger.Proposal, error) {
	if err := named(d.By); err != nil {
		return ledger.Proposal{}, err
	}
	p, err := s.ledger.Deny(id, d.Revision, d.By, d.Reason)
	if err != nil {
		return p, err
	}
	s.record(audit.Deny, eventOf(p, "denied", d.By), d.Reason)
	return p, nil
}

// named refuses a decision of nobody.
func named(by string) error {
	if strings.TrimSpace(by) == "" || len(by) > 200 {
		return fmt.Errorf("%w: by says who decides, in at most 200 bytes", errInput)
	}
	return nil
}

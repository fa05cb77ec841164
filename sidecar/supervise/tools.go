package supervise

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/bottle-run/bottle/sidecar/audit"
	"github.com/bottle-run/bottle/sidecar/config"
	"github.com/bottle-run/bottle/sidecar/policy"
	"github.com/bottle-run/bottle/sidecar/supervise/change"
	"github.com/bottle-run/bottle/sidecar/supervise/effect"
	"github.com/bottle-run/bottle/sidecar/supervise/ledger"
)

// beat is how long lies between two notifications of progress.
const beat = 5 * time.Second

const instructions = `This server changes the limits of the sandbox that you run in, if its operator agrees. ` +
	`Read the limits with get_configuration. If a request was denied and you need it, propose exactly what you need with propose_egress, propose_routes, ` +
	`propose_git_push or propose_dockerfile, with a reason that a human can judge, then call wait_for_answer with the id: it returns when the operator has answered, ` +
	`which may take minutes. An approved change is in force at once, without a restart (but a Dockerfile: it is built at once, and you get it when the operator restarts the bottle). If your connection breaks, call wait_for_answer again. ` +
	`Ask for single hosts rather than wildcards: narrow proposals are approved sooner.`

type none struct{}

type hostEntry struct {
	Host  string   `json:"host" jsonschema:"a host name, an address, or *.NAME for every name below NAME"`
	Ports []uint16 `json:"ports,omitempty" jsonschema:"ports; default 80 and 443"`
}

type egressInput struct {
	Add     []hostEntry `json:"add,omitempty" jsonschema:"entries to add to the allowlist"`
	Remove  []string    `json:"remove,omitempty" jsonschema:"ids or hosts of entries to remove"`
	Replace []hostEntry `json:"replace,omitempty" jsonschema:"the whole new allowlist, instead of add and remove"`
	Reason  string      `json:"reason" jsonschema:"what the change is needed for; the operator decides by it"`
}

type credentialEntry struct {
	Secret    string `json:"secret" jsonschema:"name of one of the bottle's secrets"`
	Kind      string `json:"kind" jsonschema:"header, basic or query"`
	Header    string `json:"header,omitempty" jsonschema:"header of kind header; default Authorization"`
	Scheme    string `json:"scheme,omitempty" jsonschema:"what stands before the secret in the header; default Bearer for Authorization"`
	Username  string `json:"username,omitempty" jsonschema:"user name of kind basic"`
	Parameter string `json:"parameter,omitempty" jsonschema:"query parameter of kind query"`
}

type routeEntry struct {
	Host            string           `json:"host" jsonschema:"a host name, an address, or *.NAME for every name below NAME"`
	Ports           []uint16         `json:"ports,omitempty" jsonschema:"ports; default 443"`
	Methods         []string         `json:"methods,omitempty" jsonschema:"HTTP methods; default all"`
	Paths           []string         `json:"paths,omitempty" jsonschema:"patterns of paths: * within a segment, ** for any number of segments; default all"`
	Credential      *credentialEntry `json:"credential,omitempty" jsonschema:"a secret that is attached to the requests; you never see it"`
	PassCredentials bool             `json:"pass_credentials,omitempty" jsonschema:"keep credentials that you send yourself"`
}

type routesInput struct {
	Add     []routeEntry `json:"add,omitempty" jsonschema:"routes to add"`
	Remove  []string     `json:"remove,omitempty" jsonschema:"ids or hosts of routes to remove"`
	Replace []routeEntry `json:"replace,omitempty" jsonschema:"the whole new list, instead of add and remove"`
	Reason  string       `json:"reason" jsonschema:"what the change is needed for; the operator decides by it"`
}

type pushEntry struct {
	Branches []string `json:"branches,omitempty" jsonschema:"patterns of branches: * for characters but a slash, ** for any"`
	Tags     []string `json:"tags,omitempty" jsonschema:"patterns of tags"`
	Notes    []string `json:"notes,omitempty" jsonschema:"patterns below refs/notes/"`
	Force    bool     `json:"force,omitempty" jsonschema:"overwriting history"`
	Delete   bool     `json:"delete,omitempty" jsonschema:"deleting references"`
}

type pushInput struct {
	Repository string     `json:"repository" jsonschema:"name of the repository, as in the configuration"`
	Add        *pushEntry `json:"add,omitempty" jsonschema:"patterns to add, and flags to set"`
	Remove     *pushEntry `json:"remove,omitempty" jsonschema:"patterns to remove, and flags to clear"`
	Replace    *pushEntry `json:"replace,omitempty" jsonschema:"the whole new rule, instead of add and remove"`
	Reason     string     `json:"reason" jsonschema:"what the change is needed for; the operator decides by it"`
}

type editEntry struct {
	Old string `json:"old_text" jsonschema:"text that stands in the Dockerfile exactly once"`
	New string `json:"new_text" jsonschema:"what it is replaced by"`
}

type dockerfileInput struct {
	Content string      `json:"content,omitempty" jsonschema:"the whole new Dockerfile"`
	Edits   []editEntry `json:"edits,omitempty" jsonschema:"edits of the Dockerfile, instead of content, made one after the other"`
	Reason  string      `json:"reason" jsonschema:"what the change is needed for; the operator decides by it"`
}

type idInput struct {
	ID string `json:"id" jsonschema:"id of the proposal"`
}

type waitInput struct {
	ID      string `json:"id" jsonschema:"id of the proposal"`
	Timeout int    `json:"timeout_seconds,omitempty" jsonschema:"return after so many seconds even without an answer; default: wait for as long as it takes"`
}

// Answer is what the agent is told of a proposal.
type Answer struct {
	ID    string       `json:"id"`
	State ledger.State `json:"state"`
	// Message says what that means, and what to do next.
	Message string `json:"message"`
	// Permits are what would become possible, in words, when it is made.
	Permits []string `json:"permits,omitempty"`
	Reason  string   `json:"reason,omitempty"`
	// Applied is what was applied instead of what was proposed.
	Applied *change.Change `json:"applied,omitempty"`
	Kind    string         `json:"kind"`
}

func answerOf(p ledger.Proposal) Answer {
	a := Answer{ID: p.ID, State: p.State, Kind: p.Change.Kind}
	if p.Decision != nil && p.State.Final() {
		a.Reason, a.Applied = p.Decision.Reason, p.Decision.Edited
	}
	switch p.State {
	case ledger.Pending:
		a.Message = "the operator has not answered yet: call wait_for_answer"
	case ledger.Applying:
		a.Message = "the operator is about to approve it: call wait_for_answer"
	case ledger.Denied:
		a.Message = "the operator said no: nothing has changed. Do not propose the same again"
	case ledger.Withdrawn:
		a.Message = "it was withdrawn: nothing has changed"
	case ledger.Approved:
		a.Message = "the operator said yes: it is in force"
		if p.Change.Kind == config.ProposeDockerfile {
			a.Message = "the operator said yes: the image is built, and takes effect when the operator restarts the bottle. The workspace is carried over"
		}
		if a.Applied != nil {
			a.Message += ", with changes of the operator's: see applied"
		}
	}
	return a
}

// tools makes the MCP server.
func (s *Service) tools() *mcp.Server {
	server := mcp.NewServer(&mcp.Implementation{Name: "bottle-supervise", Title: "bottle supervise", Version: "1"}, &mcp.ServerOptions{
		Instructions: instructions, Capabilities: &mcp.ServerCapabilities{},
	})
	server.AddReceivingMiddleware(func(next mcp.MethodHandler) mcp.MethodHandler {
		return func(ctx context.Context, method string, req mcp.Request) (mcp.Result, error) {
			// Several may come in one request.
			if !s.requests.take() {
				return nil, errors.New("too many requests: wait for an answer with wait_for_answer instead of asking again and again")
			}
			return next(ctx, method, req)
		}
	})
	no := false
	reads := &mcp.ToolAnnotations{ReadOnlyHint: true, IdempotentHint: true, OpenWorldHint: &no}
	asks := &mcp.ToolAnnotations{DestructiveHint: &no, OpenWorldHint: &no}
	mcp.AddTool(server, &mcp.Tool{Name: "get_configuration", Annotations: reads, Description: "What this sandbox allows: the egress allowlist, routes, git push rules and the Dockerfile, and what may be proposed."},
		func(context.Context, *mcp.CallToolRequest, none) (*mcp.CallToolResult, change.Configuration, error) {
			return nil, change.ConfigurationOf(s.ledger.Config()), nil
		})
	mcp.AddTool(server, &mcp.Tool{Name: "propose_egress", Annotations: asks, Description: "Propose a change of the allowlist of hosts that may be reached. Returns the proposal's id; then call wait_for_answer."},
		func(_ context.Context, _ *mcp.CallToolRequest, in egressInput) (*mcp.CallToolResult, Answer, error) {
			return s.propose(change.Change{Kind: config.ProposeAllow, Allow: &change.Allow{
				Add: rules(in.Add), Remove: in.Remove, Replace: optional(in.Replace, rules),
			}}, in.Reason)
		})
	mcp.AddTool(server, &mcp.Tool{Name: "propose_routes", Annotations: asks, Description: "Propose a change of the routes: requests to a host by method and path, to which one of the bottle's secrets may be attached. Returns the proposal's id; then call wait_for_answer."},
		func(_ context.Context, _ *mcp.CallToolRequest, in routesInput) (*mcp.CallToolResult, Answer, error) {
			return s.propose(change.Change{Kind: config.ProposeRoutes, Routes: &change.Routes{
				Add: routes(in.Add), Remove: in.Remove, Replace: optional(in.Replace, routes),
			}}, in.Reason)
		})
	mcp.AddTool(server, &mcp.Tool{Name: "propose_git_push", Annotations: asks, Description: "Propose a change of what may be pushed to a git repository. Returns the proposal's id; then call wait_for_answer."},
		func(_ context.Context, _ *mcp.CallToolRequest, in pushInput) (*mcp.CallToolResult, Answer, error) {
			return s.propose(change.Change{Kind: config.ProposeGitPush, GitPush: &change.GitPush{
				Repository: in.Repository, Add: push(in.Add), Remove: push(in.Remove), Replace: push(in.Replace),
			}}, in.Reason)
		})
	mcp.AddTool(server, &mcp.Tool{Name: "propose_dockerfile", Annotations: asks, Description: "Propose a change of the Dockerfile of this sandbox's image, as whole new content or as edits. When approved it is built at once, without secrets, mounts and new base images, and takes effect when the operator restarts the bottle. Returns the proposal's id; then call wait_for_answer."},
		func(_ context.Context, _ *mcp.CallToolRequest, in dockerfileInput) (*mcp.CallToolResult, Answer, error) {
			d := &change.Dockerfile{Content: in.Content}
			for _, e := range in.Edits {
				d.Edits = append(d.Edits, change.Edit(e))
			}
			return s.propose(change.Change{Kind: config.ProposeDockerfile, Dockerfile: d}, in.Reason)
		})
	mcp.AddTool(server, &mcp.Tool{Name: "wait_for_answer", Annotations: reads, Description: "Wait for the operator's answer to a proposal, for as long as it takes. It can be called again at any time, after a lost connection too."}, s.wait)
	mcp.AddTool(server, &mcp.Tool{Name: "get_proposal", Annotations: reads, Description: "What has become of a proposal, without waiting."},
		func(_ context.Context, _ *mcp.CallToolRequest, in idInput) (*mcp.CallToolResult, Answer, error) {
			p, err := s.ledger.Get(in.ID)
			return nil, answerOf(p), err
		})
	mcp.AddTool(server, &mcp.Tool{Name: "list_proposals", Annotations: reads, Description: "All proposals of this sandbox that are kept, oldest first."},
		func(context.Context, *mcp.CallToolRequest, none) (*mcp.CallToolResult, listAnswer, error) {
			list := listAnswer{Proposals: []Answer{}}
			for _, p := range s.ledger.List() {
				a := answerOf(p)
				a.Applied = nil // get_proposal tells
				list.Proposals = append(list.Proposals, a)
			}
			return nil, list, nil
		})
	mcp.AddTool(server, &mcp.Tool{Name: "withdraw_proposal", Annotations: &mcp.ToolAnnotations{DestructiveHint: &no, OpenWorldHint: &no}, Description: "Take back a proposal that has no answer yet."},
		func(_ context.Context, _ *mcp.CallToolRequest, in idInput) (*mcp.CallToolResult, Answer, error) {
			p, err := s.ledger.Withdraw(in.ID)
			if err != nil {
				return nil, Answer{}, err
			}
			s.record(audit.Ask, eventOf(p, "withdrawn", "agent"), "")
			return nil, answerOf(p), nil
		})
	return server
}

type listAnswer struct {
	Proposals []Answer `json:"proposals"`
}

// propose makes a proposal, or says why not.
func (s *Service) propose(c change.Change, reason string) (*mcp.CallToolResult, Answer, error) {
	err := s.ledger.Charge()
	var p ledger.Proposal
	if err == nil {
		p, err = s.ledger.Propose(c, reason)
	}
	if err != nil {
		// The log is bounded as proposals are: it is on the host's disk.
		if s.refusals.take() {
			s.record(audit.Deny, audit.Proposal{Event: "refused", By: "agent", Kind: c.Kind}, clip(err.Error(), 500))
		}
		return nil, Answer{}, fmt.Errorf("refused: %w", err)
	}
	a := answerOf(p)
	// This takes time, so it is told here alone.
	now := s.ledger.Config().Policy
	if after, err := c.Apply(now, "proposal:"+p.ID); err == nil {
		a.Permits = texts(effect.Compare(now, after).Permits)
	}
	e := eventOf(p, "proposed", "agent")
	e.Permits = a.Permits
	s.record(audit.Ask, e, "")
	return nil, a, nil
}

func texts(items []effect.Item) []string {
	var list []string
	for _, i := range items {
		list = append(list, i.Text)
	}
	return list
}

func clip(s string, n int) string {
	if len(s) > n {
		return s[:n] + "…"
	}
	return s
}

func eventOf(p ledger.Proposal, event, by string) audit.Proposal {
	e := audit.Proposal{ID: p.ID, Event: event, By: by, Kind: p.Change.Kind, Reason: clip(p.Reason, 500), Revision: p.Revision, PolicyBefore: p.MadeAgainst}
	if d := p.Decision; d != nil {
		e.Edited, e.Scope, e.PolicyBefore, e.PolicyAfter = d.Edited != nil, d.Scope, d.Before, d.After
	}
	return e
}

// wait waits for an answer, and tells the client so.
func (s *Service) wait(ctx context.Context, req *mcp.CallToolRequest, in waitInput) (*mcp.CallToolResult, Answer, error) {
	select {
	case s.waits <- struct{}{}:
		defer func() { <-s.waits }()
	default:
		return nil, Answer{}, fmt.Errorf("%w: %d calls wait already: end one, or look with get_proposal", ledger.ErrLimit, cap(s.waits))
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// The call ends with the connection: nobody would get its result.
	if conn, ok := ctx.Value(connection{}).(context.Context); ok {
		defer context.AfterFunc(conn, cancel)()
	}
	defer context.AfterFunc(s.ended, cancel)()
	if in.Timeout > 0 {
		ctx, cancel = context.WithTimeout(ctx, time.Duration(min(in.Timeout, 7*24*3600))*time.Second)
		defer cancel()
	}
	if token := req.Params.GetProgressToken(); token != nil {
		told := make(chan struct{})
		stop := make(chan struct{})
		defer func() { close(stop); <-told }()
		go func() {
			defer close(told)
			begin := time.Now()
			ticker := time.NewTicker(beat)
			defer ticker.Stop()
			for {
				passed := time.Since(begin)
				err := req.Session.NotifyProgress(ctx, &mcp.ProgressNotificationParams{
					ProgressToken: token, Progress: passed.Seconds(), Message: fmt.Sprintf("waiting for the operator for %v", passed.Round(time.Second)),
				})
				if err != nil {
					return
				}
				select {
				case <-stop:
					return
				case <-ticker.C:
				}
			}
		}()
	}
	p, err := s.ledger.Wait(ctx, in.ID)
	return nil, answerOf(p), err
}

func rules(list []hostEntry) []policy.Rule {
	var out []policy.Rule
	for _, e := range list {
		out = append(out, policy.Rule{Host: e.Host, Ports: e.Ports})
	}
	return out
}

func routes(list []routeEntry) []policy.Route {
	var out []policy.Route
	for _, e := range list {
		r := policy.Route{Host: e.Host, Ports: e.Ports, Methods: e.Methods, Paths: e.Paths, PassCredentials: e.PassCredentials}
		if c := e.Credential; c != nil {
			r.Credential = &policy.Credential{
				Secret: c.Secret, Kind: policy.CredentialKind(c.Kind), Header: c.Header, Scheme: c.Scheme, Username: c.Username, Parameter: c.Parameter,
			}
		}
		out = append(out, r)
	}
	return out
}

// optional is nil for a list that was not given, which is another thing than an empty one.
func optional[A, B any](list []A, convert func([]A) []B) *[]B {
	if list == nil {
		return nil
	}
	out := convert(list)
	if out == nil {
		out = []B{}
	}
	return &out
}

func push(p *pushEntry) *config.GitPush {
	if p == nil {
		return nil
	}
	c := config.GitPush(*p)
	return &c
}

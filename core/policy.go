package core

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/hashicorp/go-multierror"

	"github.com/bottle-run/bottle/core/egress"
	"github.com/bottle-run/bottle/core/manifest"
	"github.com/bottle-run/bottle/sidecar/config"
	"github.com/bottle-run/bottle/sidecar/delivery"
	"github.com/bottle-run/bottle/sidecar/secrets"
)

// maxAnswer bounds what is read of a sidecar's answer, in bytes.
const maxAnswer = delivery.MaxDocument

// LivePolicy is what a bottle's sidecars have in force. It holds no secret.
type LivePolicy struct {
	Firewall *config.Firewall `json:"firewall"`
	// EgressProxy is nil if the bottle was launched without routes.
	EgressProxy *config.EgressProxy `json:"egress_proxy,omitempty"`
}

// Section writes the policy as the manifest's section egress, which [Bottle.SetPolicy]
// reads.
func (p LivePolicy) Section() ([]byte, error) {
	if e := p.EgressProxy; e != nil {
		return egress.Section(e.AllowAll, e.Allow, e.Routes)
	}
	return egress.Section(p.Firewall.AllowAll, p.Firewall.Allow, nil)
}

// Policy asks the bottle's sidecars what they have in force. A bottle without sidecars is
// of KindNotFound.
func (b *Bottle) Policy(ctx context.Context) (LivePolicy, error) {
	var p LivePolicy
	list, err := b.Sidecars(ctx)
	if err != nil {
		return p, err
	}
	if len(list) == 0 {
		return p, Errorf(KindNotFound, "bottle %s has no way out: it was launched without egress, so there is no policy", b.Name)
	}
	p.Firewall = &config.Firewall{}
	if err := b.askPolicy(ctx, RoleFirewall, p.Firewall); err != nil {
		return p, err
	}
	if slices.ContainsFunc(list, func(s Sidecar) bool { return s.Role == RoleEgressProxy }) {
		p.EgressProxy = &config.EgressProxy{}
		if err := b.askPolicy(ctx, RoleEgressProxy, p.EgressProxy); err != nil {
			return p, err
		}
	}
	return p, nil
}

func (b *Bottle) askPolicy(ctx context.Context, role string, into any) error {
	out := &cappedBuffer{max: maxAnswer}
	if err := b.AskSidecar(ctx, role, []string{"policy", "show"}, nil, out); err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(out.Bytes()))
	d.DisallowUnknownFields() // what is not known here would be lost when it is put back
	if err := d.Decode(into); err != nil {
		return fmt.Errorf("the %s of bottle %s was not launched by this version of bottle: %w", roleText(role), b.Name, err)
	}
	return nil
}

// SetPolicy puts the section egress of data into force, in the forms that
// [manifest.ParseEgress] reads; file is its name in errors. Everything is checked as when
// a bottle is planned. New tokens are taken from the host's variables; those that the
// bottle has already need not be set if they go to no new host. On an error the old policy
// stays in force.
//
// Between the changes of its two sidecars a request needs the leave of both policies.
func (b *Bottle) SetPolicy(ctx context.Context, file string, data []byte, host Host) error {
	section, err := manifest.ParseEgress(file, data, b.Agent)
	if err != nil {
		return err
	}
	live, err := b.Policy(ctx)
	if err != nil {
		return err
	}
	p, tokens, err := changed(section, live, host)
	if err != nil {
		return err
	}
	values := egress.Values{Tokens: tokens}
	firewall := *live.Firewall
	p.ApplyFirewall(&firewall)
	if err := b.putConfig(ctx, RoleFirewall, &firewall, p.FirewallSecrets(values)); err != nil {
		return err
	}
	if live.EgressProxy == nil {
		return nil
	}
	proxy := *live.EgressProxy
	p.ApplyEgressProxy(&proxy)
	err = b.putConfig(ctx, RoleEgressProxy, &proxy, p.EgressProxySecrets(values))
	if err == nil {
		return nil
	}
	back, cancel := context.WithTimeout(context.WithoutCancel(ctx), lookTime)
	defer cancel()
	if undone := b.putConfig(back, RoleFirewall, live.Firewall, nil); undone != nil {
		return fmt.Errorf("%w\nand the firewall has the new policy already: %w", err, undone)
	}
	return err
}

// changed makes the policy of a section for a bottle that runs, and the tokens that the
// bottle does not have yet.
func changed(section *manifest.Section, live LivePolicy, host Host) (*egress.Policy, map[string]string, error) {
	var errs *multierror.Error
	fail := func(keys []string, format string, args ...any) {
		errs = multierror.Append(errs, section.Errorf(keys, format, args...))
	}
	before := map[string][]string{} // token to hosts
	if live.EgressProxy != nil {
		before = egress.TokenHosts(live.EgressProxy.Routes)
	} else if len(section.Egress.Routes) > 0 {
		fail([]string{"egress", "routes"}, "routes: the bottle was launched without routes, so no egress proxy runs in it: launch it again")
	}
	kept := map[string]bool{}
	p, tokens := egress.New(egress.Source{
		Egress: section.Egress,
		LookupEnv: func(name string) (string, bool) {
			if value, ok := host.LookupEnv(name); ok {
				return value, true
			}
			_, known := before[name]
			kept[name] = known
			return "kept", known // it is not delivered again
		},
		Fail: fail,
	})
	after := egress.TokenHosts(p.Routes)
	for i, r := range p.Routes {
		if r.Credential == nil || !kept[r.Credential.Secret] {
			continue
		}
		name := r.Credential.Secret
		delete(tokens, name)
		for _, h := range after[name] {
			if !slices.Contains(before[name], h) {
				fail([]string{"egress", "routes", fmt.Sprint(i), "credential", "token"}, "token: %s may not go to %s yet, and to change that its value is needed: export it", name, h)
				break
			}
		}
	}
	if err := errs.ErrorOrNil(); err != nil {
		errs.ErrorFormat = joinLines
		return nil, nil, &Error{Kind: KindInput, Err: err}
	}
	return p, tokens, nil
}

// putConfig puts a configuration, and secrets that have values, into force in a sidecar.
func (b *Bottle) putConfig(ctx context.Context, role string, c any, list []secrets.Secret) error {
	encoded, err := json.Marshal(c)
	if err != nil {
		return err
	}
	list = slices.DeleteFunc(list, func(s secrets.Secret) bool { return s.Value == "" })
	doc, err := delivery.Document{Config: encoded, Secrets: list}.Encode()
	if err != nil {
		return err
	}
	if err := b.AskSidecar(ctx, role, []string{"put", "--wait"}, bytes.NewReader(doc), io.Discard); err != nil {
		var refused *AskError
		if errors.As(err, &refused) {
			return Errorf(KindInput, "the old policy stays in force: %w", err)
		}
		return err
	}
	return nil
}

// Verdict is what a bottle's policy says about a request.
type Verdict struct {
	// Decision is "allow" or "deny".
	Decision string `json:"decision"`
	// Sidecar is the role of the one that decides: with an egress proxy that allows it,
	// the firewall has the last word.
	Sidecar string `json:"sidecar"`
	// Rule is the id of the rule that decides.
	Rule   string `json:"rule"`
	Reason string `json:"reason,omitempty"`
	Host   string `json:"host,omitempty"`
	Port   uint16 `json:"port,omitempty"`
	Path   string `json:"path,omitempty"`
	// Inject is the name of the token that would be injected.
	Inject string `json:"inject,omitempty"`
}

// Allowed reports whether the request would be sent.
func (v Verdict) Allowed() bool { return v.Decision == "allow" }

// statusDenied is the sidecar program's exit status for a request that would be denied.
const statusDenied = 4

// TestPolicy says which rule decides about a request, without sending it. What a scan
// of it would find, and where its name leads, is not known.
func (b *Bottle) TestPolicy(ctx context.Context, method, url string) (Verdict, error) {
	list, err := b.Sidecars(ctx)
	if err != nil {
		return Verdict{}, err
	}
	if len(list) == 0 {
		return Verdict{}, Errorf(KindNotFound, "bottle %s has no way out: it was launched without egress, so there is no policy", b.Name)
	}
	if !slices.ContainsFunc(list, func(s Sidecar) bool { return s.Role == RoleEgressProxy }) {
		return b.ask(ctx, RoleFirewall, method, url)
	}
	v, err := b.ask(ctx, RoleEgressProxy, method, url)
	if err != nil || !v.Allowed() {
		return v, err
	}
	last, err := b.ask(ctx, RoleFirewall, method, url)
	if err != nil || !last.Allowed() {
		return last, err
	}
	return v, nil
}

func (b *Bottle) ask(ctx context.Context, role, method, url string) (Verdict, error) {
	v := Verdict{}
	out := &cappedBuffer{max: maxAnswer}
	err := b.AskSidecar(ctx, role, []string{"policy", "test", "--", strings.ToUpper(method), url}, nil, out)
	var refused *AskError
	if err != nil && (!errors.As(err, &refused) || refused.Status != statusDenied) {
		return v, err
	}
	if err := json.Unmarshal(out.Bytes(), &v); err != nil {
		return v, fmt.Errorf("the %s gave no verdict: %w", roleText(role), err)
	}
	v.Sidecar = role
	return v, nil
}

// cappedBuffer keeps what is written up to a size, and refuses more.
type cappedBuffer struct {
	bytes.Buffer
	max int
}

func (b *cappedBuffer) Write(p []byte) (int, error) {
	if b.Len()+len(p) > b.max {
		return 0, fmt.Errorf("it is longer than %d bytes", b.max)
	}
	return b.Buffer.Write(p)
}

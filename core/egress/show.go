package egress

import (
	"bytes"
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/bottle-run/bottle/sidecar/policy"
)

// The manifest's section egress, for writing.
type (
	yamlSection struct {
		Egress yamlEgress `yaml:"egress"`
	}
	yamlEgress struct {
		AllowAll bool        `yaml:"allow_all,omitempty"`
		Allow    []yamlAllow `yaml:"allow,omitempty"`
		Routes   []yamlRoute `yaml:"routes,omitempty"`
	}
	yamlAllow struct {
		ID    string   `yaml:"id,omitempty"`
		Host  string   `yaml:"host"`
		Ports []uint16 `yaml:"ports,omitempty,flow"`
	}
	yamlRoute struct {
		ID              string          `yaml:"id,omitempty"`
		Host            string          `yaml:"host"`
		Ports           []uint16        `yaml:"ports,omitempty,flow"`
		Methods         []string        `yaml:"methods,omitempty,flow"`
		Paths           []string        `yaml:"paths,omitempty"`
		Credential      *yamlCredential `yaml:"credential,omitempty"`
		PassCredentials bool            `yaml:"pass_credentials,omitempty"`
	}
	yamlCredential struct {
		Token     string `yaml:"token"`
		Kind      string `yaml:"kind"`
		Header    string `yaml:"header,omitempty"`
		Scheme    string `yaml:"scheme,omitempty"`
		Username  string `yaml:"username,omitempty"`
		Parameter string `yaml:"parameter,omitempty"`
	}
)

// MarshalYAML writes a host without more as a string.
func (a yamlAllow) MarshalYAML() (any, error) {
	if a.ID == "" && len(a.Ports) == 0 {
		return a.Host, nil
	}
	type plain yamlAllow
	return plain(a), nil
}

// AllowEntry is a rule as an entry of the manifest's egress.allow, to be written as YAML.
func AllowEntry(r policy.Rule) any { return yamlAllow(r) }

// RouteEntry is a route as an entry of the manifest's egress.routes, to be written as YAML.
func RouteEntry(r policy.Route) any { return routeEntry(r) }

func routeEntry(r policy.Route) yamlRoute {
	y := yamlRoute{ID: r.ID, Host: r.Host, Ports: r.Ports, Methods: r.Methods, Paths: r.Paths, PassCredentials: r.PassCredentials}
	if c := r.Credential; c != nil {
		y.Credential = &yamlCredential{Token: c.Secret, Kind: string(c.Kind), Header: c.Header, Scheme: c.Scheme, Username: c.Username, Parameter: c.Parameter}
	}
	return y
}

// Section writes what may leave as the manifest's section egress, as New would read it.
func Section(allowAll bool, allow []policy.Rule, routes []policy.Route) ([]byte, error) {
	s := yamlSection{Egress: yamlEgress{AllowAll: allowAll}}
	for _, r := range allow {
		s.Egress.Allow = append(s.Egress.Allow, yamlAllow(r))
	}
	for _, r := range routes {
		s.Egress.Routes = append(s.Egress.Routes, routeEntry(r))
	}
	var out bytes.Buffer
	enc := yaml.NewEncoder(&out)
	enc.SetIndent(2)
	if err := enc.Encode(s); err != nil {
		return nil, fmt.Errorf("writing the policy: %w", err)
	}
	return []byte(strings.TrimSuffix(out.String(), "\n") + "\n"), nil
}

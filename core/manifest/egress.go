package manifest

import (
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strconv"
	"time"

	"go.yaml.in/yaml/v3"
)

// The engines of a firewall.
const (
	FirewallBuiltin  = "builtin"
	FirewallPipelock = "pipelock"
)

// Egress says what may leave a bottle. A bottle without one has no way out at all.
type Egress struct {
	Allow    []Allow `yaml:"allow" doc:"Hosts that may be reached: NAME, NAME:PORT, *.NAME for all names below NAME, or mappings of host and ports. Nothing else may."`
	AllowAll bool    `yaml:"allow_all" doc:"Allow every host that is neither named nor a route's. Addresses that are not public stay out of reach."`
	Routes   []Route `yaml:"routes" doc:"Hosts that are reached by port, method and path, with a credential that the agent does not see. A host that has a route is reached through its routes alone."`
	Image    string  `yaml:"image" doc:"Reference of an image to run as the egress proxy instead of the built-in one."`
}

// Allow is a host that may be reached.
type Allow struct {
	ID    string `yaml:"id" doc:"Name of the rule in the audit log. Default: allow:HOST."`
	Host  string `yaml:"host" doc:"Name, address, or *.NAME. It may carry a port." required:"true"`
	Ports []Port `yaml:"ports" doc:"Ports that may be reached. Default: 80 and 443."`
}

// Route allows requests to a host by port, method and path.
type Route struct {
	ID              string      `yaml:"id" doc:"Name of the route in the audit log. Default: route:HOST."`
	Host            string      `yaml:"host" doc:"Name, address, or *.NAME. It may carry a port." required:"true"`
	Ports           []Port      `yaml:"ports" doc:"Ports that may be reached. Default: 443."`
	Methods         []string    `yaml:"methods" doc:"HTTP methods. Default: all."`
	Paths           []string    `yaml:"paths" doc:"Patterns of paths: * is one segment or a part of one, ** any number of them. Default: all."`
	Credential      *Credential `yaml:"credential" doc:"What is put into each request, in place of what the agent sent."`
	PassCredentials bool        `yaml:"pass_credentials" doc:"Let through what the agent itself sends as a credential."`
}

// Credential says where a route's credential comes from and how it travels.
type Credential struct {
	Token     string `yaml:"token" doc:"Name of the host's variable that holds it. The agent never gets the value." required:"true"`
	Kind      string `yaml:"kind" doc:"How it travels: in a header, as the password of basic authentication, or as a query parameter. Default: header." enum:"header basic query"`
	Header    string `yaml:"header" doc:"Header of kind header. Default: Authorization."`
	Scheme    string `yaml:"scheme" doc:"What stands before it in the header. Default for Authorization: Bearer."`
	Username  string `yaml:"username" doc:"User name of kind basic."`
	Parameter string `yaml:"parameter" doc:"Query parameter of kind query."`
}

// Firewall says by which way it leaves.
type Firewall struct {
	Engine     string         `yaml:"engine" doc:"Which firewall: the built-in one, or pipelock from an image. Default: builtin." enum:"builtin pipelock"`
	Image      string         `yaml:"image" doc:"Reference of an image to run instead of the built-in one. Engine pipelock needs it."`
	DNS        []string       `yaml:"dns" doc:"DNS servers to ask, as IP or IP:PORT. Default: those that the engine gives its containers."`
	AllowCIDRs []string       `yaml:"allow_cidrs" doc:"Prefixes that may be reached although they are not public."`
	Proxy      *UpstreamProxy `yaml:"proxy" doc:"HTTP proxy between the firewall and the world."`
	CAFiles    StringList     `yaml:"ca_files" doc:"PEM files of further authorities that the firewall, and the agent, trust."`
	Scan       Scan           `yaml:"scan" doc:"What the scan for secrets in what leaves looks for."`
	Limits     ProxyLimits    `yaml:"limits" doc:"Bounds on what the agent may use of each sidecar."`
}

// UpstreamProxy is a proxy between the firewall and the world.
type UpstreamProxy struct {
	URL      string `yaml:"url" doc:"Its URL, without credentials: http://proxy.example:3128." required:"true"`
	User     string `yaml:"user" doc:"User name to present to it."`
	Password string `yaml:"password" doc:"Name of the host's variable that holds the password."`
}

// Scan says what is looked for in what leaves.
type Scan struct {
	Off     bool        `yaml:"off" doc:"Do not look for what resembles a secret. The values that the bottle holds are looked for all the same."`
	Disable []string    `yaml:"disable" doc:"Ids of gitleaks' rules to leave out, instead of those that take ordinary requests for secrets."`
	Exempt  []Exemption `yaml:"exempt" doc:"What is let through on its way to a host."`
}

// Exemption lets through what rules find on its way to a host.
type Exemption struct {
	Host  string   `yaml:"host" doc:"Name, address, or *.NAME." required:"true"`
	Rules []string `yaml:"rules" doc:"Ids of gitleaks' rules. Default: all."`
}

// ProxyLimits bound what a client may use of a sidecar. Zero means the default.
type ProxyLimits struct {
	Connections   int64    `yaml:"connections" doc:"Connections at a time. Default: 1024." min:"1"`
	HeaderBytes   Size     `yaml:"header_bytes" doc:"Size of the head of one request. Default: 64KiB."`
	HeaderTimeout Duration `yaml:"header_timeout" doc:"How long the head of a request, or a TLS handshake, may take. Default: 30s."`
	IdleTimeout   Duration `yaml:"idle_timeout" doc:"How long nothing may move on a connection. There is no limit to how long something moves. Default: 15m."`
}

// Port is a TCP port.
type Port uint16

// Duration is a time, written with a unit: 30s, 15m, 1h30m.
type Duration time.Duration

func (a *Allow) fromNode(d *decoder, n *yaml.Node, path, what string) {
	if n.Kind == yaml.ScalarNode {
		d.decodeScalar(n, reflect.ValueOf(&a.Host).Elem(), what)
		d.positions[path+"/host"] = pos(n)
		return
	}
	d.decodeStruct(n, reflect.ValueOf(a).Elem(), path, what)
}

func (p *Port) fromNode(d *decoder, n *yaml.Node, _, what string) {
	v, err := strconv.ParseUint(n.Value, 10, 16)
	if n.Kind != yaml.ScalarNode || err != nil || v == 0 {
		d.add(pos(n), "%s: want a port from 1 to 65535, got %s", what, describe(n))
		return
	}
	*p = Port(v)
}

func (t *Duration) fromNode(d *decoder, n *yaml.Node, _, what string) {
	v, err := time.ParseDuration(n.Value)
	if n.Kind != yaml.ScalarNode || err != nil || v <= 0 {
		d.add(pos(n), "%s: want a time such as 30s or 15m, got %s", what, describe(n))
		return
	}
	*t = Duration(v)
}

// validateEgress reports what the shape alone does not. What the hosts, paths and
// addresses mean is not this package's concern.
func (d *decoder) validateEgress(b Bottle, at string) {
	if b.Egress == nil {
		d.validateWithoutEgress(b, at)
		return
	}
	for i, a := range b.Egress.Allow {
		d.notEmpty(fmt.Sprintf("%s/egress/allow/%d/host", at, i), "host", a.Host)
	}
	for i, r := range b.Egress.Routes {
		route := fmt.Sprintf("%s/egress/routes/%d", at, i)
		d.notEmpty(route+"/host", "host", r.Host)
		if r.Credential != nil {
			d.variable(route+"/credential/token", "token", r.Credential.Token)
		}
	}
	d.notEmpty(at+"/egress/image", "image", b.Egress.Image)
	if d.given(at+"/egress/image") && len(b.Egress.Routes) == 0 {
		d.add(d.positions[at+"/egress/image"], "image has no meaning without routes: the egress proxy runs for them alone")
	}
	d.validateSecretHosts(b, at)
	if b.Firewall != nil {
		d.validateFirewall(*b.Firewall, at+"/firewall")
	}
}

// validateWithoutEgress reports what has no meaning in a bottle that has none: with git,
// the parts of firewall that are about the way hold for the gate.
func (d *decoder) validateWithoutEgress(b Bottle, at string) {
	if d.given(at + "/egress") {
		return // it has been reported
	}
	if !d.given(at + "/git") {
		for _, key := range []string{"firewall", "secret_hosts"} {
			if d.given(at + "/" + key) {
				d.add(d.positions[at+"/"+key], "%s has no meaning without egress: the bottle has no way out; write egress: {} for one that denies everything", key)
			}
		}
		return
	}
	for _, key := range []string{"engine", "image", "limits"} {
		if where := at + "/firewall/" + key; d.given(where) {
			d.add(d.positions[where], "%s has no meaning without egress: no firewall runs; git uses dns, allow_cidrs, proxy, ca_files and scan", key)
		}
	}
	d.validateSecretHosts(b, at)
	for _, name := range slices.Sorted(maps.Keys(b.SecretHosts)) {
		where := at + "/secret_hosts/" + name
		if hosts := b.SecretHosts[name]; d.given(where) && !slices.Contains(hosts, "*") {
			d.add(d.positions[where], `secret_hosts: %s: hosts have no meaning without egress: no push may hold a secret, wherever it goes; ["*"] says that it is none`, name)
		}
	}
	if b.Firewall != nil {
		d.validateFirewall(*b.Firewall, at+"/firewall")
	}
}

func (d *decoder) validateSecretHosts(b Bottle, at string) {
	for _, name := range slices.Sorted(maps.Keys(b.SecretHosts)) {
		hosts := b.SecretHosts[name]
		where := at + "/secret_hosts/" + name
		if len(hosts) == 0 && d.given(where) {
			d.add(d.positions[where], "secret_hosts: %s has no host: leave it out if it may go nowhere", name)
		}
		if len(hosts) > 1 && slices.Contains(hosts, "*") {
			d.add(d.positions[where], `secret_hosts: "*" means that %s is no secret, so it stands alone`, name)
		}
	}
}

func (d *decoder) validateFirewall(f Firewall, at string) {
	d.notEmpty(at+"/image", "image", f.Image)
	if f.Engine == FirewallPipelock && f.Image == "" {
		d.add(d.positions[at+"/engine"], "engine pipelock needs an image: name one in image")
	}
	if f.Limits.HeaderBytes > math.MaxInt32 || d.given(at+"/limits/header_bytes") && f.Limits.HeaderBytes < 1024 && f.Limits.HeaderBytes > 0 {
		d.add(d.positions[at+"/limits/header_bytes"], "header_bytes: want from 1KiB to 2GiB")
	}
	if f.Limits.Connections > math.MaxInt32 {
		d.add(d.positions[at+"/limits/connections"], "connections: %d is too large", f.Limits.Connections)
	}
	if f.Proxy != nil && f.Proxy.Password != "" {
		d.variable(at+"/proxy/password", "password", f.Proxy.Password)
	}
}

// notEmpty reports a key that was given with nothing in it.
func (d *decoder) notEmpty(at, key, value string) {
	if value == "" && d.given(at) {
		d.add(d.positions[at], "%s is empty", key)
	}
}

// variable reports what is no name of a variable of the host's.
func (d *decoder) variable(at, key, name string) {
	if d.given(at) && !envPattern.MatchString(name) {
		// It may well be the secret itself: it is not repeated.
		d.add(d.positions[at], "%s: want the name of a variable of the host's environment (letters, digits and '_'), not the secret itself", key)
	}
}

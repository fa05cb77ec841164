package trust

import (
	"net"
	"path"
	"slices"
	"strings"
)

// The files of a bottle that variables name. Roots and Java are made of what the image
// holds, the others are known before there is a container.
const (
	// RootsFile has every root that is to be trusted, in PEM.
	RootsFile = "roots.pem"
	// JavaFile has the same, as a Java trust store.
	JavaFile = "roots.jks"
	// ExtraFile has the bottle's own root and the corporate ones, for what adds to a
	// store of its own, in PEM.
	ExtraFile = "extra.pem"
	// NodeFile is the program that teaches old versions of Node.js the proxy variables.
	NodeFile = "node-proxy.cjs"
)

// replacing are the variables whose file is taken in place of a tool's own roots.
var replacing = []string{
	"SSL_CERT_FILE",                    // OpenSSL, Go, and what is built with them
	"REQUESTS_CA_BUNDLE",               // Python requests
	"CURL_CA_BUNDLE",                   // curl
	"GIT_SSL_CAINFO",                   // git
	"PIP_CERT",                         // pip
	"AWS_CA_BUNDLE",                    // AWS CLI and SDKs
	"CARGO_HTTP_CAINFO",                // cargo
	"NIX_SSL_CERT_FILE",                // Nix
	"GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", // gRPC
	"npm_config_cafile",                // npm, pnpm, yarn 1
}

// adding are the variables whose file is taken beside a tool's own roots.
var adding = []string{
	"NODE_EXTRA_CA_CERTS", // Node.js, Bun
	"DENO_CERT",           // Deno
}

// Settings say what variables are to be made of.
type Settings struct {
	// Dir holds ExtraFile and NodeFile, RootsDir holds RootsFile and JavaFile.
	Dir, RootsDir string
	// Proxy is HOST:PORT of the proxy, spoken to in plain HTTP.
	Proxy string
	// NoProxy are hosts that are reached without it.
	NoProxy []string
	// Image is the image's own environment, NAME=value.
	Image []string
	// User finds a variable that the user has set: in the manifest, on the command
	// line, in a file.
	User func(name string) (value string, ok bool)
}

// Variables returns the variables that the agent needs beside those that name a proxy, and the names of those that it
// would have needed had the user not set them.
//
//   - A variable that the user has set is left as it is: it was said on purpose. It is
//     among kept, so that the user can be told, unless its value is the same.
//   - JAVA_TOOL_OPTIONS and NODE_OPTIONS are lists: ours come first, then those of the
//     user, or else of the image, so that these win where a tool takes the last. They are
//     never among kept.
//   - What the image has set is replaced. It means the image's own store, which is part of
//     the bundle: see [ImageFiles].
func (s Settings) Variables() (env map[string]string, kept []string) {
	env = map[string]string{}
	set := func(value string, names ...string) {
		for _, name := range names {
			if theirs, ok := s.User(name); !ok {
				env[name] = value
			} else if theirs != value {
				kept = append(kept, name)
			}
		}
	}
	set(path.Join(s.RootsDir, RootsFile), replacing...)
	set(path.Join(s.Dir, ExtraFile), adding...)
	// Node.js 22.21, 24.5 and later do it themselves if they are told to.
	set("1", "NODE_USE_ENV_PROXY")
	env["NODE_OPTIONS"] = s.options("NODE_OPTIONS", "--require="+path.Join(s.Dir, NodeFile))
	env["JAVA_TOOL_OPTIONS"] = s.options("JAVA_TOOL_OPTIONS", s.java()...)
	slices.Sort(kept)
	return env, kept
}

// options adds options to those that there are.
func (s Settings) options(name string, ours ...string) string {
	theirs, ok := s.User(name)
	if !ok {
		theirs = lookup(s.Image, name)
	}
	if theirs = strings.TrimSpace(theirs); theirs != "" {
		ours = append(ours, theirs)
	}
	return strings.Join(ours, " ")
}

// java are the system properties by which Java's own clients find roots and proxy; Java
// knows neither of the usual variables.
func (s Settings) java() []string {
	host, port, err := net.SplitHostPort(s.Proxy)
	if err != nil {
		host, port = s.Proxy, "80"
	}
	return []string{
		"-Djavax.net.ssl.trustStore=" + path.Join(s.RootsDir, JavaFile),
		"-Djavax.net.ssl.trustStoreType=JKS",
		"-Dhttp.proxyHost=" + host, "-Dhttp.proxyPort=" + port,
		"-Dhttps.proxyHost=" + host, "-Dhttps.proxyPort=" + port,
		// For both schemes. No blank may be in it: the options are split at them.
		"-Dhttp.nonProxyHosts=" + strings.Join(javaHosts(s.NoProxy), "|"),
	}
}

// javaHosts writes hosts as Java's patterns.
func javaHosts(hosts []string) []string {
	list := make([]string, len(hosts))
	for i, h := range hosts {
		switch {
		case h == "127.0.0.1":
			h = "127.*"
		case strings.Contains(h, ":"):
			h = "[" + h + "]"
		case strings.HasPrefix(h, "."):
			h = "*" + h
		}
		list[i] = h
	}
	return list
}

// ImageFiles are the files of roots that an image's own variables name: they are read into
// the bundle that takes their place.
func ImageFiles(image []string) []string {
	var files []string
	for _, name := range slices.Concat(replacing, adding) {
		if f := lookup(image, name); path.IsAbs(f) && !slices.Contains(files, path.Clean(f)) {
			files = append(files, path.Clean(f))
		}
	}
	return files
}

// lookup finds a variable in a list, of which the last counts.
func lookup(env []string, name string) string {
	for _, kv := range slices.Backward(env) {
		if k, v, ok := strings.Cut(kv, "="); ok && k == name {
			return v
		}
	}
	return ""
}

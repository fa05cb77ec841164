package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"strings"

	"github.com/bottle-run/bottle/sidecar/policy"
)

// maxFile bounds a configuration file, in bytes.
const maxFile = 4 << 20

// Error is a mistake in a configuration file.
type Error struct {
	File         string
	Line, Column int // from 1; 0 if the mistake is that something is missing
	// Path leads to the value: "routes[2].credential.secret".
	Path string
	Err  error
}

func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.File)
	if e.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", e.Line, e.Column)
	}
	if e.Path != "" {
		b.WriteString(": " + e.Path)
	}
	return b.String() + ": " + e.Err.Error()
}

// Unwrap returns the mistake.
func (e *Error) Unwrap() error { return e.Err }

// ReadFirewall reads and validates the file of a firewall.
func ReadFirewall(path string) (*Firewall, error) {
	c := &Firewall{}
	return c, readFile(path, c, c.Validate)
}

// ReadEgressProxy reads and validates the file of an egress proxy.
func ReadEgressProxy(path string) (*EgressProxy, error) {
	c := &EgressProxy{}
	return c, readFile(path, c, c.Validate)
}

func readFile(path string, into any, validate func() error) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("reading the configuration: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return fmt.Errorf("reading the configuration: %w", err)
	}
	if len(data) > maxFile {
		return &Error{File: path, Err: fmt.Errorf("it is longer than %d bytes", maxFile)}
	}
	return decode(path, data, into, validate)
}

func decode(file string, data []byte, into any, validate func() error) error {
	at, err := positions(data)
	fail := func(offset int64, path string, err error) error {
		e := &Error{File: file, Path: path, Err: err}
		if offset >= 0 {
			before := data[:min(int(offset), len(data))]
			e.Line = 1 + bytes.Count(before, []byte("\n"))
			e.Column = len(before) - bytes.LastIndexByte(before, '\n')
		}
		return e
	}
	if err != nil {
		return fail(err.offset, err.path, err.err)
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		var te *json.UnmarshalTypeError
		if errors.As(err, &te) {
			return fail(te.Offset, te.Field, fmt.Errorf("a %s cannot be a %s", te.Value, te.Type))
		}
		if name, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
			name = strings.Trim(name, `"`)
			// The first member of that name: the decoder stops at the first unknown one,
			// but a known one of the same name may be elsewhere. It is still a good place.
			offset, path := int64(-1), name
			for p, o := range at {
				if (p == name || strings.HasSuffix(p, "."+name)) && (offset < 0 || o < offset) {
					offset, path = o, p
				}
			}
			return fail(offset, path, errors.New("there is no such setting"))
		}
		return fail(d.InputOffset(), "", err)
	}
	if err := validate(); err != nil {
		var fe *policy.FieldError
		if !errors.As(err, &fe) {
			return fail(-1, "", err)
		}
		// Where a value is missing, what should hold it is named.
		for p := fe.Path; ; {
			if offset, ok := at[p]; ok {
				return fail(offset, fe.Path, fe.Err)
			}
			i := strings.LastIndexAny(p, ".[")
			if i < 0 {
				return fail(-1, fe.Path, fe.Err)
			}
			p = p[:i]
		}
	}
	return nil
}

type placed struct {
	offset int64
	path   string
	err    error
}

// positions returns where each value of a JSON text begins, by its path.
func positions(data []byte) (map[string]int64, *placed) {
	at := map[string]int64{}
	d := json.NewDecoder(bytes.NewReader(data))
	var walk func(path string) *placed
	bad := func(path string, err error) *placed {
		var se *json.SyntaxError
		if errors.As(err, &se) {
			return &placed{max(se.Offset-1, 0), path, errors.New("this is no valid JSON: " + se.Error())}
		}
		return &placed{d.InputOffset(), path, errors.New("this is no valid JSON: it ends too early")}
	}
	walk = func(path string) *placed {
		start := d.InputOffset()
		tok, err := d.Token()
		if err != nil {
			return bad(path, err)
		}
		for start < int64(len(data)) && strings.IndexByte(" \t\r\n:,", data[start]) >= 0 {
			start++
		}
		at[path] = start
		switch tok {
		case json.Delim('{'):
			seen := map[string]bool{}
			for d.More() {
				key, err := d.Token()
				if err != nil {
					return bad(path, err)
				}
				name, _ := key.(string)
				member := strings.TrimPrefix(path+"."+name, ".")
				// The decoder ignores case, and takes the last of several.
				if seen[strings.ToLower(name)] {
					return &placed{d.InputOffset() - int64(len(name)) - 2, member, errors.New("this is set twice")}
				}
				seen[strings.ToLower(name)] = true
				if err := walk(member); err != nil {
					return err
				}
			}
		case json.Delim('['):
			for i := 0; d.More(); i++ {
				if err := walk(fmt.Sprintf("%s[%d]", path, i)); err != nil {
					return err
				}
			}
		default:
			return nil
		}
		if _, err := d.Token(); err != nil {
			return bad(path, err)
		}
		return nil
	}
	if err := walk(""); err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, &placed{d.InputOffset(), "", errors.New("something follows the JSON")}
	}
	return at, nil
}

func within(list string, err error) error {
	var fe *policy.FieldError
	if errors.As(err, &fe) {
		return &policy.FieldError{Path: list + fe.Path, Err: fe.Err}
	}
	return err
}

func missing(field, what string) error {
	return &policy.FieldError{Path: field, Err: fmt.Errorf("%s is missing", what)}
}

// Validate checks everything that can be checked without other files. Its errors are of
// type [*policy.FieldError].
func (c *Firewall) Validate() error {
	if err := c.Common.validate(); err != nil {
		return err
	}
	if _, err := policy.NewAllowlist(c.AllowAll, c.Allow); err != nil {
		return within("allow", err)
	}
	if _, err := c.Guard.Servers(); err != nil {
		return err
	}
	if _, err := c.Upstream.ProxyURL(); err != nil {
		return err
	}
	if err := c.Scan.Check(); err != nil {
		return within("scan.", err)
	}
	return nil
}

// Validate checks everything that can be checked without other files. Its errors are of
// type [*policy.FieldError].
func (c *EgressProxy) Validate() error {
	if err := c.Common.validate(); err != nil {
		return err
	}
	if _, err := policy.NewRoutes(c.Routes); err != nil {
		return within("routes", err)
	}
	if _, err := policy.NewAllowlist(c.AllowAll, c.Allow); err != nil {
		return within("allow", err)
	}
	if c.Firewall == "" {
		return missing("firewall", "the address of the firewall")
	}
	if _, _, err := net.SplitHostPort(c.Firewall); err != nil {
		return &policy.FieldError{Path: "firewall", Err: fmt.Errorf("%q is not HOST:PORT", c.Firewall)}
	}
	if c.FirewallCA == "" {
		return missing("firewall_ca", "the file of the firewall's authority")
	}
	return nil
}

func (c *Common) validate() error {
	switch {
	case c.CACert == "":
		return missing("ca_cert", "the file of the authority's certificate")
	case c.CAKey == "":
		return missing("ca_key", "the file of the authority's key")
	}
	if c.Listen != "" {
		if _, _, err := net.SplitHostPort(c.Listen); err != nil {
			return &policy.FieldError{Path: "listen", Err: fmt.Errorf("%q is not HOST:PORT", c.Listen)}
		}
	}
	if c.Supervise != "" {
		if u, err := url.Parse(c.Supervise); err != nil || u.Host == "" || u.User != nil {
			return &policy.FieldError{Path: "supervise", Err: fmt.Errorf("%q is no URL", c.Supervise)}
		}
	}
	if c.Limits.Connections < 0 || c.Limits.HeaderBytes < 0 {
		return &policy.FieldError{Path: "limits", Err: errors.New("a limit is negative")}
	}
	return nil
}

package egressproxy

import (
	"net/http"
	"strings"
)

// A service that takes something else for a request's method or address than where it stands
// would be asked for what no route allows.

// methodHeaders are the headers that services take for the method (Google's APIs, OData,
// Rack, Symfony, Express).
var methodHeaders = set("x-http-method-override", "x-http-method", "x-method-override", "x-original-method", "x-forwarded-method")

// methodParameters are the query parameters that they take for it.
var methodParameters = set("_method", "_httpmethod", "$httpmethod", "x-http-method-override", "x-http-method", "x-method-override")

// addressHeaders are the headers by which a gateway tells a service what it was asked for
// itself (RFC 7239; CVE-2018-14773). The agent is behind none.
var addressHeaders = set(
	"forwarded", "x-forwarded-host", "x-forwarded-server", "x-forwarded-path", "x-forwarded-prefix", "x-forwarded-uri", "x-forwarded-url",
	"x-original-host", "x-original-uri", "x-original-url", "x-rewrite-url", "x-host", "x-http-host-override",
)

// otherMethods are what a service may take for the method of a request.
func otherMethods(h http.Header, query string) []string {
	var methods []string
	add := func(text string) {
		for m := range strings.SplitSeq(text, ",") {
			methods = append(methods, strings.ToUpper(strings.TrimSpace(m)))
		}
	}
	for name, values := range h {
		if name == "" || name[0]|0x20 != 'x' {
			continue // most of them
		}
		if methodHeaders[normal(name)] {
			for _, v := range values {
				add(v)
			}
		}
	}
	if query == "" {
		return methods
	}
	for part := range strings.SplitSeq(query, "&") {
		for name, value := range parameters(part) {
			if methodParameters[name] {
				add(value)
			}
		}
	}
	return methods
}

// stripAddresses takes out of a request what would lead it elsewhere at the service.
func stripAddresses(h http.Header) {
	for name := range h {
		if name == "" || name[0]|0x20 != 'x' && name[0]|0x20 != 'f' {
			continue
		}
		if addressHeaders[normal(name)] {
			delete(h, name)
		}
	}
}

// Package intercept is the part that the firewall and the egress proxy share: an
// explicit HTTP proxy that opens up the TLS of what goes through it.
//
// # Promises
//
//   - Every request, on every connection, reaches the [Handler] with one address on
//     which everything agrees: the CONNECT, the server name of TLS, the request target
//     and the Host header, in canonical form. Where they do not agree the request is
//     refused, and nothing is dialled.
//   - HTTP/1 is parsed strictly, and once: what two parsers could read differently
//     (Content-Length beside Transfer-Encoding, bare line feeds, folded headers, odd
//     chunk sizes) is refused and ends the connection. HTTP/2 is net/http's.
//   - Bodies stream in both directions at once: server-sent events, long polls,
//     WebSocket, gRPC, trailers, 100-continue. There are limits to how long nothing
//     moves, none to how long something does.
//   - Memory is bounded: connections, heads, header fields, streams of a connection,
//     certificates.
//   - A denial teaches: 403 with JSON that names the rule and says what can be done, in
//     the form of gRPC where gRPC is spoken.
//
// A host that may not be reached is still opened up, with a certificate of our own and
// without dialling anybody: most clients show the answer to a request, hardly any show
// the answer to a CONNECT.
package intercept

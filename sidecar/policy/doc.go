// Package policy decides which requests may leave a bottle.
//
// It holds no connection and does no input or output: names, ports, methods and
// paths go in, a [Decision] with the id of the rule that made it comes out.
//
// # Promises
//
//   - What cannot be brought into one canonical form is refused, not guessed at:
//     [CanonicalHost] and [ParseAuthority] for names and addresses,
//     [CanonicalTarget] for paths. The canonical form is what is matched and what
//     is to be forwarded.
//   - A path that upstreams are known to read in several ways (an encoded slash,
//     path parameters, double encoding, doubled slashes) is allowed only if every
//     reading of it is allowed by rules that inject the same credential. So is a
//     method, where a request names another one beside it.
//   - An empty [Allowlist] and an empty set of [Routes] deny everything. A pattern
//     that matches everything is refused unless allow_all says so.
//   - Rules only ever allow, so their order does not matter; routes that overlap
//     and would inject different credentials are refused when they are compiled.
//
// It does not promise that an allowed host is harmless: whoever may post to a host
// may tell it anything.
package policy

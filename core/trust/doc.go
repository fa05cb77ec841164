// Package trust knows what the tools inside a bottle need so that they reach the
// bottle's proxy and believe the certificates that it shows, with no option given:
// which variables, which files, and what of the image's own stores has to change.
//
// # Promises
//
//   - It is pure: it reads archives that the caller copied out of a container and
//     returns variables and files for the caller to put in. It needs nothing of the
//     image: no shell, no update-ca-certificates, no store.
//   - Most tools take a bundle *instead* of their store. The bundle therefore holds
//     the image's own roots, the operator's corporate ones, and the bottle's.
//   - What a user has set is the user's: it is left, or added to where the variable is
//     a list of options ([Variables]).
//   - What comes out of the image is read with bounds and never followed to outside of
//     the image: [Store] resolves links by names alone.
//
// # Who finds what where
//
//   - by variable: OpenSSL and all that is built on it (curl, Python, Ruby, PHP, Perl),
//     Go, git, pip, requests, the AWS tools, cargo, Nix, gRPC, Node.js, Deno, npm, Java;
//   - in the system's store: GnuTLS and what is built on it (Debian's wget and apt),
//     programs that were started with an empty environment;
//   - not at all: programs with roots of their own (browsers with an NSS database,
//     Bazel's or snap's own Java) and those that pin certificates. They fail closed,
//     since there is no way out but the proxy.
package trust

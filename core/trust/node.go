package trust

import _ "embed" // the program

// NodeProxy is the program of [NodeFile], which NODE_OPTIONS has Node.js read before any
// other. It makes the default agents of http and https, and the default dispatcher of
// fetch, go through the proxy of the usual variables. In versions that do so themselves
// (NODE_USE_ENV_PROXY, from 22.21 and 24.5 on), or when that variable is not 1, it does
// nothing; it leaves alone what a program brings of its own.
//
//go:embed node-proxy.cjs
var NodeProxy []byte

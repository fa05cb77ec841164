// Package doctor looks at the container engines and at the host, and says what is
// wrong and what to do about it.
//
// # Promises
//
//   - It only looks. It makes no container, network or file; a service that an engine
//     starts to answer is ended again.
//   - It asks each engine for its lists, and for nothing about single objects: its
//     time does not grow with them. Engines are asked side by side, each for at most
//     [Timeout].
//   - Host checks read files below a root that the caller gives, so that tests have
//     hosts of their own. A check that cannot be made is no finding.
//
// # Known escapes
//
// Versions are compared with a table of advisories, each with its source. A
// distribution's package may have a fix although its number is lower: where this
// host's own changelog of the package names the CVE, it counts as fixed; otherwise
// the finding says "may be", and how to look. The table is no scanner: it holds what
// let a container out, or let one around what bottle builds on.
package doctor

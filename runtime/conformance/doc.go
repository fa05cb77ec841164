// Package conformance is the suite that says whether a [runtime.Runtime] keeps
// its promises. Tests are values: go test runs them through [RunT], and
// [Run] runs the same ones on anybody's engine and gives a [Report].
//
// A test without features is a core test, and nothing skips it. A test with
// features is run unless the engine declares one of them missing; then its
// inverse is run instead: asking for the feature must be NotImplemented, and a
// feature that is declared missing and works is a failure.
//
// Claims are proved by effect. What must be sealed is tried from inside, against
// listeners and a name server in a network namespace of the suite's own (package
// world), which record every packet; and each such test has a control: the same
// attempt from where it must succeed. Whatever a test leaves on the engine or on
// the host, labelled or not, fails that test.
//
// The suite needs no registry. Its one image holds the static program of package
// probe and is assembled in process. It speaks to an engine through the interface
// alone and knows none by name.
package conformance

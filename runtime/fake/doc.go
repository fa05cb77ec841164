// Package fake is a container engine in memory, for unit tests of code that
// launches bottles. It keeps what a [runtime.Runtime] promises as far as that
// needs no kernel: names, labels, lists, kinds of error, all-or-nothing runs,
// files, copies, images loaded and built, logs, exit statuses, signals. It
// passes the conformance suite's tests that apply to it.
//
// A "process" is a Go function registered with [Engine.Handle] under the path
// or base name of the program it stands for. Networks carry no traffic, limits
// and capabilities are recorded and nothing more, and a build's RUN steps run
// through the program registered as "/bin/sh" or do nothing.
//
// [Engine.SetFault] makes any call fail, [Engine.Calls] tells which calls were
// made, and [Engine.Snapshot] shows everything that a container was given.
package fake

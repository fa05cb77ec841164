// Package faulty is a decorator over [runtime.Runtime] that misbehaves on purpose: it
// lets chosen calls fail, wait, hang or panic, before or after they had their effect.
// It is for tests: no program that is shipped imports it (a test of core holds this),
// and it reads no environment.
//
// # The language
//
// What goes wrong is written as rules, with ";" or a line's end between them. "#"
// begins a comment.
//
//	Run@2 = fail                                 the 2nd Run fails, and has no effect
//	Run@2 = do, fail                             it has its effect, and says that it failed
//	*@7 = panic "no"                             the 7th call of all panics
//	CreateNetwork(*.egress) = fail unavailable "the daemon went away"
//	Exec@3+ = delay 200ms                        from the 3rd on each waits, then does its work
//	CopyTo@1-2 = hang                            the first two wait for the end of their context
//	CopyFrom = do, break 512                     the stream breaks off after 512 bytes
//
// A rule is
//
//	rule   = method [ "(" object ")" ] [ "@" when ] "=" action { "," action }
//	method = "*" | the name of a method of Runtime
//	object = a pattern of path.Match for the object's name
//	when   = N | N "-" M | N "+"
//	action = "do" | "delay" DURATION | "hang" | "fail" [KIND] [TEXT]
//	       | "panic" [TEXT] | "break" BYTES [KIND] [TEXT]
//
// Each rule counts the calls that its method and object match, from 1, failed ones
// too; without "@" it means all of them. Where several rules are due for one call the
// first of them acts, and all count. Actions happen from left to right. "do" is the
// call itself: without it, it comes at the end, unless an action ends the call
// before. A call that fails by itself has that error, whatever should follow "do".
//
// KIND is one of those of [Kinds], TEXT a Go string in double quotes. The object of
// a call is the name it is given (a network, container or image; the first tag of a
// build), and empty for lists and questions about the engine.
package faulty

// Package core launches bottles: sealed containers in which an agent works on a
// copy of the user's files.
//
//	manifest, options, facts about the host
//	   │ NewPlan        pure: reads what it must, changes nothing
//	   ▼
//	 Plan, Secrets
//	   │ Launch         a graph of steps on a runtime.Runtime
//	   ▼
//	 Bottle             Exec, CopyTo, CopyFrom, Close
//
// # Promises
//
//   - A plan says all that a launch will do, and holds no secret: variables that
//     are forwarded or come from an env file appear in it by name alone.
//   - Such values are given to the bottle's processes past the engine: they are in
//     no image, on no command line, in no log, in nothing that the engine records
//     about a container or an exec, and in no file but one on a tmpfs of the
//     container.
//   - The user's files are copied, never mounted. Nothing that the agent does
//     changes them.
//   - The agent's container is on the bottle's internal network alone.
//   - If a launch fails, or its context ends, at whatever point, then what it had
//     made is removed again before [Launch] returns; what could not be removed is
//     part of the error, beside the launch's own error. Images are kept: they are
//     the cache of the next launch.
//   - Everything made carries labels, so that any process can find a bottle by
//     its name ([Open], [List]) and end it.
//
// # Errors
//
// [KindOf] sorts an error by what the user can do about it. Errors of a launch
// name the step and the object.
//
// core knows the engines only as [runtime.Runtime]: which there are, and which is
// taken, is the caller's concern.
package core

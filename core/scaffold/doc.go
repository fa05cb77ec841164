// Package scaffold writes a first bottle.yaml and Dockerfile for a project.
//
// It recognises the project by the files in its directory, and knows the agents of
// [Agents]. What it writes is a plan as it stands: `bottle run --dry-run` accepts it
// in the environment in which it was written. It never replaces a file unless it is
// told to, writes all files or none, and stays inside the directory whatever
// symbolic links are there.
//
// Package registries and an agent's API are allowed, and nothing else. An agent's key
// goes into a route, so that the agent never has it: as a comment, if the variable is
// not set, because a plan whose token is missing is refused.
package scaffold

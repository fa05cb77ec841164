// Package manifest reads bottle.yaml: which bottles there are and which agents
// run in them.
//
// # The file
//
//	bottles:
//	  dev:
//	    dockerfile: Dockerfile
//	    forward: [ANTHROPIC_API_KEY]
//	    limits: {memory: 4GiB}
//	agents:
//	  claude:
//	    bottle: dev
//	    command: [claude]
//	    prompt_file: prompt.md
//
// A bottle says what the container is like; an agent says what runs in one, and
// several agents may share a bottle's description. Paths on the host are
// relative to the manifest's directory (~/ is the user's home directory); paths
// inside the bottle are absolute or begin with ~/, the agent's home.
//
// # Errors
//
// Everything wrong with a manifest is reported at once, as a *multierror.Error
// of [*Error] values, each with file, line and column. An unknown key is an
// error and names the nearest key that exists. The types in this package are the
// one description of the file: decoder and [Schema] are both derived from them.
//
// # YAML
//
// One document, YAML 1.2 core as far as go.yaml.in/yaml/v3 reads it. Anchors and
// aliases work; merge keys ("<<") do not. Scalars are read as written: where a
// string is wanted, 1.10 and true stay "1.10" and "true".
package manifest

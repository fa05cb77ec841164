// Package changes finds what an agent has changed in its copy of the user's files.
//
// [Record] is what the agent was given: name, mode and digest of each file. It lies in the
// bottle itself, under a seal (an HMAC) whose key the agent does not know, so that nothing of it
// has to be kept on the host: it is gone when the bottle is. A record that the agent has
// touched is refused whole.
//
// [Read] reads the archive of what is there now, which is hostile: names that lead out of it are
// an error, and what is kept of it is bounded. Nothing of it is laid down; contents are kept in one
// file that has no name. [Snapshot.Compare] says what has become of the record.
package changes

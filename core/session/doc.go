// Package session keeps a record of each bottle in the user's state directory, so
// that another process can find, after a crash, what there was to remove.
//
// # Promises
//
//   - A record is written before anything is made on the engine ([Store.Begin]): what
//     exists of a bottle has a record, whenever its process dies.
//   - Writes are atomic: a reader sees the old record or the new one, never a part,
//     also after a crash of the machine (write, fsync, rename, fsync of the
//     directory).
//   - The process that owns a bottle holds a lock (flock) on its session for as long
//     as it lives, so that no other takes it for dead; [Store.Take] hands the session
//     of a dead owner to exactly one process. Beside the lock a record names its
//     owner by process, start time and boot: a number that was given out again is no
//     owner. No clock decides anything.
//   - A record that cannot be read is reported with its file's name, and hides no
//     other one. It is never removed unasked.
//   - The directory is the user's own, 0700, its files 0600. A record holds no
//     secret: names, places and times.
//
// Users have directories of their own. Engines and endpoints share one; the record
// says which it is about, and whoever clears up asks that engine and no other.
package session

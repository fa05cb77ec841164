// Package workspace reads the directory that an agent gets a copy of.
//
// [Scan] walks it once and decides what belongs to the copy; [Tree.Write] streams
// those files into a tar archive. The directory is only read, and the copy shares
// nothing with it.
//
// # What is left out
//
// Patterns in the syntax of gitignore(5) decide, the first of these sources that
// says something about a file:
//
//  1. the manifest's workspace.ignore,
//  2. .bottleignore files, a deeper one over a higher one,
//  3. .gitignore files, likewise, and those of directories above within the same
//     git work tree, and the repository's .git/info/exclude.
//
// As in git a file below a directory that is left out cannot be brought back.
// Unlike in git it makes no difference whether a file is tracked. .gitignore says
// nothing about .git itself, which is part of the copy unless one of the first
// two sources leaves it out: without it the agent has no history and cannot
// commit. The user's global excludes are not read: a copy should not depend on
// who makes it.
//
// Sockets, FIFOs and devices are left out and noted. A symbolic link is copied as
// a link, wherever it points; nothing is read through it. Set-user-ID bits, owners
// and extended attributes are not kept. A file that cannot be read is an error:
// an incomplete copy should not look like a complete one.
package workspace

// Package patch writes changes of files in the form that git apply reads: text in hunks,
// other content in git's binary form, with modes, symbolic links, additions and deletions.
//
// Names and content may be hostile. A name that a patch could not carry safely is quoted as
// git quotes it, so that it cannot pass for another line of the patch; one that leads out of the
// tree or into a .git directory is an error. The time that a text takes is bounded by its length,
// whatever it holds: where lines repeat too often for the shortest answer, a longer one is given.
package patch

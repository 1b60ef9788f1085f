// Package objstore keeps named byte strings, written whole and read by range: the
// objects that the parts of a compression run hand to each other.
//
// A [Bucket] has five operations (Get, Put, Stat, List, Delete) and three
// promises, which every backend must keep and which the conformance suite in
// objstoretest checks:
//
//   - An object is whole or absent. A Put that fails, is cancelled or dies with
//     its process leaves nothing under the key; a reader never sees half an
//     object, nor the beginning of one and the end of another.
//   - Reads see finished writes. After Put returns, every Get, Stat and List
//     that starts later, on any machine, sees the object (strong consistency, as
//     S3 and the gateways in front of file systems give it).
//   - Of any number of concurrent Puts with PutOptions.IfAbsent exactly one
//     wins; the others get [ErrExist] and change nothing.
//
// Use [NewMem] in tests, [OpenDir] on one machine or on a shared file system,
// and [Prefix] to give a part of the program its own folder of a bucket.
// [FromWriter] feeds a Put from code that writes. [Copy] moves an object by hard
// link or server-side copy where the backend can, and through this process
// where it cannot. [GetIf] reads one version of an object or nothing.
//
// The package does not retry, does not log, compares no two machines' clocks,
// and does not check what it reads against a digest: whoever knows the digest
// of an object verifies it.
//
// # Keys
//
// A key is a path of one or more tokens joined by slashes, as [CheckKey]
// defines it. Keys make no folders: there is no operation on "a/" and an object
// "a/b" leaves nothing behind when it is deleted. The one trace of the file
// systems below is that a key may not lie below another object's key: while "a"
// exists, "a/b" is refused with [ErrKey], and the other way round. S3 itself
// would take both, gateways in front of a file system do not, so no backend
// here may.
//
// # The directory backend on disk
//
//	root/.objstore        marks the directory as a store, holds the layout's version
//	root/.tmp/<random>    objects being written; never listed, not reachable as a key
//	root/<key>            one regular file for each object
//
// An object is written to .tmp, flushed, and then given its name by one atomic
// call: link(2) for IfAbsent, rename(2) to overwrite; then the directory is
// flushed. Files are never written in place, which is what makes it safe that
// [Dir.Copy] shares one file between two keys.
package objstore

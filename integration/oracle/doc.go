// Package oracle says whether two images mean the same.
//
// What comes in are two images, the one that stock BuildKit made of a Dockerfile and the one that was made of it with rewrites,
// and how much the rewrites promise to keep; what goes out is a list of differences for a person to read, empty if there are
// none. An image is read into a [Tree], which is what a container sees: all layers on top of each other, deletions done.
//
// Timestamps are not compared, except by [LevelImage], which compares digests. Sizes of directories and link counts to
// directories are not part of an image. The package knows nothing of builds, Dockerfiles or passes.
package oracle

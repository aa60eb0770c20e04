// Package fuzzbuild tries to make optbuild give a wrong image by replaying a step that should have run.
//
// What comes in is the optbuild command, a running stock buildkitd, and small projects: a Dockerfile that copies everything before it
// works, and a context (projects/*.txtar, or made from a seed). What goes out is a [Report]. A project is built, then its context is
// changed in one way after another ([Mutations]); after each change optbuild builds with the state directory that it has had all
// along, in an engine of its own as always, and stock BuildKit builds without any cache. The images have to be the same by package
// oracle: paths, types, modes, owners, content, configuration; time stamps are not compared.
//
// Terms: a change is a [Mutation]. A clean build is stock's. A stale result is an image that differs from the clean one although
// optbuild with an empty state directory makes the clean one. A needless run is a RUN step that optbuild executed though the clean
// build's layer of that step is one that it had made before.
//
// A clean build has to be a function of the context: no clocks, no random numbers, no sizes of directories. Whatever differs is built
// clean a second time, and if the two clean ones differ, the project is at fault. Steps may depend on time stamps of the context (make,
// Python's byte code); such a project says "times:", and then a file that no step reads changes with every mutation, because stock
// BuildKit's own cache takes no notice of time stamps. optbuild gives files that did not change the time stamps that they had before; so
// what differs is built clean with those, too.
//
// The package knows nothing of how optbuild decides: it reads the log of steps (OPTBUILD_STEPS_LOG) to count, never to judge.
package fuzzbuild

package opt

// Passes is the table. TestOrder checks what it can of the reasons.
var Passes = []Pass{
	{
		Name:  "dead-stages",
		Doc:   "leave out stages that the target does not need",
		Order: "first: no other pass should spend thought, or remarks, on what is not built",
		Keeps: Image,
		Run:   deadStages,
	},
	{
		Name:   "cross-build",
		Doc:    "compile Go, and download, on the build platform, once for all platforms",
		Order:  "early: it knows commands one by one, and the mounts and files that other passes add would be strange to it",
		Keeps:  Files,
		Wants:  crossWants,
		Images: crossImages,
		Run:    crossBuild,
	},
	{
		Name:  "sink-volatile",
		Doc:   "move an ARG or ENV that changes from build to build below the RUNs that cannot read it",
		Order: "before passes that put steps next to each other: an ARG between two RUNs keeps them apart",
		Keeps: Files,
		Run:   sinkVolatile,
	},
	{
		Name:  "add-to-copy",
		Doc:   "make an ADD that only copies a COPY",
		Order: "before all passes that look at COPY and not at ADD",
		Keeps: Files,
		Wants: addWants,
		Run:   addToCopy,
	},
	{
		Name:  "split-copy",
		Doc:   "copy the manifests of a package manager before the rest, so that an edit does not install everything again",
		Order: "before merge-run, which would join the installation with the steps below it, and before passes that change COPY or RUN so that they are no longer recognised",
		Keeps: Observed,
		Wants: splitCopyWants,
		Run:   splitCopy,
	},
	{
		Name:  "fold-metadata",
		Doc:   "give a COPY the mode and owner that the next RUN gives its file",
		Order: "behind add-to-copy, which makes COPYs, before merge-run, which would put the RUN into another one",
		Keeps: Files,
		Wants: foldWants,
		Run:   foldMetadata,
	},
	{
		Name:  "merge-run",
		Doc:   "make one step of RUNs where the cache loses nothing by it, and of a package index's update and the install",
		Order: "behind the passes that take a RUN away or bring RUNs together, before those that give mounts to one of two RUNs and so keep them apart",
		Keeps: Files,
		Run:   mergeRun,
	},
	{
		Name:  "cache-mounts",
		Doc:   "keep download caches in cache mounts, from build to build and out of the image",
		Order: "after the passes that move instructions: a mount is a reason for them not to",
		Keeps: Files,
		Wants: cacheWants,
		Run:   cacheMounts,
	},
}

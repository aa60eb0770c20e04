package request

// LazyPull is the name of what FetchWhole switches off, for --optimize-disable.
const LazyPull = "lazy-pull"

// attrWhole is a frontend's attribute that tells the engine (package lazypull, which has its name, too) that a build wants layers whole.
const attrWhole = "optbuild-fetch-whole"

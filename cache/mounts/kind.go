package mounts

import (
	"path"
	"strings"
)

// Kind is what is known of directories that a program keeps its cache in.
type Kind struct {
	Name string
	// Checked says that the program never takes what is in it for what it is not, whatever is in it and however old: what it holds is named for what it was made
	// from, or is compared with a sum. Where that is not known, a program may go by times: make and its like do.
	Checked bool
	// MayGo says of a file, by its path in the directory, that the program does without it and without noticing more than the time that it takes to make or fetch it again.
	// Nil: not known of any. It is false of files that are part of something larger, such as the directory of a module: a part that is missing there is an error, or worse.
	MayGo func(path string) bool
}

// KindOf tells the kind from where the directory is seen, such as "/root/.cache/go-build".
func KindOf(target string) Kind {
	target = path.Clean("/" + target)
	for _, k := range kinds {
		for _, end := range k.ends {
			if strings.HasSuffix(target, end) {
				return k.Kind
			}
		}
	}
	return Kind{}
}

// kinds are found by the end of their targets; the first that fits counts.
var kinds = []struct {
	Kind
	ends []string
}{
	// Named by the digest of all inputs. An action whose output is gone is a miss; times are the times of use, to the hour (cmd/go/internal/cache).
	{Kind{"go-build", true, inHexDirectory}, []string{"/go-build"}},
	// Extracted modules are directories that are believed to be whole.
	{Kind{"go-mod", true, nil}, []string{"/go/pkg/mod", "/pkg/mod/cache", "/pkg/mod"}},
	// apt compares what is there with the size and the sum in its lists, and fetches what is missing.
	{Kind{"apt", true, withSuffix(".deb")}, []string{"/var/cache/apt", "/var/cache/apt/archives"}},
	// Content is named by its sum; an index that refers to nothing is a miss (cacache).
	{Kind{"npm", true, below("_cacache/content-v2/")}, []string{"/.npm"}},
	{Kind{"npm", true, below("content-v2/")}, []string{"/.npm/_cacache"}},
	{Kind{"yarn", true, withSuffix(".zip")}, []string{"/.yarn/berry/cache", "/.yarn/cache"}},
	{Kind{"yarn", true, nil}, []string{"/.cache/yarn", "/usr/local/share/.cache/yarn", "/.cache/yarn/v6"}},
	{Kind{"pnpm", true, nil}, []string{"/pnpm/store", "/.pnpm-store", "/.local/share/pnpm/store"}},
	// A response without its body is a miss (CacheControl). Wheels that were built here have no sum.
	{Kind{"pip", true, below("http/", "http-v2/")}, []string{"/.cache/pip"}},
	{Kind{"pip", true, anything}, []string{"/.cache/pip/http", "/.cache/pip/http-v2"}},
	{Kind{"uv", true, nil}, []string{"/.cache/uv"}},
	{Kind{"poetry", true, nil}, []string{"/.cache/pypoetry"}},
	// Archives are compared with the sums in the lock file or the index; extracted sources are believed.
	{Kind{"cargo", true, withSuffix(".crate")}, []string{"/cargo/registry", "/.cargo/registry", "/cargo/registry/cache", "/.cargo/registry/cache"}},
	{Kind{"cargo", true, nil}, []string{"/cargo/registry/index", "/.cargo/registry/index"}},
	{Kind{"cargo-git", true, nil}, []string{"/cargo/git", "/.cargo/git", "/cargo/git/db", "/.cargo/git/db"}},
	{Kind{"ccache", true, nil}, []string{"/.ccache", "/.cache/ccache", "/.cache/sccache"}},
	{Kind{"maven", true, nil}, []string{"/.m2", "/.m2/repository"}},
	{Kind{"gradle", true, nil}, []string{"/.gradle", "/.gradle/caches"}},
	{Kind{"composer", true, nil}, []string{"/.composer/cache", "/.cache/composer"}},
	{Kind{"bundler", true, nil}, []string{"/.bundle/cache", "/.gem", "/bundle/ruby"}},
	{Kind{"nuget", true, nil}, []string{"/.nuget/packages"}},
	{Kind{"apk", true, withSuffix(".apk")}, []string{"/etc/apk/cache", "/var/cache/apk"}},
	{Kind{"dnf", true, withSuffix(".rpm")}, []string{"/var/cache/dnf", "/var/cache/yum", "/var/cache/zypp"}},
}

func anything(string) bool { return true }

func withSuffix(s string) func(string) bool {
	return func(p string) bool { return strings.HasSuffix(p, s) }
}

func below(prefixes ...string) func(string) bool {
	return func(p string) bool {
		for _, x := range prefixes {
			if strings.HasPrefix(p, x) {
				return true
			}
		}
		return false
	}
}

// inHexDirectory accepts files in directories that are named by two hex digits.
func inHexDirectory(p string) bool {
	const hex = "0123456789abcdef"
	return len(p) > 3 && strings.IndexByte(hex, p[0]) >= 0 && strings.IndexByte(hex, p[1]) >= 0 && p[2] == '/'
}

package request

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/distribution/reference"
	"github.com/moby/buildkit/client"
	"github.com/tonistiigi/go-csvvalue"

	"github.com/optbuild/optbuild/builder/scope"
	"github.com/optbuild/optbuild/cache"
	"github.com/optbuild/optbuild/cache/remote"
)

// CacheEnv is the environment variable that says what --cache says.
const CacheEnv = "OPTBUILD_CACHE"

// Values of --cache that are no repository.
const (
	CacheOff     = "off"     // none, whatever the environment and the project say
	CacheProject = "project" // the one that the project's file names, on a machine where that would not count
)

// sharedCache is what --cache asks for; which scopes it means is found in Examine.
type sharedCache struct {
	options scope.Options
	scope   string            // that the user named; "" for the branch's
	mode    string            // scope.ReadWrite, scope.ReadOnly or ""
	file    string            // the project's file that named the cache; "" if it was the user
	unsound error             // what is wrong with the private key; of no interest where nothing is written
	env     map[string]string // of the user
}

// sharedCache reads --cache, or else the environment, or else the project's file.
func (r *Request) sharedCache(s *Solve) (err error) {
	if s.Call != nil { // a question about the Dockerfile: nothing is built
		return nil
	}
	env := environ(r.Environ)
	text := cmp.Or(r.Cache, env[CacheEnv])
	if text == CacheProject {
		if s.shared, err = s.projectCache(); err == nil && s.shared == nil {
			err = flagErrorf("cache", text, "there is no %s that names one in the context or in the root of its work tree", ProjectFile)
		}
	} else if text != "" {
		s.shared, err = parseCache(text, false)
		if err == nil && s.shared != nil && s.shared.unsound != nil && s.shared.writes(env) { // pull requests from forks have no secrets
			err = &FlagError{"cache", text, s.shared.unsound}
		}
		var fe *FlagError
		if r.Cache == "" && errors.As(err, &fe) {
			fe.Err = fmt.Errorf("%w (from %s)", fe.Err, CacheEnv)
		}
	} else if s.ContextDir != "" {
		s.shared, err = s.projectCache()
		if err == nil && s.shared != nil && !scope.OnCI(env) {
			// What is read from a cache becomes part of this machine's, for all projects; whoever wrote the file may have filled it. A runner builds what its project says.
			s.Notes = append(s.Notes, fmt.Sprintf("cache: %s names %s, which is not used: --cache=%s or %s=%s uses it", filepath.Base(s.shared.file),
				reference.FamiliarName(mustNamed(s.shared.options.Ref)), CacheProject, CacheEnv, CacheProject))
			s.shared = nil
		}
	}
	if err == nil && s.shared != nil {
		s.shared.env = env
	}
	return err
}

// writes says whether anything is written, in whichever scope.
func (c *sharedCache) writes(env map[string]string) bool {
	return scope.Decide(env, func() scope.Git { return scope.Git{} }).WithMode(c.mode).Write != ""
}

// parseCache reads REPO[,key=value...]; nil is no cache. What a project's file says is less: it names no keys.
func parseCache(text string, project bool) (*sharedCache, error) {
	wrong := func(format string, args ...any) (*sharedCache, error) {
		return nil, flagErrorf("cache", text, format, args...)
	}
	if text == CacheOff {
		return nil, nil
	}
	fields, err := csvvalue.Fields(text, nil)
	if err != nil {
		return wrong("%w", err)
	}
	if strings.Contains(fields[0], "=") {
		return wrong("begins with %s: a repository comes first, REPO[,key=value...]; caches of other types are --cache-from and --cache-to", fields[0])
	}
	c := &sharedCache{}
	if c.options.Ref, err = cacheRepository(fields[0]); err != nil {
		return wrong("%w", err)
	}
	given := map[string]bool{}
	for _, field := range fields[1:] {
		key, value, ok := strings.Cut(field, "=")
		if !ok {
			return wrong("%s is not KEY=VALUE; keys are %s", field, cacheKeys)
		}
		if given[key] && key != "mounts-off" {
			return wrong("%s is given twice", key)
		}
		given[key] = true
		if project && (key == "sign" || key == "trust") {
			return wrong("%s names a file of the person who builds: it goes into --cache or %s", key, CacheEnv)
		}
		if err := c.set(key, value); err != nil {
			return wrong("%w", err)
		}
	}
	return c, nil
}

const cacheKeys = "scope, mode, mounts, mounts-off, max-age, max-size, sign and trust"

func (c *sharedCache) set(key, value string) (err error) {
	o := &c.options
	switch key {
	case "scope":
		if c.scope = value; value == "" || len(value) > 200 || !utf8.ValidString(value) || strings.ContainsFunc(value, unicode.IsControl) {
			return fmt.Errorf("scope=%.20q is no name of a scope: some letters and digits, as in scope=release-1.x", value)
		}
	case "mode":
		if c.mode = value; value != scope.ReadWrite && value != scope.ReadOnly {
			return fmt.Errorf("mode=%s is neither %s (read and write) nor %s (read only)", value, scope.ReadWrite, scope.ReadOnly)
		}
	case "mounts":
		if o.MountsOff = value == "off"; !o.MountsOff && value != "on" {
			return fmt.Errorf("mounts=%s is neither on (contents of cache mounts travel) nor off", value)
		}
	case "mounts-off":
		if value == "" || !utf8.ValidString(value) || strings.ContainsFunc(value, unicode.IsControl) {
			return fmt.Errorf("mounts-off=%.20q is no id of a cache mount: what stands behind id= in RUN --mount=type=cache, or behind target= where there is none", value)
		}
		o.Stay = append(o.Stay, value)
	case "max-age":
		if o.MaxAge, err = scope.ParseAge(value); err != nil {
			return fmt.Errorf("max-age: %w", err)
		}
	case "max-size":
		if o.MaxBytes, err = cache.ParseBytes(value); err == nil && o.MaxBytes == 0 {
			err = errors.New("is nothing: mode=ro adds nothing to a cache")
		}
		if err != nil {
			return fmt.Errorf("max-size: %w", err)
		}
	case "sign":
		if o.SignFile, err = keyFile(value, remote.ReadSigningKey); err != nil {
			c.unsound = fmt.Errorf("sign=%s: %w; make one with: openssl genpkey -algorithm ed25519 -out FILE", value, err)
		}
	case "trust":
		if o.TrustFile, err = keyFile(value, remote.ReadTrustedKeys); err != nil {
			return fmt.Errorf("trust=%s: %w; make it from a private one with: openssl pkey -in PRIVATE -pubout -out FILE", value, err)
		}
	default:
		return fmt.Errorf("%s is no key; keys are %s", key, cacheKeys)
	}
	return nil
}

// cacheRepository is the full name of a repository, docker.io/acme/cache for acme/cache.
func cacheRepository(text string) (string, error) {
	named, err := reference.ParseNormalizedNamed(text)
	if err != nil {
		return "", fmt.Errorf("is not REGISTRY/REPOSITORY: %w", err)
	}
	if !reference.IsNameOnly(named) {
		return "", fmt.Errorf("names a tag or a digest, and a cache has tags of its own: leave it out (%s)", reference.FamiliarName(named))
	}
	if strings.HasPrefix(named.Name(), "docker.io/library/") {
		return "", fmt.Errorf("is %s, which only Docker can write to: name registry and repository, as in registry.example.com/%s", named.Name(), text)
	}
	return named.Name(), nil
}

// keyFile is the absolute path of a file that can be read as keys. The engine reads it again: a pipe would be empty then.
func keyFile[K any](path string, read func(string) (K, error)) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	info, err := os.Stat(abs)
	if err != nil {
		return "", cause(err)
	}
	if !info.Mode().IsRegular() {
		return "", errors.New("is not a regular file")
	}
	_, err = read(abs)
	return abs, err
}

// shareCache finds the scopes of the cache, and adds it to what the solve reads and writes.
func (s *Solve) shareCache(ctx context.Context) {
	c := s.shared
	if c == nil {
		return
	}
	scopes := scope.Decide(c.env, func() scope.Git { return askBranches(ctx, s.ContextDir) })
	name := filepath.Base(c.file)
	if c.file != "" && scopes.Stranger {
		// The file is as much a stranger's as the rest of the context: it could name a cache that the stranger has filled for this machine.
		s.Notes = append(s.Notes, fmt.Sprintf("cache: %s is not followed, %s: what --cache or %s names would be read", name, scopes.ReadOnly, CacheEnv))
		return
	}
	if c.scope != "" {
		scopes = scopes.Named(c.scope)
	}
	scopes = scopes.WithMode(c.mode)
	line := "cache: " + scopes.String()
	if c.file != "" {
		line += "; " + name + " names " + reference.FamiliarName(mustNamed(c.options.Ref))
	}
	if scopes.Unknown() {
		line += "; --cache REPO,mode=rw writes all the same"
	}
	s.Notes = append(s.Notes, line)

	c.options.Write, c.options.Read = scopes.Write, scopes.Read
	if scopes.Write == "" {
		c.options.SignFile = ""
	}
	entry := client.CacheOptionsEntry{Type: scope.Type, Attrs: c.options.Attrs()}
	s.CacheImports = append([]client.CacheOptionsEntry{entry}, s.CacheImports...) // it is asked before those of --cache-from
	if scopes.Write != "" {
		s.CacheExports = append(s.CacheExports, entry)
	}
}

func mustNamed(name string) reference.Named {
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		panic(fmt.Sprintf("cache: a name that was normalised is none: %v", err))
	}
	return named
}

// askBranches asks git which branch is checked out, and which is the default one. Whose repository it is does not matter: nothing in it is run for that.
func askBranches(ctx context.Context, dir string) (g scope.Git) {
	if dir == "" || repository(dir) == "" {
		return g
	}
	if out, err := git(ctx, dir, anybodys, "symbolic-ref", "-q", "HEAD"); err == nil {
		g.Branch = strings.TrimPrefix(strings.TrimSpace(string(out)), "refs/heads/")
	}
	const origin = "refs/remotes/origin/"
	candidates := []string{origin + "HEAD", origin + "main", origin + "master", "refs/heads/main", "refs/heads/master"}
	out, err := git(ctx, dir, anybodys, append([]string{"for-each-ref", "--format=%(refname) %(symref)"}, candidates...)...)
	if err != nil {
		return g
	}
	there := map[string]string{} // what they are links to
	for line := range strings.Lines(string(out)) {
		ref, to, _ := strings.Cut(strings.TrimSpace(line), " ")
		there[ref] = to
	}
	for _, ref := range candidates {
		to, ok := there[ref]
		if ok && ref != origin+"HEAD" {
			to = ref
		}
		if to != "" {
			g.Default = strings.TrimPrefix(strings.TrimPrefix(to, origin), "refs/heads/")
			break
		}
	}
	return g
}

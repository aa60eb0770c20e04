package request

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/distribution/reference"
	"github.com/moby/buildkit/client/ociindex"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// namedContexts sets up --build-context NAME=WHERE.
func (r *Request) namedContexts(s *Solve) error {
	for _, flag := range r.BuildContexts {
		if flag == "" {
			continue
		}
		name, where, ok := strings.Cut(flag, "=")
		if !ok || name == "" || where == "" {
			return flagErrorf("build-context", flag, "is not NAME=PATH, NAME=docker-image://REF, NAME=oci-layout://PATH or NAME=URL")
		}
		ref, err := reference.ParseNormalizedNamed(name)
		if err != nil {
			return flagErrorf("build-context", flag, "%s is no name for a context: %w", name, err)
		}
		// As the frontend spells it: alpine for docker.io/library/alpine:latest.
		name = strings.TrimSuffix(reference.FamiliarString(ref), ":latest")
		attr := "context:" + name
		s.need("moby.buildkit.frontend.contexts+forward")
		switch {
		case strings.HasPrefix(where, "oci-layout://"):
			ref, err := s.ociLayout(strings.TrimPrefix(where, "oci-layout://"))
			if err != nil {
				return &FlagError{"build-context", flag, err}
			}
			s.FrontendAttrs[attr] = ref
		case strings.HasPrefix(where, "docker-image://"), strings.HasPrefix(where, "target:"), !isDir(where) && isRemote(where):
			s.FrontendAttrs[attr] = where
			s.needGitQuery(where, "moby.buildkit.frontend.gitquerystring+forward")
		case isDir(where):
			local := name
			if local == "context" || local == "dockerfile" {
				local = "_" + local
			}
			abs, err := s.mount(local, where)
			if err != nil {
				return err
			}
			s.NamedDirs[name] = abs
			s.FrontendAttrs[attr] = "local:" + local
		default:
			return &FlagError{"build-context", flag, contextError(where)}
		}
	}
	return nil
}

// isTag tells whether what follows the last colon of an image layout's name is a tag and not part of the path.
func isTag(s string) bool { return s != "" && reference.TagRegexp.FindString(s) == s }

// layoutError says why the index of an image layout can't be read, or err if that is not the file's fault. What reads it makes a lock beside it, whose errors would be told first.
func layoutError(path string, err error) error {
	f, oerr := os.Open(filepath.Join(path, ocispecs.ImageIndexFile))
	if oerr == nil {
		f.Close()
		return fmt.Errorf("read image layout %s: %w", path, err)
	}
	if errors.Is(oerr, fs.ErrNotExist) {
		return fmt.Errorf("%s is not an image layout: it has no %s", path, ocispecs.ImageIndexFile)
	}
	return fmt.Errorf("read image layout: %w", oerr)
}

// ociLayout offers the image layout at PATH[:TAG][@DIGEST] to the build and returns the reference for the frontend.
func (s *Solve) ociLayout(where string) (string, error) {
	path, dgst, tag := where, "", ""
	if i := strings.LastIndexByte(path, '@'); i >= 0 && reference.DigestRegexp.MatchString(path[i+1:]) {
		d, err := digest.Parse(path[i+1:])
		if err != nil {
			return "", err
		}
		path, dgst = path[:i], d.String()
	}
	if i := strings.LastIndexByte(path, ':'); i >= 0 && isTag(path[i+1:]) {
		path, tag = path[:i], path[i+1:]
	}
	if !isDir(path) {
		return "", contextError(path)
	}
	if dgst == "" {
		if tag == "" {
			tag = "latest"
		}
		desc, err := ociindex.NewStoreIndex(path).Get(tag)
		if err == nil && desc == nil {
			desc, err = ociindex.NewStoreIndex(path).GetSingle()
		}
		switch {
		case err != nil:
			return "", layoutError(path, err)
		case desc == nil:
			return "", fmt.Errorf("no image %q in the index of %s", tag, path)
		}
		dgst = desc.Digest.String()
	}
	if _, err := os.Stat(filepath.Join(path, "blobs")); err != nil { // NewStore would create it
		return "", fmt.Errorf("%s is not an image layout: %w", path, cause(err))
	}
	store, err := local.NewStore(path)
	if err != nil {
		return "", fmt.Errorf("open image layout %s: %w", path, err)
	}
	id := fmt.Sprintf("layout%d", len(s.OCIStores))
	ref := "oci-layout://" + id
	if tag != "" {
		ref += ":" + tag
	}
	if s.OCIStores == nil {
		s.OCIStores = map[string]content.Store{}
	}
	s.OCIStores[id] = store
	return ref + "@" + dgst, nil
}

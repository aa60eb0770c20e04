package request

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/session/filesync"
	"github.com/tonistiigi/go-csvvalue"
)

type contentStore = content.Store

// outputs sets up where the result goes. Without any, an image goes into the local store.
func (r *Request) outputs(s *Solve) error {
	names, err := r.tagNames()
	if err != nil {
		return err
	}
	if s.Call != nil {
		return nil
	}
	flags := r.Outputs
	if r.Load {
		flags = append(flags[:len(flags):len(flags)], "type=docker")
	}
	var pushed bool
	for _, flag := range flags {
		if flag == "" {
			continue
		}
		e, err := r.output(s, flag, names)
		if err != nil {
			return err
		}
		if e.Type == client.ExporterImage && r.Push {
			e.Attrs["push"] = "true"
		}
		if on, _ := strconv.ParseBool(e.Attrs["push"]); on {
			pushed = true
		}
		if e.Type != "cacheonly" {
			s.Exports = append(s.Exports, e)
		}
	}
	if r.Push && !pushed {
		s.Exports = append(s.Exports, r.image(names, map[string]string{"push": "true"}))
		pushed = true
	}
	if len(flags) == 0 && !r.Push {
		s.Exports = append(s.Exports, r.image(names, map[string]string{}))
		s.Kept = len(names) > 0
		if !s.Kept {
			s.Warnings = append(s.Warnings, "no tag and no output: the result stays in the build cache only (keep the image with -t NAME)")
		}
	}
	return r.finishOutputs(s, pushed)
}

// image is an output into the local store, or with push=true to a registry only.
func (r *Request) image(names []string, attrs map[string]string) client.ExportEntry {
	if attrs["name"] == "" && len(names) > 0 {
		attrs["name"] = strings.Join(names, ",")
	}
	if on, _ := strconv.ParseBool(attrs["push"]); on && attrs["store"] == "" {
		attrs["store"] = "false"
	}
	return client.ExportEntry{Type: client.ExporterImage, Attrs: attrs}
}

func (r *Request) finishOutputs(s *Solve, pushed bool) error {
	for _, a := range r.Annotations {
		attrs, err := annotationAttrs(a)
		if err != nil {
			return err
		}
		for _, e := range s.Exports {
			if e.Type == client.ExporterImage || e.Type == client.ExporterOCI || e.Type == client.ExporterDocker {
				maps.Copy(e.Attrs, attrs)
			}
		}
	}
	for _, e := range s.Exports {
		if on, _ := strconv.ParseBool(e.Attrs["push"]); on && e.Attrs["name"] == "" && e.Attrs["push-by-digest"] == "" {
			return errors.New("a push needs a name: -t REGISTRY/REPOSITORY:TAG")
		}
	}
	return nil
}

// output reads one -o value: type=…,key=value,…; a bare path is a local directory, "-" an archive on standard output.
func (r *Request) output(s *Solve, flag string, names []string) (client.ExportEntry, error) {
	none := client.ExportEntry{}
	fields, err := csvvalue.Fields(flag, nil)
	if err != nil {
		return none, flagErrorf("output", flag, "%w", err)
	}
	typ, attrs := "", map[string]string{}
	if len(fields) == 1 && !strings.Contains(flag, "=") {
		typ, attrs["dest"] = client.ExporterLocal, flag
		if flag == "-" {
			typ = client.ExporterTar
		}
	} else if typ, attrs, err = attributes("output", flag); err != nil {
		return none, err
	}
	dest := attrs["dest"]
	delete(attrs, "dest")
	if attrs["name"] == "" && len(names) > 0 && typ != client.ExporterLocal && typ != client.ExporterTar {
		attrs["name"] = strings.Join(names, ",")
	}
	e := client.ExportEntry{Type: typ, Attrs: attrs}
	switch typ {
	case "cacheonly":
		return e, nil
	case "registry":
		attrs["push"] = "true"
		return r.image(names, attrs), nil
	case client.ExporterImage:
		e = r.image(names, attrs)
		s.Kept = s.Kept || attrs["store"] != "false" && attrs["name"] != ""
		return e, nil
	case client.ExporterLocal:
		if dest == "" || dest == "-" {
			return none, flagErrorf("output", flag, "needs a directory: dest=DIR")
		}
		mode := attrs["mode"]
		delete(attrs, "mode") // the staging directory is always empty; commit does what the mode says
		if mode != "" && mode != "copy" && mode != "delete" {
			return none, flagErrorf("output", flag, "mode is copy or delete")
		}
		if e.OutputDir, err = s.stage.directory(dest, mode == "delete"); err != nil {
			return none, flagErrorf("output", flag, "%w", err)
		}
		return e, nil
	case client.ExporterOCI, client.ExporterDocker:
		if archive, err := strconv.ParseBool(attrs["tar"]); attrs["tar"] != "" && err == nil && !archive {
			if dest == "" || dest == "-" {
				return none, flagErrorf("output", flag, "needs a directory: dest=DIR")
			}
			e.OutputDir = dest // content-addressed: what was there stays valid, the index is replaced as a whole
			return e, nil
		}
		if typ == client.ExporterDocker && dest == "" {
			if e.Output, err = r.loadOutput(); err != nil {
				return none, err
			}
			return e, nil
		}
	case client.ExporterTar:
	default:
		return none, flagErrorf("output", flag, "type %q is not image, registry, local, tar, oci, docker or cacheonly", typ)
	}
	if e.Output, err = r.archiveOutput(s, dest); err != nil {
		return none, flagErrorf("output", flag, "%w", err)
	}
	return e, nil
}

func (r *Request) loadOutput() (filesync.FileOutputFunc, error) {
	if r.Loader == nil {
		return nil, errors.New("no engine to load the image into is known: name a file with dest=FILE")
	}
	open, err := r.Loader()
	if err != nil {
		return nil, err
	}
	return func(map[string]string) (io.WriteCloser, error) { return open() }, nil
}

func (r *Request) archiveOutput(s *Solve, dest string) (filesync.FileOutputFunc, error) {
	if dest == "" || dest == "-" {
		if r.Terminal {
			return nil, errors.New("an archive is not written to a terminal: dest=FILE, or redirect standard output")
		}
		return func(map[string]string) (io.WriteCloser, error) { return nopCloser{r.Stdout}, nil }, nil
	}
	f, err := s.stage.file(dest)
	if err != nil {
		return nil, err
	}
	return func(map[string]string) (io.WriteCloser, error) { return f, nil }, nil
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

// staging holds outputs that are not in their places yet.
type staging struct {
	commits []func() error
	remove  []string
}

func (st *staging) tempDir(parent, pattern string) (string, error) {
	dir, err := os.MkdirTemp(parent, pattern)
	if err == nil {
		st.remove = append(st.remove, dir)
	}
	return dir, err
}

// file stages a file beside its destination.
func (st *staging) file(dest string) (*os.File, error) {
	if isDir(dest) {
		return nil, fmt.Errorf("%s is a directory", dest)
	}
	if fi, err := os.Stat(dest); err == nil && !fi.Mode().IsRegular() { // a device or a pipe: nothing to stage
		return os.OpenFile(dest, os.O_WRONLY, 0)
	}
	f, err := os.CreateTemp(filepath.Dir(dest), "."+filepath.Base(dest)+".optbuild-*")
	if err != nil {
		return nil, err
	}
	if err := f.Chmod(0o666 &^ umask()); err != nil {
		return nil, err
	}
	st.remove = append(st.remove, f.Name())
	st.commits = append(st.commits, func() error { return os.Rename(f.Name(), dest) })
	return f, nil
}

// directory stages a directory: beside its destination if that is new, in it if it exists. With replace, what was there goes.
func (st *staging) directory(dest string, replace bool) (string, error) {
	dest = filepath.Clean(dest)
	fi, err := os.Stat(dest)
	switch {
	case errors.Is(err, os.ErrNotExist):
		if err := os.MkdirAll(filepath.Dir(dest), 0o777); err != nil {
			return "", err
		}
		dir, err := st.tempDir(filepath.Dir(dest), "."+filepath.Base(dest)+".optbuild-")
		if err != nil {
			return "", err
		}
		st.commits = append(st.commits, func() error {
			if err := os.Chmod(dir, 0o777&^umask()); err != nil {
				return err
			}
			return os.Rename(dir, dest)
		})
		return dir, nil
	case err != nil:
		return "", err
	case !fi.IsDir():
		return "", fmt.Errorf("%s is not a directory", dest)
	}
	dir, err := st.tempDir(dest, ".optbuild-")
	if err != nil {
		return "", err
	}
	st.commits = append(st.commits, func() error {
		if replace {
			if err := clearExcept(dest, filepath.Base(dir)); err != nil {
				return err
			}
		}
		return mergeInto(dir, dest)
	})
	return dir, nil
}

func clearExcept(dir, keep string) error {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if e.Name() != keep && err == nil {
			err = os.RemoveAll(filepath.Join(dir, e.Name()))
		}
	}
	return err
}

// mergeInto moves what is in from to the directory to, which keeps what it has under other names.
func mergeInto(from, to string) error {
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, e := range entries {
		src, dst := filepath.Join(from, e.Name()), filepath.Join(to, e.Name())
		old, err := os.Lstat(dst)
		switch {
		case err == nil && old.IsDir() && e.IsDir():
			if err := mergeInto(src, dst); err != nil {
				return err
			}
			continue
		case err == nil && old.IsDir() != e.IsDir():
			if err := os.RemoveAll(dst); err != nil {
				return err
			}
		}
		if err := os.Rename(src, dst); err != nil {
			return err
		}
	}
	return nil
}

func (st *staging) commit() error {
	for _, f := range st.commits {
		if err := f(); err != nil {
			return fmt.Errorf("put output into its place: %w", err)
		}
	}
	return nil
}

func (st *staging) discard() {
	for _, path := range st.remove {
		_ = os.RemoveAll(path)
	}
}

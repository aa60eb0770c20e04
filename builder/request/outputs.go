package request

import (
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/session/filesync"
	"github.com/tonistiigi/go-csvvalue"

	"github.com/optbuild/optbuild/builder/outcome"
)

// allowLocalDelete is the --allow value for -o type=local,mode=delete outside of the current directory.
const allowLocalDelete = "buildx.local.delete"

// outputs sets up where the result goes. Without any, an image goes into the local store.
func (r *Request) outputs(s *Solve) error {
	names, err := r.tagNames()
	if err != nil {
		return err
	}
	if s.Call != nil {
		return nil
	}
	if r.Partial != "" {
		return r.part(s)
	}
	var pushed, loaded, any bool
	for _, flag := range nonEmpty(r.Outputs) {
		any = true
		e, err := r.output(s, flag, names)
		if err != nil {
			return err
		}
		if e.Type == client.ExporterImage && r.Push {
			e.Attrs["push"] = "true"
		}
		pushed = pushed || isTrue(e.Attrs["push"])
		loaded = loaded || e.Type == client.ExporterDocker && e.Attrs[loads] != ""
		delete(e.Attrs, loads)
		if e.Type != "cacheonly" {
			s.Exports = append(s.Exports, e)
		}
	}
	if r.Push && !pushed {
		s.Exports = append(s.Exports, r.image(names, map[string]string{"push": "true"}))
	}
	if r.Load && !loaded && several(s) {
		if err := r.loadOwn(s, names); err != nil {
			return err
		}
	} else if r.Load && !loaded {
		e, err := r.output(s, "type=docker", names)
		if err != nil {
			return err
		}
		delete(e.Attrs, loads)
		s.Exports = append(s.Exports, e)
	}
	if !any && !r.Push && !r.Load {
		s.Exports = append(s.Exports, r.image(names, map[string]string{}))
		if len(names) == 0 {
			s.Warnings = append(s.Warnings, "no tag and no output: the result stays in the build cache only (keep the image with -t NAME)")
		}
	}
	return r.finishOutputs(s)
}

// loads marks, while outputs are read, the one that goes into another engine.
const loads = "optbuild.loads"

func isTrue(s string) bool {
	on, _ := strconv.ParseBool(s)
	return on
}

// image is an output into the local store, or with push=true to a registry only.
func (r *Request) image(names []string, attrs map[string]string) client.ExportEntry {
	if len(names) > 0 {
		attrs["name"] = strings.Join(names, ",")
	}
	if isTrue(attrs["push"]) && attrs["store"] == "" {
		attrs["store"] = "false"
	}
	return client.ExportEntry{Type: client.ExporterImage, Attrs: attrs}
}

func (r *Request) finishOutputs(s *Solve) error {
	for _, a := range nonEmpty(r.Annotations) {
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
		if r.Strict && (e.Type == client.ExporterImage || e.Type == client.ExporterOCI || e.Type == client.ExporterDocker) {
			e.Attrs[outcome.AttrStrict] = "true"
		}
	}
	r.beside(s)
	if err := r.layers(s); err != nil {
		return err
	}
	if err := r.compression(s); err != nil {
		return err
	}
	if err := r.prioritized(s); err != nil {
		return err
	}
	if err := s.early(); err != nil {
		return err
	}
	stdout := 0
	for _, e := range s.Exports {
		if isTrue(e.Attrs["push"]) && e.Attrs["name"] == "" {
			return flagErrorf("push", "", "a push needs a name: -t REGISTRY/REPOSITORY:TAG")
		}
		if r.IIDFile != "" && (e.Type == client.ExporterLocal || e.Type == client.ExporterTar) {
			return flagErrorf("iidfile", r.IIDFile, "an output of files has no image id")
		}
		if e.Output != nil && e.Attrs[toStdout] != "" {
			delete(e.Attrs, toStdout)
			stdout++
		}
	}
	if stdout > 1 {
		return flagErrorf("output", "dest=-", "only one output can go to standard output")
	}
	return nil
}

// toStdout marks, while outputs are read, the ones that go to standard output.
const toStdout = "optbuild.stdout"

// output reads one -o value: type=…,key=value,…; a bare path is a local directory, "-" an archive on standard output.
func (r *Request) output(s *Solve, flag string, names []string) (client.ExportEntry, error) {
	none := client.ExportEntry{}
	fields, err := csvvalue.Fields(flag, nil)
	if err != nil {
		return none, flagErrorf("output", flag, "%w", err)
	}
	typ, attrs := "", map[string]string{}
	if len(fields) == 1 && fields[0] == flag && !strings.HasPrefix(flag, "type=") {
		typ, attrs["dest"] = client.ExporterLocal, flag
		if flag == "-" {
			typ = client.ExporterTar
		}
	} else if typ, attrs, err = attributes("output", flag); err != nil {
		return none, err
	}
	dest := attrs["dest"]
	delete(attrs, "dest")
	e := client.ExportEntry{Type: typ, Attrs: attrs}
	switch typ {
	case "cacheonly":
		return e, nil
	case "registry":
		attrs["push"] = "true"
		return r.image(names, attrs), nil
	case client.ExporterImage:
		return r.image(names, attrs), nil
	case client.ExporterLocal:
		return r.localOutput(s, flag, dest, attrs)
	case client.ExporterOCI, client.ExporterDocker:
		if len(names) > 0 {
			attrs["name"] = strings.Join(names, ",")
		}
		if archive, err := strconv.ParseBool(attrs["tar"]); err == nil && !archive {
			if dest == "" || dest == "-" {
				return none, flagErrorf("output", flag, "needs a directory: dest=DIR")
			}
			if fi, err := os.Stat(dest); err == nil && !fi.IsDir() {
				return none, &InputError{Path: dest, Err: syscall.ENOTDIR}
			}
			e.OutputDir = dest // content-addressed: what was there stays valid, the index is replaced as a whole
			return e, nil
		}
		if typ == client.ExporterDocker && dest == "" {
			attrs[loads] = "true"
			e.Output, err = r.loadOutput()
			return e, err
		}
	case client.ExporterTar:
	default:
		return none, flagErrorf("output", flag, "type %q is not image, registry, local, tar, oci, docker or cacheonly", typ)
	}
	if dest == "" || dest == "-" {
		if r.Terminal {
			return none, flagErrorf("output", flag, "an archive is not written to a terminal: dest=FILE, or redirect standard output")
		}
		attrs[toStdout] = "true"
		e.Output = func(map[string]string) (io.WriteCloser, error) { return nopCloser{r.Stdout}, nil }
		return e, nil
	}
	f, err := s.stage.file(dest)
	if err != nil {
		return none, &InputError{Path: dest, Err: cause(err)}
	}
	e.Output = func(map[string]string) (io.WriteCloser, error) { return f() }
	return e, nil
}

func (r *Request) localOutput(s *Solve, flag, dest string, attrs map[string]string) (e client.ExportEntry, err error) {
	if dest == "" || dest == "-" {
		return e, flagErrorf("output", flag, "needs a directory: dest=DIR")
	}
	mode := attrs["mode"]
	delete(attrs, "mode") // the staging directory is always empty; commit does what the mode says
	if mode != "" && mode != "copy" && mode != "delete" {
		return e, flagErrorf("output", flag, "mode is copy or delete")
	}
	if mode == "delete" && !slices.Contains(r.Allow, allowLocalDelete) && !belowWorkingDirectory(dest) {
		return e, flagErrorf("output", flag, "deletes what %s has, which is not below the current directory: --allow %s", dest, allowLocalDelete)
	}
	dir, err := s.stage.directory(dest, mode == "delete")
	if err != nil {
		return e, &InputError{Path: dest, Err: cause(err)}
	}
	if attrs["platform-split"] != "" { // which the exporter of archives does not have
		return client.ExportEntry{Type: client.ExporterLocal, Attrs: attrs, OutputDir: dir}, nil
	}
	return client.ExportEntry{Type: client.ExporterTar, Attrs: attrs, Output: unpackTo(dir)}, nil
}

// belowWorkingDirectory is false for the current directory itself.
func belowWorkingDirectory(path string) bool {
	wd, err := os.Getwd()
	if err == nil {
		wd, err = filepath.EvalSymlinks(wd)
	}
	if err != nil {
		return false
	}
	dest, _, err := resolve(path)
	if err != nil {
		return false
	}
	rel, err := filepath.Rel(wd, dest)
	return err == nil && rel != "." && filepath.IsLocal(rel)
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

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

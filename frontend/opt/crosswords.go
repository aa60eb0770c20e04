package opt

import (
	"path"
	"slices"
	"strings"

	"github.com/optbuild/optbuild/frontend/script"
)

// machineVariables are set by bash itself.
var machineVariables = []string{"BASH_VERSINFO", "HOSTTYPE", "MACHTYPE", "OSTYPE"}

// elsewhere refuses words and redirects by which a command gets at other files than operands tells of: files of the base image, which differ between platforms.
func (r *running) elsewhere(cmd script.Command) *crossRefusal {
	name := cmd.Name()
	for _, rd := range cmd.Redirects {
		if refused := r.dots(cmd, rd.Target); refused != nil {
			return refused
		}
		if p, ok := r.path(rd.Target); ok && (rd.Op == "<" || rd.Op == "<>") {
			if refused := r.c.link(r.s, p, false); refused != nil {
				return refused
			}
		}
	}
	if slices.Contains(copiers, name) && cmd.HasFlag("-t", "--target-directory") {
		return r.no("flag", "of "+name+" -t the last word is not where files go", cmd)
	}
	for _, w := range cmd.Args() {
		v := r.text(w)
		switch {
		case web(w) || name == "go" || name == "sed":
		case slices.Contains(texts, name):
			if !w.Literal && plainGlob(w.Raw) && !free(beforeGlob(absolute(r.dir, w.Raw))) {
				return r.no("system-file", name+" is told what "+w.Raw+" finds, of which some may belong to the base image", cmd)
			}
		case strings.HasPrefix(strings.ToLower(v), "file:"):
			return r.no("word", v+" is the address of a file", cmd)
		case (name == "[" || name == "test") && path.IsAbs(v) && !free(v):
			return r.no("system-file", name+" may look at "+v+", which belongs to the base image", cmd)
		default:
			if refused := r.dots(cmd, w); refused != nil {
				return refused
			}
		}
	}
	return nil
}

// dots refuses a path with .. in it.
func (r *running) dots(cmd script.Command, w script.Word) *crossRefusal {
	if v := r.text(w); slices.Contains(strings.Split(v, "/"), "..") {
		return r.no("word", "where "+v+" leads is not clear: behind a link, .. is another directory", cmd)
	}
	return nil
}

// text is a word as the program gets it, or as it is written.
func (r *running) text(w script.Word) string {
	if v, ok := w.Expand(r.lookup); ok {
		return v
	}
	return w.Raw
}

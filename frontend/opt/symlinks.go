package opt

import (
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/distribution/reference"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"

	"github.com/optbuild/optbuild/frontend/plan"
	"github.com/optbuild/optbuild/frontend/script"
	"github.com/optbuild/optbuild/frontend/world"
)

// linkFinder tells whether a path of a stage may lead through a symbolic link, so that what is copied there is somewhere else:
//
//	FROM example.org/base   # where /data -> /root/.cache
//	COPY wheels /data/pip/
//
// Official images are known to have links only among the directories of the system (ownDirs); nobody knows what others have. After that, links
// come from copied trees, and from programs that are told their name: that one makes a link that the Dockerfile does not name is taken to
// be impossible, as a later instruction that names it has to know of it.
type linkFinder struct {
	plan  *plan.Plan
	facts *plan.Facts
	asked []string // paths of the context that were looked at
}

// publishers are images of the tools' own makers; what their Dockerfiles link is in directories of programs.
var publishers = []string{"docker.io/oven/bun", "ghcr.io/astral-sh/uv"}

// repository is an image's name without tag and digest.
func repository(image string) string {
	ref, err := reference.ParseNormalizedNamed(image)
	if err != nil {
		return ""
	}
	return ref.Name()
}

// through is why an absolute path may lead through a link when step i of the stage starts; "" if it is known not to.
func (l *linkFinder) through(st *plan.Stage, i int, name string) (why string) {
	if name == "/" {
		return ""
	}
	list, image := above(&Work{Plan: l.plan, Facts: l.facts}, st, i)
	if _, official := world.Official(image); !official && image != "scratch" && !slices.Contains(publishers, repository(image)) {
		if image == "" {
			image = "the base image"
		}
		return name + " may lead through a symbolic link of " + image + ", which is not an official image"
	}
	for _, s := range list {
		switch c := s.Cmd.(type) {
		case *instructions.RunCommand:
			if program := linking(c, &s, name); program != "" {
				return "`" + program + "`, in a step above, may make a symbolic link on the way to " + name
			}
		case *instructions.CopyCommand:
			if l.copied(c.SourcesAndDest, c.From != "", false, name, &s.at) {
				return "what a COPY above puts above " + name + " may have a symbolic link on the way to it"
			}
		case *instructions.AddCommand:
			if l.copied(c.SourcesAndDest, false, c.Unpack == nil || *c.Unpack, name, &s.at) {
				return "what an ADD above puts above " + name + " may have a symbolic link on the way to it"
			}
		}
	}
	return ""
}

// systemTops are directories that every base image has: `ln -s a /srv` makes a link in /srv.
var systemTops = strings.Fields("home opt root srv tmp usr var")

// linking is the program of a RUN that may make a link somewhere on the way to name.
func linking(run *instructions.RunCommand, s *earlier, name string) string {
	way := elements(name)
	if slices.Contains(systemTops, way[0]) {
		way = way[1:]
	}
	names := func(text string) bool {
		return slices.ContainsFunc(strings.FieldsFunc(text, func(c rune) bool { return strings.ContainsRune("/ \t\n\"'=:,;()[]{}<>|&`", c) }),
			func(word string) bool { return slices.Contains(way, word) })
	}
	sc, err := scriptOf(run, &s.at)
	if err != nil {
		if names(s.Text) {
			return strings.TrimSpace(strings.SplitN(s.Text, "\n", 2)[0])
		}
		return ""
	}
	for _, c := range sc.Commands() {
		moves := slices.Contains([]string{"cp", "ln", "mv", "tar"}, c.Name())
		if !moves && (plainProgram(c) || slices.Contains(tidy, c.Name()) || readingOf(c) != anything) {
			continue
		}
		text := cacheDrop{command: c}.text()
		open := c.Name() == "ln" && slices.ContainsFunc(c.Args(), func(w script.Word) bool { return !w.Literal })
		if open || names(text) {
			return text
		}
	}
	return ""
}

// copied reports whether a COPY to a directory above name may bring a link on the way to it: what is foreign is not of the context.
func (l *linkFinder) copied(sd instructions.SourcesAndDest, foreign, unpacks bool, name string, at *plan.State) bool {
	dest, ok := at.Expand(sd.DestPath)
	if !path.IsAbs(dest) {
		dest, ok = path.Join(at.Dir, dest), ok && at.DirOK
	}
	dest = path.Clean(dest)
	if !ok {
		return true
	}
	if dest == name || !within(name, dest) {
		return false
	}
	way := strings.Split(strings.Trim(strings.TrimPrefix(name, dest), "/"), "/")
	for _, word := range sd.SourcePaths {
		source, ok := at.Expand(word)
		if !ok || foreign {
			return true
		}
		l.asked = append(l.asked, contextName(source))
		found := sources(l.facts.Context, source)
		for _, source := range slices.Sorted(maps.Keys(found)) {
			switch kind := found[source]; {
			case kind == plainFile || kind == unreadFile && !unpacks || kind == packedFile && !unpacks || kind == absentSource:
				continue
			case kind != directory || l.links(source, way):
				return true
			}
		}
	}
	return false
}

// links reports whether there may be a link in a directory of the context on that way.
func (l *linkFinder) links(source string, way []string) bool {
	for _, w := range way {
		source = path.Join(source, w)
		l.asked = append(l.asked, source)
		p, known := l.facts.Context.Lookup(source)
		if known && !p.Exists {
			return false
		}
		if !known || p.Mode&fs.ModeSymlink != 0 {
			return true
		}
	}
	return false
}

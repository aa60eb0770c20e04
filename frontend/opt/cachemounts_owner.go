package opt

import (
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"

	"github.com/optbuild/optbuild/frontend/plan"
)

// cacheOwner is whom a cache belongs to.
type cacheOwner struct {
	home     string
	uid, gid string // "" for root
	writes   bool   // home is known to be there, and to be the user's
}

// knownUsers are users of official images, and what their home is.
var knownUsers = []struct{ image, name, uid, home string }{
	{"node", "node", "1000", "/home/node"},
	{"gradle", "gradle", "1000", "/home/gradle"},
	{"sdk", "app", "1654", "/home/app"},
}

// owner is the user that a step runs as, and its HOME.
func (m *cacheMounter) owner(u *cacheUse) (cacheOwner, string) {
	for _, c := range u.commands {
		first := c.Words[:len(c.Words)-len(c.Args())]
		for _, w := range first {
			if slices.Contains([]string{"sudo", "su"}, w.Value) || slices.Contains(c.Wrappers, "env") && strings.HasPrefix(w.Value, "-") {
				return cacheOwner{}, "the command runs with another user or environment than the step"
			}
		}
	}
	if !u.at.UserOK {
		return cacheOwner{}, "it is not known which user the step runs as"
	}
	home := u.env("HOME")
	if u.unknown == "HOME" || home != "" && !path.IsAbs(home) {
		return cacheOwner{}, "HOME is not known"
	}
	if u.at.Root() {
		if home == "" {
			home = "/root"
		}
		return cacheOwner{home: path.Clean(home)}, ""
	}
	name, gid, _ := strings.Cut(u.at.User, ":")
	owner := cacheOwner{home: home}
	if _, err := strconv.ParseUint(name, 10, 31); err == nil {
		owner.uid = name
	}
	if _, err := strconv.ParseUint(gid, 10, 31); err == nil {
		owner.gid = gid
	}
	for _, k := range knownUsers {
		if u.official && k.image == imageName(u.image) && (name == k.name || name == k.uid) {
			owner.uid = k.uid
			if owner.home == "" {
				owner.home = k.home
			}
			owner.writes = owner.home == k.home
		}
	}
	if owner.uid == "" {
		return owner, "which number user " + name + " has is not known; USER with a number would allow it"
	}
	if owner.home == "" {
		return owner, "the home directory of user " + name + " is not known; ENV HOME would allow it"
	}
	return owner, ""
}

// parents makes sure that a user who is not root can write to the directories above the mounts: those that do not exist are made for the mounts' sake,
// and are root's. What is the tool's own gets a tmpfs, which anybody may write to unless the directory exists: then it has that one's mode
// (measured on runc 1.5). Others, which tools share, are refused.
func (m *cacheMounter) parents(st *plan.Stage, i int, u *cacheUse, o cacheOwner, mounts []cacheMount) ([]cacheMount, string) {
	if o.uid == "" {
		return mounts, ""
	}
	private := path.Join(o.home, u.tool.private)
	for _, mount := range mounts {
		parent := path.Dir(mount.target)
		switch {
		case parent == "/tmp" || parent == "/var/tmp":
			continue
		case !o.writes:
			return nil, "whether the user can make " + mount.target + " without a mount is not known"
		case parent == o.home:
			continue
		}
		if u.tool.private == "" || relate(private, mount.target) != pathAbove {
			return nil, "if " + parent + " is not there yet it would be made for the mount, and not be the user's"
		}
		if !u.official {
			return nil, "whether " + u.image + " has a directory " + private + " is not known"
		}
		if program := m.before(st, i, u.tool, private, false); program != "" {
			return nil, "`" + program + "`, in an earlier step, may have made " + private
		}
	}
	if slices.ContainsFunc(mounts, func(m cacheMount) bool { return relate(private, m.target) == pathAbove }) && u.tool.private != "" {
		mounts = append([]cacheMount{{kind: "tmpfs", target: private}}, mounts...)
	}
	return mounts, ""
}

// before is a program of an earlier step that may have made a directory, "" if there is none. Steps of root's with another HOME count only if
// anybody's do.
func (m *cacheMounter) before(st *plan.Stage, i int, t *cacheTool, dir string, anybody bool) string {
	for _, c := range m.chain(st) {
		for j, s := range c.Steps {
			if c == st && j >= i {
				break
			}
			at := &m.flow(c)[j]
			home, set, _ := at.Lookup("HOME")
			if _, ok := s.Cmd.(*instructions.RunCommand); !ok || !anybody && at.Root() && (!set || relate(home.Value, dir) == pathApart) {
				continue
			}
			if covered, why := m.covered(s, at, []cacheMount{{target: dir}}); covered && why == "" {
				continue
			}
			sc, err := m.script(c, j)
			if err != nil {
				return "a step that cannot be read"
			}
			for _, c := range sc.Commands() {
				if !plainProgram(c) || slices.Contains(t.programs, c.Name()) || slices.Contains(t.kin, c.Name()) {
					return programOf(c)
				}
			}
		}
	}
	return ""
}

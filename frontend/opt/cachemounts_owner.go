package opt

import (
	"path"
	"slices"
	"strconv"
	"strings"
)

// cacheOwner is whom a cache belongs to.
type cacheOwner struct {
	home     string
	uid, gid string // "" for root
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

// usual are directories that every image has, or that belong to root anyway.
var usual = []string{"/", "/home", "/opt", "/srv", "/tmp", "/usr/local", "/var/cache", "/var/tmp"}

// parents makes sure that a user who is not root can write to the directories above the mounts: those that do not exist are made for the
// mounts' sake, and are root's. What is the tool's own gets a tmpfs, others, which tools share, are refused.
func (o cacheOwner) parents(t *cacheTool, mounts []cacheMount) ([]cacheMount, string) {
	if o.uid == "" {
		return mounts, ""
	}
	for _, m := range mounts {
		parent := path.Dir(m.target)
		if parent == o.home || slices.Contains(usual, parent) {
			continue
		}
		private := path.Join(o.home, t.private)
		if t.private == "" || relate(private, m.target) != pathAbove {
			return nil, "if " + parent + " is not there yet it would be made for the mount, and not be the user's"
		}
		if !slices.ContainsFunc(mounts, func(m cacheMount) bool { return m.target == private }) {
			mounts = append([]cacheMount{{kind: "tmpfs", target: private}}, mounts...)
		}
	}
	return mounts, ""
}

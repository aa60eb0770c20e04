package doctor

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/optbuild/optbuild/builder/process"
)

func userNamespaces(_ context.Context, m *Machine) *Result {
	if m.read("/proc/sys/user/max_user_namespaces") == "0" {
		r := fail("switched off: user.max_user_namespaces is 0", process.RemedyUserNamespacesOff)
		if m.UID == 0 {
			r.Status = Warn // root has no need of them, unless it lacks CAP_SYS_ADMIN: then the engine's check fails
		}
		return r
	}
	if m.UID == 0 {
		return nil
	}
	if m.read("/proc/sys/kernel/unprivileged_userns_clone") == "0" {
		return fail("switched off for users: kernel.unprivileged_userns_clone is 0", process.RemedyUnprivilegedUserNS)
	}
	return ok("allowed")
}

// neededIDs covers the ids that images use in practice: up to nobody's, 65534.
const neededIDs = 65536

func subordinateIDs(_ context.Context, m *Machine) *Result {
	if m.UID == 0 {
		return nil
	}
	if m.field("/proc/self/status", "NoNewPrivs") == "1" {
		return warn("no_new_privs is set, so newuidmap can't gain privileges: builds run in single-id mode",
			"run optbuild without no_new_privs (docker run without --security-opt no-new-privileges, Kubernetes: allowPrivilegeEscalation: true)")
	}
	for _, tool := range []string{"newuidmap", "newgidmap"} {
		if _, err := m.LookPath(tool); err != nil {
			return warn(tool+" is not installed: builds run in single-id mode",
				"install it, as root:", "apt-get install uidmap   # Fedora: dnf install shadow-utils, Alpine: apk add shadow-uidmap")
		}
	}
	uids, gids := m.subIDs("/etc/subuid"), m.subIDs("/etc/subgid")
	switch {
	case uids == 0 || gids == 0:
		return warn(fmt.Sprintf("none for %s in /etc/subuid and /etc/subgid: builds run in single-id mode", m.User),
			"give the user some, as root:", m.subIDCommand())
	case uids < neededIDs || gids < neededIDs:
		return warn(fmt.Sprintf("%d user ids and %d group ids: files of higher ids in images can't be unpacked", uids, gids),
			"give the user more, as root:", m.subIDCommand())
	}
	return ok(fmt.Sprintf("%d user ids, %d group ids", uids, gids))
}

// subIDs counts a user's subordinate ids in a file as subuid(5) describes.
func (m *Machine) subIDs(file string) (n int) {
	for line := range strings.Lines(m.read(file)) {
		f := strings.Split(strings.TrimSpace(line), ":")
		if len(f) != 3 || f[0] != m.User && f[0] != strconv.Itoa(m.UID) {
			continue
		}
		count, err := strconv.Atoi(f[2])
		if err == nil {
			n += count
		}
	}
	return n
}

func (m *Machine) subIDCommand() string {
	return process.SubIDCommand(m.User, m.read("/etc/subuid")+"\n"+m.read("/etc/subgid"))
}

func appArmor(_ context.Context, m *Machine) *Result {
	if m.UID == 0 || m.read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") != "1" {
		return nil
	}
	if strings.HasPrefix(m.read("/proc/self/attr/current"), "optbuild ") {
		return ok("a profile allows optbuild to make user namespaces")
	}
	return warn("user namespaces are restricted to programs with a profile (kernel.apparmor_restrict_unprivileged_userns is 1)",
		append([]string{"as root:"}, strings.Split(process.AppArmorCommands(m.Binary), "\n")...)...)
}

func seccompFilter(_ context.Context, m *Machine) *Result {
	if m.field("/proc/self/status", "Seccomp") != "2" {
		return nil
	}
	return ok("a filter is active, as in a container; whether it forbids anything that builds need shows below, at engine")
}

func maskedProc(_ context.Context, m *Machine) *Result {
	var masked []string
	for line := range strings.Lines(m.read("/proc/self/mountinfo")) {
		if f := strings.Fields(line); len(f) > 4 && strings.HasPrefix(f[4], "/proc/") && f[4] != "/proc/sys/fs/binfmt_misc" {
			masked = append(masked, f[4])
		}
	}
	if len(masked) == 0 {
		return nil
	}
	if m.UID == 0 && m.read("/proc/self/uid_map") == "0          0 4294967295" {
		return nil // CAP_SYS_ADMIN of the host may mount another; without it the engine's check tells
	}
	return warn(fmt.Sprintf("partly masked (%s), as in a container: steps see the processes outside, and a step waits for its background processes", masked[0]),
		"docker run --security-opt systempaths=unconfined   # Kubernetes: procMount: Unmasked")
}

func engine(ctx context.Context, m *Machine) *Result {
	e := m.StartEngine(ctx)
	if e.Err != nil {
		var remedy []string
		if e.Remedy != "" {
			remedy = strings.Split(e.Remedy, "\n")
		}
		return fail(e.Err.Error(), remedy...)
	}
	found := "starts, as " + e.Kind
	switch e.Snapshotter {
	case "overlayfs":
		found += ", with overlayfs"
		if len(e.Notices) > 0 {
			return warn(found + "; " + strings.Join(e.Notices, "; "))
		}
		return ok(found)
	case "fuse-overlayfs":
		return warn(found+", with fuse-overlayfs: slower than the kernel's",
			"rootless overlayfs needs Linux 5.11 or newer (and SELinux 5.13) and a state directory on ext4, xfs, btrfs or tmpfs: optbuild --root DIR")
	}
	return warn(found+", with plain copies of directories ("+e.Snapshotter+"): slow, and large on disk",
		"put the state directory on ext4, xfs, btrfs or tmpfs (in a container: on a volume): optbuild --root DIR")
}

func cgroups(_ context.Context, m *Machine) *Result {
	v2 := m.read("/sys/fs/cgroup/cgroup.controllers")
	v1 := m.read("/proc/cgroups") != "" && m.exists("/sys/fs/cgroup/memory")
	switch {
	case v2 == "" && !v1:
		if m.UID != 0 {
			return ok("none mounted; rootless builds do without")
		}
		return fail("no cgroup hierarchy is mounted at /sys/fs/cgroup", "mount -t cgroup2 none /sys/fs/cgroup")
	case m.UID != 0:
		return ok(version(v2) + "; rootless builds do without, so that steps have no limits of memory or processors of their own")
	case !m.writable("/sys/fs/cgroup"):
		return fail(version(v2)+", mounted read-only: steps can't get cgroups of their own",
			"docker run --privileged, or with -v /sys/fs/cgroup:/sys/fs/cgroup:rw --cgroupns host; or run optbuild as an ordinary user, who needs none")
	}
	return ok(version(v2))
}

func version(v2 string) string {
	if v2 != "" {
		return "version 2 (" + v2 + ")"
	}
	return "version 1"
}

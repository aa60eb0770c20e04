package doctor

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// fake is a machine made of files; everything else is as on a healthy one.
func fake(t *testing.T, files map[string]string) *Machine {
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return &Machine{
		Root: root, UID: 1000, User: "ann", Binary: "/opt/optbuild",
		StateDir: filepath.Join(root, "state"), DockerConfig: filepath.Join(root, "config.json"),
		LookPath:     func(name string) (string, error) { return "/usr/bin/" + name, nil },
		FindEmulator: func(string) (string, error) { return "", exec.ErrNotFound },
		Disk:         func(string) (Disk, error) { return Disk{Free: 100 << 30, Files: 1e6, Inode: 1e7}, nil },
		StartEngine:  func(context.Context) Engine { return Engine{Kind: "root", Snapshotter: "overlayfs"} },
	}
}

// installed says for which architectures there is a qemu.
func installed(archs ...string) func(*Machine) {
	return func(m *Machine) {
		m.FindEmulator = func(arch string) (string, error) {
			if slices.Contains(archs, arch) {
				return "/usr/bin/qemu-" + arch, nil
			}
			return "", exec.ErrNotFound
		}
	}
}

func without(tools ...string) func(string) (string, error) {
	return func(name string) (string, error) {
		for _, t := range tools {
			if t == name {
				return "", errors.New("not found")
			}
		}
		return "/usr/bin/" + name, nil
	}
}

func text(r *Result) string {
	if r == nil {
		return "nothing"
	}
	return strings.Join(append([]string{string(r.Status) + ": " + r.Found}, r.Remedy...), "\n")
}

func TestChecks(t *testing.T) {
	const subids = "root:0:1\nann:100000:65536\n"
	tests := []struct {
		name  string
		check func(context.Context, *Machine) *Result
		files map[string]string
		edit  func(*Machine)
		want  string
	}{
		{"namespaces", userNamespaces, nil, nil, "ok: allowed"},
		{"namespaces off", userNamespaces, map[string]string{"/proc/sys/user/max_user_namespaces": "0\n"}, nil,
			"fail: switched off: user.max_user_namespaces is 0\nas root: sysctl -w user.max_user_namespaces=15000   # and a file in /etc/sysctl.d, or it is lost at the next boot"},
		{"namespaces off, root", userNamespaces, map[string]string{"/proc/sys/user/max_user_namespaces": "0\n"}, func(m *Machine) { m.UID = 0 },
			"warn: switched off: user.max_user_namespaces is 0\nas root: sysctl -w user.max_user_namespaces=15000   # and a file in /etc/sysctl.d, or it is lost at the next boot"},
		{"namespaces off for users", userNamespaces, map[string]string{"/proc/sys/kernel/unprivileged_userns_clone": "0\n"}, nil,
			"fail: switched off for users: kernel.unprivileged_userns_clone is 0\nas root: sysctl -w kernel.unprivileged_userns_clone=1   # and a file in /etc/sysctl.d, or it is lost at the next boot"},

		{"subids", subordinateIDs, map[string]string{"/etc/subuid": subids, "/etc/subgid": "1000:100000:70000\n"}, nil, "ok: 65536 user ids, 70000 group ids"},
		{"subids, root", subordinateIDs, nil, func(m *Machine) { m.UID = 0 }, "nothing"},
		{"subids missing", subordinateIDs, map[string]string{"/etc/subuid": "bob:100000:65536\n", "/etc/subgid": "bob:100000:65536\n"}, nil,
			"warn: none for ann in /etc/subuid and /etc/subgid: builds run in single-id mode\ngive the user some, as root:\nusermod --add-subuids 165536-231071 --add-subgids 165536-231071 ann"},
		{"subids too few", subordinateIDs, map[string]string{"/etc/subuid": "ann:100000:1000\n", "/etc/subgid": subids}, nil,
			"warn: 1000 user ids and 65536 group ids: files of higher ids in images can't be unpacked\ngive the user more, as root:\nusermod --add-subuids 165536-231071 --add-subgids 165536-231071 ann"},
		{"subids without tool", subordinateIDs, map[string]string{"/etc/subuid": subids, "/etc/subgid": subids}, func(m *Machine) { m.LookPath = without("newgidmap") },
			"warn: newgidmap is not installed: builds run in single-id mode\ninstall it, as root:\napt-get install uidmap   # Fedora: dnf install shadow-utils, Alpine: apk add shadow-uidmap"},
		{"no_new_privs", subordinateIDs, map[string]string{"/proc/self/status": "Name:\tx\nNoNewPrivs:\t1\n"}, nil,
			"warn: no_new_privs is set, so newuidmap can't gain privileges: builds run in single-id mode\nrun optbuild without no_new_privs (docker run without --security-opt no-new-privileges, Kubernetes: allowPrivilegeEscalation: true)"},

		{"apparmor absent", appArmor, nil, nil, "nothing"},
		{"apparmor with profile", appArmor, map[string]string{"/proc/sys/kernel/apparmor_restrict_unprivileged_userns": "1\n", "/proc/self/attr/current": "optbuild (unconfined)\n"}, nil,
			"ok: a profile allows optbuild to make user namespaces"},
		{"apparmor", appArmor, map[string]string{"/proc/sys/kernel/apparmor_restrict_unprivileged_userns": "1\n"}, nil,
			"warn: user namespaces are restricted to programs with a profile (kernel.apparmor_restrict_unprivileged_userns is 1)\nas root:\n" +
				"cat > /etc/apparmor.d/optbuild <<'END'\nabi <abi/4.0>,\ninclude <tunables/global>\nprofile optbuild \"/opt/optbuild\" flags=(unconfined) {\n  userns,\n}\nEND\napparmor_parser -r /etc/apparmor.d/optbuild"},

		{"seccomp", seccompFilter, map[string]string{"/proc/self/status": "Seccomp:\t2\n"}, nil,
			"ok: a filter is active, as in a container; whether it forbids anything that builds need shows below, at engine"},
		{"no seccomp", seccompFilter, map[string]string{"/proc/self/status": "Seccomp:\t0\n"}, nil, "nothing"},

		{"proc", maskedProc, map[string]string{"/proc/self/mountinfo": "22 1 0:21 / /proc rw - proc proc rw\n33 22 0:9 / /proc/sys/fs/binfmt_misc rw - x x rw\n"}, nil, "nothing"},
		{"masked proc", maskedProc, map[string]string{"/proc/self/mountinfo": "22 1 0:21 / /proc rw - proc proc rw\n33 22 0:9 /null /proc/kcore rw - devtmpfs x rw\n"}, nil,
			"warn: partly masked (/proc/kcore), as in a container: steps see the processes outside, and a step waits for its background processes\ndocker run --security-opt systempaths=unconfined   # Kubernetes: procMount: Unmasked"},

		{"engine", engine, nil, nil, "ok: starts, as root, with overlayfs"},
		{"engine, single id", engine, nil, func(m *Machine) {
			m.StartEngine = func(context.Context) Engine {
				return Engine{Kind: "single id", Snapshotter: "overlayfs", Notices: []string{"single-id mode"}}
			}
		}, "warn: starts, as single id, with overlayfs; single-id mode"},
		{"engine fails", engine, nil, func(m *Machine) {
			m.StartEngine = func(context.Context) Engine { return Engine{Err: errors.New("clone: no"), Remedy: "do\nthis"} }
		}, "fail: clone: no\ndo\nthis"},
		{"native", engine, nil, func(m *Machine) {
			m.StartEngine = func(context.Context) Engine { return Engine{Kind: "root", Snapshotter: "native"} }
		}, "warn: starts, as root, with plain copies of directories (native): slow, and large on disk\nput the state directory on ext4, xfs, btrfs or tmpfs (in a container: on a volume): optbuild --root DIR"},

		{"cgroup v2, root", cgroups, map[string]string{"/sys/fs/cgroup/cgroup.controllers": "cpu memory\n"}, func(m *Machine) { m.UID = 0 }, "ok: version 2 (cpu memory)"},
		{"no cgroup, root", cgroups, nil, func(m *Machine) { m.UID = 0 }, "fail: no cgroup hierarchy is mounted at /sys/fs/cgroup\nmount -t cgroup2 none /sys/fs/cgroup"},
		{"no cgroup", cgroups, nil, nil, "ok: none mounted; rootless builds do without"},

		{"fuse", devFuse, map[string]string{"/dev/fuse": ""}, nil, "ok: usable"},
		{"no fuse", devFuse, nil, nil, "warn: is missing: steps are not watched, and run again after every edit\nmodprobe fuse   # in a container: docker run --device /dev/fuse"},

		{"platforms", platforms, map[string]string{
			"/proc/sys/fs/binfmt_misc/status": "enabled\n", "/proc/sys/fs/binfmt_misc/qemu-s390x": "disabled\n",
			"/proc/sys/fs/binfmt_misc/qemu-aarch64": "enabled\ninterpreter /usr/bin/qemu-aarch64-static\nflags: POCF\noffset 0\n"}, nil, "ok: emulated by the kernel: aarch64"},
		{"platforms without F", platforms, map[string]string{"/proc/sys/fs/binfmt_misc/qemu-arm": "enabled\ninterpreter /x\nflags: OC\n"}, nil,
			"warn: arm is not usable in steps: registered without flag F\nas root: apt-get install --reinstall qemu-user-static binfmt-support"},
		{"qemu installed", platforms, map[string]string{"/proc/sys/kernel/osrelease": "6.7.0-1-generic\n"}, installed("riscv64", "s390x"),
			"ok: emulated inside the build, by installed qemus: riscv64, s390x"},
		{"qemu installed, one registered", platforms, map[string]string{
			"/proc/sys/kernel/osrelease": "6.18.44\n", "/proc/sys/fs/binfmt_misc/qemu-riscv64": "enabled\nflags: F\n"}, installed("riscv64", "s390x"),
			"ok: emulated by the kernel: riscv64; emulated inside the build, by installed qemus: s390x"},
		{"qemu installed, older kernel", platforms, map[string]string{"/proc/sys/kernel/osrelease": "6.1.0-13-amd64\n"}, installed("s390x"),
			"warn: qemu is installed for s390x, but not registered, and this kernel (6.1.0-13-amd64) can't do that for a build alone, as those since 6.7 can\n" +
				"as root: apt-get install qemu-user-static binfmt-support   # or: docker run --privileged --rm tonistiigi/binfmt --install all"},
		{"qemu not static", platforms, nil, func(m *Machine) {
			m.FindEmulator = func(string) (string, error) { return "", errors.New("/usr/bin/qemu-s390x is not static") }
		}, "warn: /usr/bin/qemu-s390x is not static\nas root: apt-get install qemu-user-static   # Fedora: dnf install qemu-user-static, Alpine: apk add qemu-aarch64"},
		{"no qemu", platforms, nil, nil,
			"ok: this machine's only; RUN for others needs emulators\nfor those, as root: apt-get install qemu-user-static   # Fedora: dnf install qemu-user-static, Alpine: apk add qemu-aarch64"},

		{"state directory", stateDirectory, nil, nil, "ok: ROOT/state"},
		{"state directory on nfs", stateDirectory, nil, func(m *Machine) { m.Disk = func(string) (Disk, error) { return Disk{Type: "nfs"}, nil } },
			"warn: ROOT/state is on nfs, which can't hold the layers of an overlay, or only slowly\nchoose one on a local disk (in a container: on a volume): optbuild --root DIR, or OPTBUILD_ROOT"},
		{"state directory is a file", stateDirectory, map[string]string{"/state": ""}, nil,
			"fail: state directory ROOT/state: mkdir ROOT/state: not a directory\nchoose a writable state directory: optbuild --root DIR, or OPTBUILD_ROOT"},

		{"space", diskSpace, nil, nil, "ok: 100GiB free"},
		{"little space", diskSpace, nil, func(m *Machine) { m.Disk = func(string) (Disk, error) { return Disk{Free: 1 << 30}, nil } },
			"warn: only 1GiB free\n`optbuild prune` empties the cache; or choose another disk: optbuild --root DIR"},
		{"no space", diskSpace, nil, func(m *Machine) { m.Disk = func(string) (Disk, error) { return Disk{Free: 1 << 20}, nil } },
			"fail: only 1MiB free\n`optbuild prune` empties the cache; or choose another disk: optbuild --root DIR"},
		{"no inodes", diskSpace, nil, func(m *Machine) {
			m.Disk = func(string) (Disk, error) { return Disk{Free: 100 << 30, Files: 7, Inode: 1e6}, nil }
		}, "fail: only 7 inodes free\n`optbuild prune` empties the cache; or choose another disk: optbuild --root DIR"},

		{"git", gitBinary, nil, nil, "ok: /usr/bin/git"},
		{"no git", gitBinary, nil, func(m *Machine) { m.LookPath = without("git") }, "warn: is not installed: git URLs can't be contexts or sources of ADD\napt-get install git"},

		{"no docker config", credentialHelpers, nil, nil, "ok: none configured"},
		{"helpers", credentialHelpers, map[string]string{"/config.json": `{"credsStore":"pass","credHelpers":{"gcr.io":"gcloud"}}`}, nil,
			"ok: docker-credential-gcloud, docker-credential-pass"},
		{"store missing", credentialHelpers, map[string]string{"/config.json": `{"credsStore":"desktop"}`}, func(m *Machine) { m.LookPath = without("docker-credential-desktop") },
			"fail: not in PATH: docker-credential-desktop (for all registries)\ninstall docker-credential-desktop, or remove it from ROOT/config.json"},
		{"helper missing", credentialHelpers, map[string]string{"/config.json": `{"credHelpers":{"gcr.io":"gcloud","a.io":"gcloud"}}`}, func(m *Machine) { m.LookPath = without("docker-credential-gcloud") },
			"warn: not in PATH: docker-credential-gcloud (for a.io, gcr.io)\ninstall docker-credential-gcloud, or remove it from ROOT/config.json"},
		{"docker config damaged", credentialHelpers, map[string]string{"/config.json": `{`}, nil,
			"fail: ROOT/config.json is not valid: unexpected end of JSON input\ncorrect the file, or set DOCKER_CONFIG to another directory"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := fake(t, tt.files)
			if tt.edit != nil {
				tt.edit(m)
			}
			got := strings.ReplaceAll(text(tt.check(t.Context(), m)), m.Root, "ROOT")
			if got != tt.want {
				t.Errorf("got\n%s\nwant\n%s", got, tt.want)
			}
		})
	}
}

func TestRun(t *testing.T) {
	m := fake(t, map[string]string{"/dev/fuse": "", "/etc/subuid": "ann:1:65536", "/etc/subgid": "ann:1:65536"})
	m.Registries = []string{"up.example", "private.example", "web.example", "down.example"}
	m.Ping = func(_ context.Context, host string) (*http.Response, error) {
		status := map[string]int{"up.example": 200, "private.example": 401, "web.example": 404}[host]
		if status == 0 {
			return nil, errors.New("no route to host")
		}
		return &http.Response{
			StatusCode: status, Status: fmt.Sprint(status), Body: http.NoBody, Request: &http.Request{URL: &url.URL{Scheme: "https"}},
		}, nil
	}
	var shown []string
	results := Run(t.Context(), m, func(r Result) { shown = append(shown, r.Name) })
	var got []string
	for _, r := range results {
		got = append(got, fmt.Sprintf("%s %s: %s", r.Status, r.Name, strings.ReplaceAll(r.Found, m.Root, "ROOT")))
	}
	want := `ok state directory: ROOT/state
ok disk space: 100GiB free
ok user namespaces: allowed
ok subordinate ids: 65536 user ids, 65536 group ids
ok engine: starts, as root, with overlayfs
ok cgroups: none mounted; rootless builds do without
ok /dev/fuse: usable
ok platforms: this machine's only; RUN for others needs emulators
ok git: /usr/bin/git
ok credential helpers: none configured
ok registry up.example: https, status 200
ok registry private.example: https, status 401 (wants credentials)
warn registry web.example: https, status 404
fail registry down.example: no route to host`
	if s := strings.Join(got, "\n"); s != want {
		t.Errorf("got\n%s\nwant\n%s", s, want)
	}
	if len(shown) != len(results) {
		t.Errorf("showed %v of %d results", shown, len(results))
	}
}

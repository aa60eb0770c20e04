package doctor

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"

	"github.com/optbuild/optbuild/builder/emulation"
)

// platforms says for which foreign platforms steps can run, and who emulates them: the kernel, where an emulator is registered, else a qemu that is installed.
func platforms(_ context.Context, m *Machine) *Result {
	registered, broken := m.registered()
	var installed, unusable []string
	for _, arch := range emulation.Architectures() {
		if arch == runtime.GOARCH || arch == "386" && runtime.GOARCH == "amd64" || slices.Contains(registered, emulation.Qemu(arch)) {
			continue
		}
		switch _, err := m.FindEmulator(arch); {
		case err == nil:
			installed = append(installed, arch)
		case !strings.Contains(err.Error(), "not found"):
			unusable = append(unusable, err.Error())
		}
	}
	var found []string
	if len(registered) > 0 {
		found = append(found, "emulated by the kernel: "+strings.Join(registered, ", "))
	}
	r := ok("")
	switch release := m.read("/proc/sys/kernel/osrelease"); {
	case len(installed) == 0:
	case !namespacedBinfmt(release):
		found = append(found, fmt.Sprintf("qemu is installed for %s, but not registered, and this kernel (%s) can't do that for a build alone, as those since 6.7 can", strings.Join(installed, ", "), release))
		r.Status, r.Remedy = Warn, []string{"as root: " + emulation.Register}
	default:
		found = append(found, "emulated inside the build, by installed qemus: "+strings.Join(installed, ", "))
	}
	for _, arch := range broken {
		found = append(found, arch+" is not usable in steps: registered without flag F")
		r.Status, r.Remedy = Warn, []string{"as root: apt-get install --reinstall qemu-user-static binfmt-support"}
	}
	if len(found) == 0 && len(unusable) > 0 {
		return warn(unusable[0], "as root: "+emulation.Install)
	}
	if len(found) == 0 {
		return &Result{Status: OK, Found: "this machine's only; RUN for others needs emulators", Remedy: []string{"for those, as root: " + emulation.Install}}
	}
	r.Found = strings.Join(found, "; ")
	return r
}

// registered lists the emulators that the kernel knows, by qemu's names, and those that would not be found in a container.
func (m *Machine) registered() (usable, broken []string) {
	entries, _ := os.ReadDir(m.Root + "/proc/sys/fs/binfmt_misc")
	for _, e := range entries {
		arch, isQemu := strings.CutPrefix(e.Name(), "qemu-")
		text := m.read("/proc/sys/fs/binfmt_misc/" + e.Name())
		if !isQemu || !strings.HasPrefix(text, "enabled") {
			continue
		}
		list := &usable
		for line := range strings.Lines(text) {
			if flags, found := strings.CutPrefix(line, "flags: "); found && !strings.Contains(flags, "F") {
				list = &broken
			}
		}
		*list = append(*list, arch)
	}
	return usable, broken
}

// namespacedBinfmt reports whether user namespaces may have a binfmt_misc of their own: since Linux 6.7.
func namespacedBinfmt(release string) bool {
	var major, minor int
	if _, err := fmt.Sscanf(release, "%d.%d", &major, &minor); err != nil {
		return true // the build will say
	}
	return major > 6 || major == 6 && minor >= 7
}

package emulation

import (
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// architecture is what ELF files of an architecture begin with, and what qemu calls it.
type architecture struct {
	qemu    string
	class   elf.Class
	data    elf.Data
	machine elf.Machine
}

// architectures by Go's and OCI's names.
var architectures = map[string]architecture{
	"386":      {"i386", elf.ELFCLASS32, elf.ELFDATA2LSB, elf.EM_386},
	"amd64":    {"x86_64", elf.ELFCLASS64, elf.ELFDATA2LSB, elf.EM_X86_64},
	"arm":      {"arm", elf.ELFCLASS32, elf.ELFDATA2LSB, elf.EM_ARM},
	"arm64":    {"aarch64", elf.ELFCLASS64, elf.ELFDATA2LSB, elf.EM_AARCH64},
	"loong64":  {"loongarch64", elf.ELFCLASS64, elf.ELFDATA2LSB, elf.EM_LOONGARCH},
	"mips":     {"mips", elf.ELFCLASS32, elf.ELFDATA2MSB, elf.EM_MIPS},
	"mipsle":   {"mipsel", elf.ELFCLASS32, elf.ELFDATA2LSB, elf.EM_MIPS},
	"mips64":   {"mips64", elf.ELFCLASS64, elf.ELFDATA2MSB, elf.EM_MIPS},
	"mips64le": {"mips64el", elf.ELFCLASS64, elf.ELFDATA2LSB, elf.EM_MIPS},
	"ppc64":    {"ppc64", elf.ELFCLASS64, elf.ELFDATA2MSB, elf.EM_PPC64},
	"ppc64le":  {"ppc64le", elf.ELFCLASS64, elf.ELFDATA2LSB, elf.EM_PPC64},
	"riscv64":  {"riscv64", elf.ELFCLASS64, elf.ELFDATA2LSB, elf.EM_RISCV},
	"s390x":    {"s390x", elf.ELFCLASS64, elf.ELFDATA2MSB, elf.EM_S390},
}

// Architectures lists those that can be emulated, in the order of their names.
func Architectures() []string { return slices.Sorted(maps.Keys(architectures)) }

// Qemu is the architecture's name in those of qemu's programs; "" if it is not known.
func Qemu(arch string) string { return architectures[arch].qemu }

// header is where in an ELF file e_machine ends.
const header = 20

// magic returns the bytes that programs of an architecture begin with, and which of their bits count: not the ABI of the operating system, and not whether
// an executable may lie anywhere (ET_EXEC is 2, ET_DYN 3).
func (a architecture) magic() (magic, mask [header]byte) {
	copy(magic[:], elf.ELFMAG)
	magic[elf.EI_CLASS], magic[elf.EI_DATA], magic[elf.EI_VERSION] = byte(a.class), byte(a.data), byte(elf.EV_CURRENT)
	for i := range elf.EI_OSABI {
		mask[i] = 0xff
	}
	order := [2]int{0, 1} // of the low byte and the high one
	if a.data == elf.ELFDATA2MSB {
		order = [2]int{1, 0}
	}
	const kind, machine = elf.EI_NIDENT, elf.EI_NIDENT + 2
	magic[kind+order[0]] = byte(elf.ET_EXEC)
	mask[kind+order[0]], mask[kind+order[1]] = 0xfe, 0xff
	magic[machine+order[0]], magic[machine+order[1]] = byte(a.machine), byte(a.machine>>8)
	mask[machine], mask[machine+1] = 0xff, 0xff
	return magic, mask
}

// Architecture tells which architecture a program is for; "" if it is an ELF file of none that is known. What is not an ELF file is an error.
func Architecture(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	return ReadArchitecture(f)
}

// ReadArchitecture is Architecture for a file's content.
func ReadArchitecture(r io.Reader) (string, error) {
	var b [header]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return "", err
	}
	if string(b[:len(elf.ELFMAG)]) != elf.ELFMAG {
		return "", errNotELF
	}
	for name, a := range architectures {
		magic, mask := a.magic()
		kind := elf.EI_NIDENT
		mask[kind], mask[kind+1] = 0, 0 // libraries and object files, too
		match := true
		for i := range b {
			match = match && (b[i]^magic[i])&mask[i] == 0
		}
		if match {
			return name, nil
		}
	}
	return "", nil
}

var errNotELF = errors.New("is no ELF file")

// registration is the line that makes an emulator known to binfmt_misc (Documentation/admin-guide/binfmt-misc.rst). F opens it now, so that containers need not have
// it; O and C give it the program opened, and setuid programs their user; P leaves the program the name that it was called by.
func registration(arch, path string, preserve bool) string {
	magic, mask := architectures[arch].magic()
	flags := "OCF"
	if preserve {
		flags = "P" + flags
	}
	return fmt.Sprintf(":optbuild-%s:M:0:%s:%s:%s:%s", arch, escaped(magic), escaped(mask), path, flags)
}

func escaped(b [header]byte) string {
	var s strings.Builder
	for _, c := range b {
		fmt.Fprintf(&s, `\x%02x`, c)
	}
	return s.String()
}

var qemuVersion = regexp.MustCompile(`version (\d+)\.`)

// preservesName reports whether a qemu understands flag P, which qemu does since 5.2 (its release notes); one that doesn't would take the name for an
// argument. Only the major version is looked at, so that 5.2 itself counts as one that doesn't: steps then see the program's path in place of its name.
func preservesName(path string) bool {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, path, "--version").Output()
	if err != nil {
		return false
	}
	m := qemuVersion.FindSubmatch(out)
	if m == nil {
		return false
	}
	major, err := strconv.Atoi(string(m[1]))
	return err == nil && major >= 6
}

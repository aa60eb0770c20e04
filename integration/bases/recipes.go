package bases

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// busyboxTar takes the binary out of Debian's package without installing it.
func busyboxTar(ctx context.Context, tmp, dest string) error {
	path, err := unpackBusybox(ctx, tmp)
	if err != nil {
		return err
	}
	return busyboxRoot(ctx, dest, path, path)
}

// foreignBusyboxTar does so with another architecture's package, of which this machine's apt need not have heard. The applets are those of this machine's.
func foreignBusyboxTar(ctx context.Context, tmp, dest, arch string) error {
	var private []string // apt's lists and files, so that the machine's stay as they are
	for name, dir := range map[string]string{"Dir::State::Lists": "lists/partial", "Dir::Cache": "cache/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(tmp, dir), 0o755); err != nil {
			return err
		}
		private = append(private, "-o", name+"="+filepath.Join(tmp, strings.Split(dir, "/")[0]))
	}
	private = append(private, "-o", "APT::Architecture="+arch, "-o", "APT::Architectures="+arch)
	if _, err := output(exec.CommandContext(ctx, "apt-get", append([]string{"update", "-q"}, private...)...)); err != nil {
		return err
	}
	foreign := filepath.Join(tmp, "foreign")
	if err := os.Mkdir(foreign, 0o755); err != nil {
		return err
	}
	path, err := unpackBusybox(ctx, foreign, private...)
	if err != nil {
		return err
	}
	own, err := unpackBusybox(ctx, tmp)
	if err != nil {
		return err
	}
	return busyboxRoot(ctx, dest, path, own)
}

// unpackBusybox returns the path of the binary below tmp.
func unpackBusybox(ctx context.Context, tmp string, options ...string) (string, error) {
	download := exec.CommandContext(ctx, "apt-get", append([]string{"download", "-q", "busybox-static"}, options...)...)
	download.Dir = tmp
	if _, err := output(download); err != nil {
		return "", err
	}
	debs, err := filepath.Glob(filepath.Join(tmp, "*.deb"))
	if err != nil || len(debs) != 1 {
		return "", fmt.Errorf("apt-get download left %q", debs)
	}
	root := filepath.Join(tmp, "deb")
	if _, err := output(exec.CommandContext(ctx, "dpkg-deb", "-x", debs[0], root)); err != nil {
		return "", err
	}
	for _, name := range []string{"bin/busybox", "usr/bin/busybox"} { // before and after the merge of /usr
		path := filepath.Join(root, name)
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("there is no busybox in %s", filepath.Base(debs[0]))
}

// busyboxRoot writes a root file system with a binary, and the applets of one that this machine can run.
func busyboxRoot(ctx context.Context, dest, binary, runnable string) error {
	b, err := os.ReadFile(binary)
	if err != nil {
		return err
	}
	applets, err := output(exec.CommandContext(ctx, runnable, "--list"))
	if err != nil {
		return err
	}
	return writeBusybox(dest, b, strings.Fields(applets))
}

func writeBusybox(dest string, binary []byte, applets []string) error {
	f, err := os.Create(dest)
	if err != nil {
		return err
	}
	defer f.Close()
	w := tar.NewWriter(f)
	var failed error
	add := func(kind byte, name string, mode int64, content, link string) {
		h := &tar.Header{Typeflag: kind, Name: name, Mode: mode, Size: int64(len(content)), Linkname: link, ModTime: time.Unix(0, 0)}
		if failed == nil {
			failed = w.WriteHeader(h)
		}
		if failed == nil {
			_, failed = io.WriteString(w, content)
		}
	}
	for _, dir := range []string{"bin", "dev", "etc", "home", "proc", "sys", "usr", "usr/bin", "var"} {
		add(tar.TypeDir, dir+"/", 0o755, "", "")
	}
	add(tar.TypeDir, "root/", 0o700, "", "")
	add(tar.TypeDir, "tmp/", 0o1777, "", "")
	add(tar.TypeReg, "etc/passwd", 0o644, "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/home:/bin/false\n", "")
	add(tar.TypeReg, "etc/group", 0o644, "root:x:0:\nnogroup:x:65534:\n", "")
	add(tar.TypeReg, "bin/busybox", 0o755, string(binary), "")
	for _, a := range applets {
		if a != "busybox" {
			add(tar.TypeSymlink, "bin/"+a, 0o777, "", "busybox")
		}
	}
	return errors.Join(failed, w.Close(), f.Close())
}

// debianTar needs root, or a user with subordinate ids.
func debianTar(ctx context.Context, tmp, dest string) error {
	return mmdebstrap(ctx, tmp, dest, "--variant=minbase", "--include=ca-certificates", "--customize-hook=upload "+caBundle+" "+caBundle)
}

// foreignToolsTar unpacks packages of another architecture without configuring them, so that nothing of it has to run.
func foreignToolsTar(ctx context.Context, tmp, dest, arch string) error {
	return mmdebstrap(ctx, tmp, dest, "--variant=extract", "--architectures="+arch, "--skip=check/qemu",
		"--include=gcc,libc6-dev,dpkg,dash,coreutils,tar,sed,grep,findutils,gzip,diffutils,base-files,perl-base,debconf,libc-bin")
}

// mmdebstrap takes packages of this machine's release from where apt takes them.
func mmdebstrap(ctx context.Context, tmp, dest string, options ...string) error {
	codename, err := output(exec.CommandContext(ctx, "sh", "-c", `. /etc/os-release && echo "$VERSION_CODENAME"`))
	if err != nil {
		return err
	}
	args := append([]string{"--quiet"}, append(options, codename, dest)...)
	sources, err := aptSources(ctx, codename)
	if err != nil {
		return err
	}
	if sources != "" { // else mmdebstrap's own choice for this release
		file := filepath.Join(tmp, "sources.list")
		if err := os.WriteFile(file, []byte(sources), 0o644); err != nil {
			return err
		}
		args = append(args, file)
	}
	_, err = output(exec.CommandContext(ctx, "mmdebstrap", args...))
	return err
}

// aptSources returns the machine's own apt sources of its release as lines of a sources.list; third-party ones are left out.
func aptSources(ctx context.Context, codename string) (string, error) {
	// An apt that has never been updated knows no targets.
	targets, err := output(exec.CommandContext(ctx, "apt-get", "indextargets",
		"--format", "$(RELEASE)|$(COMPONENT)|$(REPO_URI)|$(SIGNED_BY)", "Created-By: Packages"))
	if err != nil {
		return "", err
	}
	return sourceLines(targets, codename), nil
}

func sourceLines(targets, codename string) string {
	var out strings.Builder
	seen := map[string]bool{}
	for line := range strings.Lines(targets) {
		f := strings.Split(strings.TrimSpace(line), "|")
		if len(f) != 4 || (f[1] != "main" && f[1] != "universe") {
			continue
		}
		release, signedBy := f[0], f[3]
		switch release {
		case codename, codename + "-updates", codename + "-security":
		default:
			continue
		}
		options := ""
		if strings.HasPrefix(signedBy, "/") {
			options = "[signed-by=" + signedBy + "] "
		}
		l := fmt.Sprintf("deb %s%s %s %s\n", options, f[2], release, f[1])
		if !seen[l] {
			seen[l] = true
			out.WriteString(l)
		}
	}
	return out.String()
}

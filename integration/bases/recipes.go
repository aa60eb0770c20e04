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
	download := exec.CommandContext(ctx, "apt-get", "download", "-q", "busybox-static")
	download.Dir = tmp
	if _, err := output(download); err != nil {
		return err
	}
	debs, err := filepath.Glob(filepath.Join(tmp, "*.deb"))
	if err != nil || len(debs) != 1 {
		return fmt.Errorf("apt-get download left %q", debs)
	}
	root := filepath.Join(tmp, "deb")
	if _, err := output(exec.CommandContext(ctx, "dpkg-deb", "-x", debs[0], root)); err != nil {
		return err
	}
	for _, path := range []string{"bin/busybox", "usr/bin/busybox"} { // before and after the merge of /usr
		binary, err := os.ReadFile(filepath.Join(root, path))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		applets, err := output(exec.CommandContext(ctx, filepath.Join(root, path), "--list"))
		if err != nil {
			return err
		}
		return writeBusybox(dest, binary, strings.Fields(applets))
	}
	return fmt.Errorf("there is no busybox in %s", filepath.Base(debs[0]))
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
	codename, err := output(exec.CommandContext(ctx, "sh", "-c", `. /etc/os-release && echo "$VERSION_CODENAME"`))
	if err != nil {
		return err
	}
	args := []string{"--quiet", "--variant=minbase", "--include=ca-certificates",
		"--customize-hook=upload " + caBundle + " " + caBundle, codename, dest}
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

package emulation

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"

	"github.com/moby/sys/user"
	"golang.org/x/sys/unix"
)

// Both are made by a process that ends then, this binary under another name: it has to have a mount namespace, in which copies of all our mounts would stay busy. We keep
// them by file descriptors.
const makerArg0 = "optbuild-emulation"

// namespace is a user namespace with a binfmt_misc of its own, which is mounted nowhere.
type namespace struct {
	user   *os.File
	binfmt *os.File // its root directory
}

// ErrKernel is wrapped by errors that a newer kernel would not give.
var ErrKernel = errors.New("this kernel has no binfmt_misc for user namespaces, which came with Linux 6.7")

func newNamespace() (*namespace, error) {
	uids, err := ownIDs("/proc/self/uid_map")
	if err != nil {
		return nil, err
	}
	gids, err := ownIDs("/proc/self/gid_map")
	if err != nil {
		return nil, err
	}
	groups, err := os.ReadFile("/proc/self/setgroups")
	if err != nil {
		return nil, err
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{makerArg0}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setsid: true, Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNS,
		UidMappings: uids, GidMappings: gids, GidMappingsEnableSetgroups: strings.TrimSpace(string(groups)) == "allow",
	}
	in, err := cmd.StdinPipe() // it waits for its end
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("make a user namespace: %w", err)
	}
	defer func() {
		in.Close()
		_ = cmd.Wait()
	}()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return nil, fmt.Errorf("make a user namespace: %w", err)
	}
	line = strings.TrimSpace(line)
	fd, err := strconv.Atoi(line)
	switch {
	case line == kernelAnswer:
		return nil, ErrKernel
	case err != nil:
		return nil, errors.New(line)
	}
	n := &namespace{}
	if n.user, err = os.Open(fmt.Sprintf("/proc/%d/ns/user", cmd.Process.Pid)); err != nil {
		return nil, err
	}
	if n.binfmt, err = os.Open(fmt.Sprintf("/proc/%d/fd/%d", cmd.Process.Pid, fd)); err != nil {
		n.user.Close()
		return nil, err
	}
	return n, nil
}

// ownIDs maps all ids that exist here to themselves. One less than all: a namespace with all ids can't be told from the machine's first one.
func ownIDs(file string) ([]syscall.SysProcIDMap, error) {
	const all = 1<<32 - 1
	list, err := user.ParseIDMapFile(file)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", file, err)
	}
	var ids []syscall.SysProcIDMap
	for _, m := range list {
		ids = append(ids, syscall.SysProcIDMap{ContainerID: int(m.ID), HostID: int(m.ID), Size: int(min(m.Count, all-1))})
	}
	return ids, nil
}

// path can be opened by all processes that we start.
func (n *namespace) path() string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), n.user.Fd()) }

// register writes a line of a registration.
func (n *namespace) register(line string) error {
	fd, err := unix.Openat(int(n.binfmt.Fd()), "register", unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	_, err = unix.Write(fd, []byte(line))
	return err
}

func (n *namespace) close() {
	n.user.Close()
	n.binfmt.Close()
}

// kernelAnswer stands for ErrKernel between the two processes.
const kernelAnswer = "kernel"

// IsMaker reports whether this process was started to make a namespace.
func IsMaker() bool { return len(os.Args) == 1 && os.Args[0] == makerArg0 }

// RunMaker is the main function of that process; it does not return.
func RunMaker() {
	answer := kernelAnswer
	fd, err := mountBinfmt()
	switch {
	case err == nil:
		answer = strconv.Itoa(fd)
	case !errors.Is(err, unix.EPERM): // that it may not be mounted is how older kernels say it
		answer = strings.ReplaceAll(err.Error(), "\n", " ")
	}
	fmt.Println(answer)
	_, _ = io.Copy(io.Discard, os.Stdin)
	os.Exit(0)
}

// mountBinfmt returns the directory of a binfmt_misc that is mounted nowhere.
func mountBinfmt() (int, error) {
	fs, err := unix.Fsopen("binfmt_misc", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("open binfmt_misc: %w", err)
	}
	defer unix.Close(fs)
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, fmt.Errorf("make a binfmt_misc: %w", err)
	}
	dir, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
	if err != nil {
		return -1, fmt.Errorf("mount binfmt_misc: %w", err)
	}
	return dir, nil
}

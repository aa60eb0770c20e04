// Makes one kind of access in a directory: torture ACCESS DIRECTORY. What must be seen of each is in the table of ../torture_test.go.
//
// Exit codes: 0 it was made, and answered as said here; 1 it was answered differently; 77 this kernel, or this user, can't make it.
// It is linked statically, so that nothing stands between it and the kernel.
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fanotify.h>
#include <linux/io_uring.h>
#include <linux/openat2.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

static const char *directory; // DIRECTORY
static char **environment;
static struct { const char *name; void (*make)(void); } accesses[256];
static int count;

static void add(const char *name, void (*make)(void)) { accesses[count].name = name; accesses[count++].make = make; }

#define ACCESS(name) \
	static void name(void); \
	__attribute__((constructor)) static void add_##name(void) { add(#name, name); } \
	static void name(void)

// p returns the path of a name in DIRECTORY.
static const char *p(const char *name) {
	static char buffers[8][4096];
	static unsigned next;
	char *b = buffers[next++ % 8];
	snprintf(b, sizeof buffers[0], "%s/%s", directory, name);
	return b;
}

static void die(int line, const char *what) {
	fprintf(stderr, "torture.c:%d: %s: %s\n", line, what, strerror(errno));
	exit(errno == ENOSYS || errno == EPERM || errno == ENOTSUP ? 77 : 1);
}

static long check(int line, const char *what, long result) { if (result < 0) die(line, what); return result; }

static void fails(int line, const char *what, long result, int with) {
	if (result >= 0) { fprintf(stderr, "torture.c:%d: %s succeeded\n", line, what); exit(1); }
	if (errno != with) die(line, what);
}

#define MUST(call) check(__LINE__, #call, (long)(call))
#define FAILS(call, with) fails(__LINE__, #call, (long)(call), with)
#define NEED(what) do { if (!(what)) { fprintf(stderr, "torture.c:%d: not so: %s\n", __LINE__, #what); exit(1); } } while (0)

static int opened(const char *path, int flags) { return MUST(open(path, flags, 0644)); }
static int here(int flags) { return opened(directory, O_DIRECTORY | flags); }

static void content(int fd) {
	char b[16];
	NEED(MUST(read(fd, b, sizeof b)) == 8 && !memcmp(b, "content\n", 8));
}

static void child(int status) {
	NEED(WIFEXITED(status));
	if (WEXITSTATUS(status)) exit(WEXITSTATUS(status));
}

static void list(int fd, long call) {
	char b[4096];
	NEED(syscall(call, fd, b, sizeof b) > 0);
}

// open and its relatives
ACCESS(open_file) { content(opened(p("f"), O_RDONLY)); }
ACCESS(open_after_stat) { struct stat st; MUST(stat(p("f"), &st)); content(opened(p("f"), O_RDONLY)); }
ACCESS(open_only) { opened(p("f"), O_RDONLY); }
ACCESS(open_relative) { content(MUST(openat(here(O_RDONLY), "f", O_RDONLY))); }
ACCESS(open_below_path_fd) { content(MUST(openat(here(O_PATH), "f", O_RDONLY))); }
ACCESS(open_nofollow) { FAILS(open(p("l"), O_RDONLY | O_NOFOLLOW), ELOOP); }
ACCESS(open_as_directory) { FAILS(open(p("f"), O_RDONLY | O_DIRECTORY), ENOTDIR); }
ACCESS(open_to_write) { opened(p("f"), O_WRONLY); }
ACCESS(open_to_append) { MUST(write(opened(p("f"), O_WRONLY | O_APPEND), "x", 1)); }
ACCESS(open_truncating) { opened(p("f"), O_WRONLY | O_TRUNC); }
ACCESS(open_direct) { int fd = open(p("f"), O_RDONLY | O_DIRECT); if (fd < 0) NEED(errno == EINVAL); }
ACCESS(open_tmpfile) { opened(p("d"), O_TMPFILE | O_RDWR); }
ACCESS(open_path) { opened(p("f"), O_PATH); }
ACCESS(open_path_fstat) { struct stat st; MUST(fstat(opened(p("f"), O_PATH), &st)); NEED(st.st_size == 8); }
ACCESS(open_path_reopened) {
	char b[64];
	snprintf(b, sizeof b, "/proc/self/fd/%d", opened(p("f"), O_PATH));
	content(opened(b, O_RDONLY));
}
ACCESS(open_name_to_write_missing) { FAILS(open(p("m"), O_WRONLY), ENOENT); }

static int resolving(const char *name, uint64_t resolve) {
	struct open_how how = { .flags = O_RDONLY, .resolve = resolve };
	return syscall(SYS_openat2, here(O_PATH), name, &how, sizeof how);
}
ACCESS(openat2_plain) { content(MUST(resolving("f", 0))); }
ACCESS(openat2_beneath) { content(MUST(resolving("d/../f", RESOLVE_BENEATH))); }
ACCESS(openat2_in_root) { content(MUST(resolving("/../f", RESOLVE_IN_ROOT))); }
ACCESS(openat2_no_symlinks) { FAILS(resolving("l", RESOLVE_NO_SYMLINKS), ELOOP); }
ACCESS(openat2_no_magiclinks) { content(MUST(resolving("l", RESOLVE_NO_MAGICLINKS))); }
ACCESS(openat2_no_xdev) { content(MUST(resolving("f", RESOLVE_NO_XDEV))); }
ACCESS(openat2_cached) { FAILS(resolving("f", RESOLVE_CACHED), EAGAIN); }
ACCESS(openat2_cached_warm) {
	struct stat st;
	MUST(stat(p("f"), &st));
	int fd = resolving("f", RESOLVE_CACHED);
	if (fd < 0) NEED(errno == EAGAIN); else content(fd);
}

// attributes
ACCESS(stat_file) { struct stat st; MUST(stat(p("f"), &st)); NEED(st.st_size == 8); }
ACCESS(stat_directory) { struct stat st; MUST(stat(p("d"), &st)); }
ACCESS(lstat_link) { struct stat st; MUST(lstat(p("l"), &st)); NEED(S_ISLNK(st.st_mode)); }
ACCESS(fstatat_file) { struct stat st; MUST(fstatat(here(O_RDONLY), "f", &st, 0)); }
ACCESS(statx_file) { struct statx st; MUST(statx(AT_FDCWD, p("f"), 0, STATX_ALL, &st)); }
ACCESS(statx_dont_sync) { struct statx st; MUST(statx(AT_FDCWD, p("f"), AT_STATX_DONT_SYNC, STATX_SIZE, &st)); NEED(st.stx_size == 8); }
ACCESS(statx_force_sync) { struct statx st; MUST(statx(AT_FDCWD, p("f"), AT_STATX_FORCE_SYNC, STATX_ALL, &st)); }
ACCESS(statx_birth) { struct statx st; MUST(statx(AT_FDCWD, p("f"), 0, STATX_BTIME, &st)); }
ACCESS(statx_nothing) { struct statx st; MUST(statx(AT_FDCWD, p("f"), 0, 0, &st)); }
ACCESS(access_file) { MUST(access(p("f"), R_OK)); }
ACCESS(access_exists) { MUST(access(p("f"), F_OK)); }
ACCESS(faccessat_file) { MUST(syscall(SYS_faccessat, here(O_PATH), "f", R_OK)); }
ACCESS(faccessat2_effective) { MUST(syscall(439 /* faccessat2 */, here(O_PATH), "f", R_OK, AT_EACCESS)); }
ACCESS(statfs_file) { struct statfs st; MUST(statfs(p("f"), &st)); }
ACCESS(file_getattr) {
	char b[64] = {0};
	long r = syscall(468, AT_FDCWD, p("f"), b, 24UL, 0);
	if (r < 0 && errno != ENOTTY && errno != EINVAL) MUST(r);
}
ACCESS(get_flags) { long flags; long r = syscall(SYS_ioctl, opened(p("f"), O_RDONLY), 0x80086601, &flags); if (r < 0) NEED(errno == ENOTTY); }
ACCESS(seek_hole) { NEED(lseek(opened(p("f"), O_RDONLY), 0, SEEK_HOLE) == 8); }

// links
ACCESS(readlink_link) { char b[64]; NEED(readlink(p("l"), b, sizeof b) == 1 && b[0] == 'f'); }
ACCESS(readlinkat_fd) { char b[64]; NEED(readlinkat(opened(p("l"), O_PATH | O_NOFOLLOW), "", b, sizeof b) == 1); }
ACCESS(link_followed) { struct stat st; MUST(stat(p("l"), &st)); NEED(S_ISREG(st.st_mode)); }
ACCESS(link_chain) { content(opened(p("l1"), O_RDONLY)); }
ACCESS(link_dangling) { FAILS(open(p("lm"), O_RDONLY), ENOENT); }
ACCESS(link_to_directory) { opened(p("ld/a"), O_RDONLY); }
ACCESS(link_created_through) { close(opened(p("lm"), O_WRONLY | O_CREAT)); }
ACCESS(alias_from_upper) {
	char b[4096];
	snprintf(b, sizeof b, "%s/../../alias", directory);
	MUST(symlink(p("f"), b));
	content(opened(b, O_RDONLY));
}

// paths
ACCESS(chdir_there) { struct stat st; MUST(chdir(p("d"))); MUST(stat("a", &st)); }
ACCESS(fchdir_there) { struct stat st; MUST(fchdir(opened(p("d"), O_PATH))); MUST(stat("a", &st)); }
ACCESS(proc_cwd) { MUST(chdir(directory)); content(opened("/proc/self/cwd/f", O_RDONLY)); }
ACCESS(proc_fd) {
	char b[64];
	snprintf(b, sizeof b, "/proc/self/fd/%d/f", here(O_PATH));
	content(opened(b, O_RDONLY));
}
ACCESS(dot_dot) { content(opened(p("d/../f"), O_RDONLY)); }
ACCESS(dot_dot_from_cwd) { MUST(chdir(p("d"))); content(opened("../f", O_RDONLY)); }
ACCESS(dots_and_slashes) { content(opened(p("././//d/.././f"), O_RDONLY)); }
ACCESS(trailing_slash) { struct stat st; FAILS(stat(p("f/"), &st), ENOTDIR); }
ACCESS(chroot_there) { MUST(chroot(p("d"))); opened("/a", O_RDONLY); }
ACCESS(getcwd_only) { char b[4096]; MUST(chdir(directory)); NEED(getcwd(b, sizeof b)); }
ACCESS(through_file) { struct stat st; FAILS(stat(p("f/x"), &st), ENOTDIR); }

// missing names
ACCESS(missing_stat) { struct stat st; FAILS(stat(p("m"), &st), ENOENT); }
ACCESS(missing_open) { FAILS(open(p("m"), O_RDONLY), ENOENT); }
ACCESS(missing_directory) { struct stat st; FAILS(stat(p("m/x/y"), &st), ENOENT); }
ACCESS(missing_exec) { char *a[] = { "m", 0 }; FAILS(execve(p("m"), a, environment), ENOENT); }
ACCESS(missing_unlink) { FAILS(unlink(p("m")), ENOENT); }
ACCESS(missing_rename) { FAILS(rename(p("m"), p("n")), ENOENT); }
ACCESS(missing_socket) {
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	MUST(chdir(directory));
	strcpy(a.sun_path, "m");
	FAILS(connect(MUST(socket(AF_UNIX, SOCK_STREAM, 0)), (void *)&a, sizeof a), ENOENT);
}
ACCESS(missing_then_made) {
	struct stat st;
	FAILS(stat(p("m"), &st), ENOENT);
	close(opened(p("m"), O_WRONLY | O_CREAT));
	MUST(stat(p("m"), &st));
}
ACCESS(missing_case) { struct stat st; FAILS(stat(p("F"), &st), ENOENT); }
ACCESS(too_long) { char b[512]; memset(b, 'n', 300); b[300] = 0; struct stat st; FAILS(stat(p(b), &st), ENAMETOOLONG); }

// programs
static void spawned(const char *path, char *arg) {
	pid_t pid = fork();
	if (!pid) { char *a[] = { "x", arg, 0 }; execve(path, a, environment); die(__LINE__, "execve"); }
	int status;
	MUST(waitpid(pid, &status, 0));
	child(status);
}
ACCESS(execve_program) { spawned(p("x"), "succeed"); }
ACCESS(execve_script) { MUST(chdir(directory)); spawned("./s", "succeed"); }
ACCESS(execve_not_executable) { char *a[] = { "f", 0 }; FAILS(execve(p("f"), a, environment), EACCES); }
ACCESS(execveat_relative) {
	int fd = here(O_PATH), status;
	pid_t pid = fork();
	if (!pid) { char *a[] = { "x", "succeed", 0 }; syscall(SYS_execveat, fd, "x", a, environment, 0); die(__LINE__, "execveat"); }
	MUST(waitpid(pid, &status, 0));
	child(status);
}
ACCESS(execveat_fd) {
	int fd = opened(p("x"), O_PATH), status;
	pid_t pid = fork();
	if (!pid) { char *a[] = { "x", "succeed", 0 }; syscall(SYS_execveat, fd, "", a, environment, AT_EMPTY_PATH); die(__LINE__, "execveat"); }
	MUST(waitpid(pid, &status, 0));
	child(status);
}
ACCESS(vfork_execve) {
	const char *path = p("x");
	static char *a[] = { "x", "succeed", 0 };
	int status;
	pid_t pid = vfork();
	if (!pid) { execve(path, a, environment); _exit(1); }
	MUST(waitpid(pid, &status, 0));
	child(status);
}
static void *in_thread(void *path) { content(opened(path, O_RDONLY)); return 0; }
ACCESS(thread_open) { pthread_t t; NEED(!pthread_create(&t, 0, in_thread, (void *)p("f"))); NEED(!pthread_join(t, 0)); }
ACCESS(succeed) { }

// content
ACCESS(mmap_file) {
	char *m = mmap(0, 4096, PROT_READ, MAP_PRIVATE, opened(p("f"), O_RDONLY), 0);
	NEED(m != MAP_FAILED && !memcmp(m, "content\n", 8));
}
ACCESS(mmap_exec) { NEED(mmap(0, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, opened(p("x"), O_RDONLY), 0) != MAP_FAILED); }
ACCESS(mmap_shared) { NEED(mmap(0, 4096, PROT_READ, MAP_SHARED, opened(p("f"), O_RDONLY), 0) != MAP_FAILED); }
ACCESS(sendfile_file) { int s[2]; MUST(pipe(s)); NEED(MUST(sendfile(s[1], opened(p("f"), O_RDONLY), 0, 8)) == 8); content(s[0]); }
ACCESS(splice_file) { int s[2]; MUST(pipe(s)); NEED(MUST(splice(opened(p("f"), O_RDONLY), 0, s[1], 0, 8, 0)) == 8); content(s[0]); }
ACCESS(copy_file_range_file) {
	int to = opened(p("new"), O_RDWR | O_CREAT);
	if (copy_file_range(opened(p("f"), O_RDONLY), 0, to, 0, 8, 0) < 0) { // from one file system to another
		NEED(errno == EXDEV);
		return;
	}
	MUST(lseek(to, 0, SEEK_SET));
	content(to);
}
ACCESS(reflink_file) {
	long r = syscall(SYS_ioctl, opened(p("new"), O_RDWR | O_CREAT), 0x40049409 /* FICLONE */, opened(p("f"), O_RDONLY));
	if (r < 0) NEED(errno == EOPNOTSUPP || errno == EXDEV || errno == EINVAL || errno == ENOTTY);
}
ACCESS(flock_file) { struct flock l = { .l_type = F_RDLCK }; MUST(fcntl(opened(p("f"), O_RDONLY), F_SETLK, &l)); }

// listings
ACCESS(getdents64_directory) { list(opened(p("d"), O_RDONLY), SYS_getdents64); }
#ifdef SYS_getdents
ACCESS(getdents_directory) { list(opened(p("d"), O_RDONLY), SYS_getdents); }
#endif
ACCESS(getdents_below) { list(MUST(openat(here(O_PATH), "d", O_RDONLY | O_DIRECTORY)), SYS_getdents64); }
ACCESS(getdents_then_stat) { struct stat st; list(opened(p("d"), O_RDONLY), SYS_getdents64); MUST(stat(p("d/a"), &st)); }
ACCESS(getdents_mixed) { close(opened(p("d/new"), O_WRONLY | O_CREAT)); list(opened(p("d"), O_RDONLY), SYS_getdents64); }
// Here d is in another layer, too, and is listed from both: overlayfs looks up each name by itself. What is done by path is seen all the same.
ACCESS(merged_getdents) { list(opened(p("d"), O_RDONLY), SYS_getdents64); }
ACCESS(merged_getdents_twice) { for (int i = 0; i < 2; i++) list(opened(p("d"), O_RDONLY), SYS_getdents64); }
ACCESS(merged_then_stat) { struct stat st; list(opened(p("d"), O_RDONLY), SYS_getdents64); MUST(stat(p("d/a"), &st)); }
ACCESS(merged_then_statx_dont_sync) {
	struct statx st;
	list(opened(p("d"), O_RDONLY), SYS_getdents64);
	MUST(statx(AT_FDCWD, p("d/a"), AT_STATX_DONT_SYNC, STATX_SIZE, &st));
}
ACCESS(merged_then_access) { list(opened(p("d"), O_RDONLY), SYS_getdents64); MUST(access(p("d/a"), F_OK)); }
ACCESS(merged_then_open_path) { list(opened(p("d"), O_RDONLY), SYS_getdents64); opened(p("d/a"), O_PATH); }
ACCESS(merged_then_open) { list(opened(p("d"), O_RDONLY), SYS_getdents64); opened(p("d/a"), O_RDONLY); }
ACCESS(merged_then_readlink) { char b[9]; list(opened(p("d"), O_RDONLY), SYS_getdents64); MUST(readlink(p("d/l"), b, sizeof b)); }
ACCESS(merged_then_chdir) { list(opened(p("d"), O_RDONLY), SYS_getdents64); MUST(chdir(p("d/s"))); }
ACCESS(merged_then_unlink) { list(opened(p("d"), O_RDONLY), SYS_getdents64); MUST(unlink(p("d/a"))); }
ACCESS(merged_then_cached) { // RESOLVE_CACHED may refuse, and must not answer unseen
	struct open_how how = { .flags = O_PATH, .resolve = RESOLVE_CACHED };
	list(opened(p("d"), O_RDONLY), SYS_getdents64);
	FAILS(syscall(SYS_openat2, AT_FDCWD, p("d/a"), &how, sizeof how), EAGAIN);
}
ACCESS(merged_partly_then_statx) { // with a buffer for few names; then the last one, which was not given yet
	char buffer[64];
	struct statx st;
	int fd = opened(p("d"), O_RDONLY);
	MUST(syscall(SYS_getdents64, fd, buffer, sizeof buffer));
	for (const char *n = "abc"; *n; n++) {
		char name[4] = { 'd', '/', *n, 0 };
		MUST(statx(AT_FDCWD, p(name), AT_STATX_DONT_SYNC, STATX_SIZE, &st));
	}
}
static void *lists_on(void *end) {
	do {
		int fd = opened(p("d"), O_RDONLY);
		list(fd, SYS_getdents64);
		close(fd);
	} while (!*(volatile int *)end);
	return 0;
}
ACCESS(merged_while_listed) { // another thread lists
	int end = 0;
	pthread_t t;
	struct statx st;
	NEED(pthread_create(&t, 0, lists_on, &end) == 0);
	for (const char *n = "abc"; *n; n++) {
		char name[4] = { 'd', '/', *n, 0 };
		MUST(statx(AT_FDCWD, p(name), AT_STATX_DONT_SYNC, STATX_SIZE, &st));
	}
	end = 1;
	pthread_join(t, 0);
}
ACCESS(rmdir_empty) { MUST(rmdir(p("e"))); }
ACCESS(rmdir_full) { FAILS(rmdir(p("d")), ENOTEMPTY); }
ACCESS(open_directory) { opened(p("d"), O_RDONLY); }

// making things
ACCESS(create_new) { opened(p("new"), O_WRONLY | O_CREAT); }
ACCESS(create_exclusive) { opened(p("new"), O_WRONLY | O_CREAT | O_EXCL); }
ACCESS(create_exclusive_there) { FAILS(open(p("f"), O_WRONLY | O_CREAT | O_EXCL, 0644), EEXIST); }
ACCESS(create_over) { opened(p("f"), O_WRONLY | O_CREAT | O_TRUNC); }
ACCESS(mkdir_new) { MUST(mkdir(p("new"), 0755)); }
ACCESS(mkdir_there) { FAILS(mkdir(p("d"), 0755), EEXIST); }
ACCESS(mknod_new) { MUST(mknod(p("new"), S_IFIFO | 0644, 0)); }
ACCESS(symlink_new) { MUST(symlink("f", p("new"))); }
ACCESS(symlink_there) { FAILS(symlink("f", p("g")), EEXIST); }
ACCESS(link_new) { MUST(link(p("f"), p("new"))); }
ACCESS(link_there) { FAILS(link(p("f"), p("g")), EEXIST); }
ACCESS(bind_socket) {
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	MUST(chdir(directory));
	strcpy(a.sun_path, "new");
	MUST(bind(MUST(socket(AF_UNIX, SOCK_STREAM, 0)), (void *)&a, sizeof a));
}
ACCESS(connect_socket) {
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	MUST(chdir(directory));
	strcpy(a.sun_path, "sock");
	FAILS(connect(MUST(socket(AF_UNIX, SOCK_STREAM, 0)), (void *)&a, sizeof a), ECONNREFUSED);
}
ACCESS(open_fifo) { opened(p("fifo"), O_RDONLY | O_NONBLOCK); }

// changing things
static long renamed(const char *from, const char *to, unsigned flags) {
	return syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, flags);
}
ACCESS(rename_new) { MUST(rename(p("f"), p("new"))); }
ACCESS(rename_over) { MUST(rename(p("f"), p("g"))); }
ACCESS(rename_from_upper) { close(opened(p("new"), O_WRONLY | O_CREAT)); MUST(rename(p("new"), p("f"))); }
ACCESS(rename_noreplace) { FAILS(renamed(p("f"), p("g"), RENAME_NOREPLACE), EEXIST); }
ACCESS(rename_exchange) { MUST(renamed(p("f"), p("g"), RENAME_EXCHANGE)); }
ACCESS(rename_directory) { if (rename(p("d"), p("new")) < 0) NEED(errno == EXDEV); }
ACCESS(rename_onto_directory) { MUST(mkdir(p("new"), 0755)); FAILS(rename(p("new"), p("d")), ENOTEMPTY); }
ACCESS(unlink_file) { MUST(unlink(p("f"))); }
ACCESS(unlink_directory) { FAILS(unlink(p("d")), EISDIR); }
ACCESS(unlink_then_missing) { struct stat st; MUST(unlink(p("f"))); FAILS(stat(p("f"), &st), ENOENT); }
ACCESS(truncate_file) { MUST(truncate(p("f"), 4)); }
ACCESS(chmod_file) { MUST(chmod(p("f"), 0600)); }
ACCESS(fchmodat2_file) { MUST(syscall(452 /* fchmodat2 */, AT_FDCWD, p("f"), 0600, 0)); }
ACCESS(chown_file) { MUST(chown(p("f"), 1, 1)); }
ACCESS(lchown_link) { MUST(lchown(p("l"), 1, 1)); }
ACCESS(utimes_file) { MUST(utimensat(AT_FDCWD, p("f"), 0, 0)); }
ACCESS(fallocate_file) { MUST(fallocate(opened(p("f"), O_RDWR), 0, 0, 4096)); }

// extended attributes
ACCESS(getxattr_file) { char b[64]; NEED(MUST(getxattr(p("f"), "user.color", b, sizeof b)) == 3); }
ACCESS(getxattr_size) { NEED(MUST(getxattr(p("f"), "user.color", 0, 0)) == 3); }
ACCESS(getxattr_missing) { char b[64]; FAILS(getxattr(p("f"), "user.shape", b, sizeof b), ENODATA); }
ACCESS(lgetxattr_link) { char b[64]; FAILS(lgetxattr(p("l"), "security.capability", b, sizeof b), ENODATA); }
ACCESS(fgetxattr_file) { char b[64]; NEED(MUST(fgetxattr(opened(p("f"), O_RDONLY), "user.color", b, sizeof b)) == 3); }
ACCESS(getxattrat_file) {
	char b[64];
	struct { uint64_t value; uint32_t size, flags; } a = { (uintptr_t)b, sizeof b, 0 };
	NEED(MUST(syscall(464, AT_FDCWD, p("f"), 0, "user.color", &a, sizeof a)) == 3);
}
ACCESS(listxattr_file) { char b[256]; NEED(MUST(listxattr(p("f"), b, sizeof b)) > 0); }
ACCESS(setxattr_file) { MUST(setxattr(p("f"), "user.shape", "round", 5, 0)); }
ACCESS(removexattr_file) { MUST(removexattr(p("f"), "user.color")); }
ACCESS(acl_get) { char b[256]; FAILS(getxattr(p("f"), "system.posix_acl_access", b, sizeof b), ENODATA); }
ACCESS(acl_set) {
	// Version 2: user::rw-, user:1:r--, group::r--, mask::r--, other::r--
	static const struct { uint32_t version; struct { uint16_t tag, perm; uint32_t id; } e[5]; } acl = { 2, {
		{ 1, 6, -1 }, { 2, 4, 1 }, { 4, 4, -1 }, { 16, 4, -1 }, { 32, 4, -1 } } };
	MUST(setxattr(p("f"), "system.posix_acl_access", &acl, sizeof acl, 0));
}

// watching and handles
ACCESS(inotify_file) { MUST(inotify_add_watch(MUST(inotify_init1(0)), p("f"), IN_ALL_EVENTS)); }
ACCESS(inotify_directory) { MUST(inotify_add_watch(MUST(inotify_init1(0)), p("d"), IN_ALL_EVENTS)); }
ACCESS(dnotify_directory) { MUST(fcntl(opened(p("d"), O_RDONLY), 1026 /* F_NOTIFY */, 4)); }
ACCESS(fanotify_file) {
	int fd = syscall(SYS_fanotify_init, 0x200 /* FAN_REPORT_FID */, O_RDONLY);
	MUST(fd);
	long r = syscall(SYS_fanotify_mark, fd, FAN_MARK_ADD, (uint64_t)FAN_OPEN, AT_FDCWD, p("f"));
	if (r < 0) NEED(errno == EOPNOTSUPP || errno == ENODEV || errno == EXDEV);
}
static long handle(const char *path, void *b, unsigned size, int flags) {
	struct file_handle *h = b;
	int id;
	h->handle_bytes = size - sizeof *h;
	return syscall(SYS_name_to_handle_at, AT_FDCWD, path, h, &id, flags);
}
ACCESS(name_to_handle) { char b[256]; long r = handle(p("f"), b, sizeof b, 0); if (r < 0) NEED(errno == EOPNOTSUPP); }
ACCESS(name_to_handle_fid) { char b[256]; long r = handle(p("f"), b, sizeof b, 0x200); if (r < 0) NEED(errno == EOPNOTSUPP || errno == EINVAL); }
ACCESS(open_by_handle) {
	char b[256];
	if (handle(p("f"), b, sizeof b, 0x200) < 0) { NEED(errno == EOPNOTSUPP || errno == EINVAL); return; }
	FAILS(syscall(SYS_open_by_handle_at, here(O_RDONLY), b, O_RDONLY), ESTALE);
}

// mounts
static void alone(void) { MUST(unshare(CLONE_NEWNS)); MUST(mount("none", "/", 0, MS_REC | MS_PRIVATE, 0)); }
ACCESS(unshare_files) { MUST(unshare(CLONE_FS | CLONE_FILES)); content(opened(p("f"), O_RDONLY)); }
ACCESS(unshare_mounts) { alone(); content(opened(p("f"), O_RDONLY)); }
ACCESS(bind_mount_file) { alone(); MUST(mount(p("f"), "/dev/null", 0, MS_BIND, 0)); content(opened("/dev/null", O_RDONLY)); }
ACCESS(bind_mount_directory) { alone(); MUST(mount(p("d"), "/mnt", 0, MS_BIND, 0)); opened("/mnt/a", O_RDONLY); }
ACCESS(open_tree_path) { MUST(syscall(428, here(O_PATH), "f", 0)); }
ACCESS(open_tree_clone) { alone(); int fd = MUST(syscall(428, here(O_PATH), "d", 1)); MUST(openat(fd, "a", O_RDONLY)); }
ACCESS(umount_file) { FAILS(umount2(p("f"), MNT_DETACH), EINVAL); }
ACCESS(overlay_above) {
	char o[8192];
	alone();
	snprintf(o, sizeof o, "lowerdir=%s:%s", p("d"), p("e"));
	MUST(mount("overlay", "/mnt", "overlay", MS_RDONLY, o));
	opened("/mnt/a", O_RDONLY);
}
ACCESS(mounts_only) { char b[4096]; NEED(read(opened("/proc/self/mountinfo", O_RDONLY), b, sizeof b) > 0); }

// io_uring: one request
static int ring(struct io_uring_sqe request) {
	struct io_uring_params q = { 0 };
	int fd = MUST(syscall(SYS_io_uring_setup, 1, &q));
	char *sq = mmap(0, q.sq_off.array + 64, PROT_READ | PROT_WRITE, MAP_SHARED, fd, IORING_OFF_SQ_RING);
	char *cq = mmap(0, q.cq_off.cqes + q.cq_entries * sizeof(struct io_uring_cqe), PROT_READ | PROT_WRITE, MAP_SHARED, fd, IORING_OFF_CQ_RING);
	struct io_uring_sqe *e = mmap(0, sizeof *e, PROT_READ | PROT_WRITE, MAP_SHARED, fd, IORING_OFF_SQES);
	NEED(sq != MAP_FAILED && cq != MAP_FAILED && e != MAP_FAILED);
	*e = request;
	*(unsigned *)(sq + q.sq_off.array) = 0;
	__atomic_store_n((unsigned *)(sq + q.sq_off.tail), 1, __ATOMIC_RELEASE);
	NEED(MUST(syscall(SYS_io_uring_enter, fd, 1, 1, IORING_ENTER_GETEVENTS, 0, 0)) == 1);
	int result = ((struct io_uring_cqe *)(cq + q.cq_off.cqes))->res;
	if (result < 0) { errno = -result; return -1; }
	return result;
}
#define PATH(name) .fd = AT_FDCWD, .addr = (uintptr_t)p(name)
ACCESS(ring_openat) { content(MUST(ring((struct io_uring_sqe){ .opcode = IORING_OP_OPENAT, PATH("f") }))); }
ACCESS(ring_openat_missing) { FAILS(ring((struct io_uring_sqe){ .opcode = IORING_OP_OPENAT, PATH("m") }), ENOENT); }
ACCESS(ring_openat2) {
	struct open_how how = { .flags = O_RDONLY };
	content(MUST(ring((struct io_uring_sqe){ .opcode = IORING_OP_OPENAT2, PATH("f"), .len = sizeof how, .off = (uintptr_t)&how })));
}
ACCESS(ring_statx) {
	struct statx st = { 0 };
	MUST(ring((struct io_uring_sqe){ .opcode = IORING_OP_STATX, PATH("f"), .len = STATX_SIZE, .off = (uintptr_t)&st }));
	NEED(st.stx_size == 8);
}
ACCESS(ring_read) {
	char b[16];
	int fd = opened(p("f"), O_RDONLY);
	NEED(ring((struct io_uring_sqe){ .opcode = IORING_OP_READ, .fd = fd, .addr = (uintptr_t)b, .len = sizeof b }) == 8);
}
ACCESS(ring_unlinkat) { MUST(ring((struct io_uring_sqe){ .opcode = IORING_OP_UNLINKAT, PATH("f") })); }
ACCESS(ring_mkdirat) { MUST(ring((struct io_uring_sqe){ .opcode = IORING_OP_MKDIRAT, PATH("new"), .len = 0755 })); }

// 32-bit system calls, from this 64-bit program
#ifdef __x86_64__
static char *low(const char *s) {
	char *m = mmap(0, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
	NEED(m != MAP_FAILED);
	return strcpy(m, s);
}
static long call32(long number, long a, long b, long c) {
	long r;
	__asm__ volatile("int $0x80" : "=a"(r) : "a"(number), "b"(a), "c"(b), "d"(c) : "memory", "r8", "r9", "r10", "r11");
	if ((int)r < 0 && (int)r > -4096) { errno = -(int)r; return -1; }
	return (int)r;
}
ACCESS(open_32) { content(MUST(call32(5, (long)low(p("f")), O_RDONLY, 0))); }
ACCESS(stat64_32) { MUST(call32(195, (long)low(p("f")), (long)low(""), 0)); }
// Without large numbers of inodes: those of an overlay with xino=on do not fit. The name is looked up all the same.
ACCESS(stat_32) { long r = call32(106, (long)low(p("f")), (long)low(""), 0); if (r < 0) NEED(errno == EOVERFLOW); }
ACCESS(access_32) { MUST(call32(33, (long)low(p("f")), R_OK, 0)); }
ACCESS(readlink_32) { NEED(call32(85, (long)low(p("l")), (long)low(""), 64) == 1); }
ACCESS(missing_32) { FAILS(call32(5, (long)low(p("m")), O_RDONLY, 0), ENOENT); }
ACCESS(getdents_32) {
	int fd = MUST(call32(5, (long)low(p("d")), O_RDONLY | O_DIRECTORY, 0));
	MUST(call32(220, fd, (long)low(""), 4096));
}
#endif

int main(int argc, char **argv, char **env) {
	environment = env;
	if (argc == 1) {
		for (int i = 0; i < count; i++) puts(accesses[i].name);
		return 0;
	}
	directory = argc > 2 ? argv[2] : ".";
	for (int i = 1; i < argc && i < 3; i++) // a script's interpreter gets the script's name before "succeed"
		if (!strcmp(argv[i], "succeed")) return 0;
	for (int i = 0; i < count; i++)
		if (!strcmp(accesses[i].name, argv[1])) { accesses[i].make(); return 0; }
	fprintf(stderr, "torture: no access %s\n", argv[1]);
	return 2;
}

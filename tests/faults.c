/* Ends the process before its n-th change below a folder, and records all changes. Loaded with LD_PRELOAD.

   Python's own calls are seen, and those of Arrow, polars and others that no Python code could wrap. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static char root[PATH_MAX];
static size_t root_length;
static long fault_at;
static int torn, log_to = -1;
static atomic_long changes;

/* at: number of the change that does not happen, 0 for none; half: of a write, half the bytes still arrive. */
void medalign_arm(const char *folder, long at, int half, int log) {
    root_length = strlen(folder);
    memcpy(root, folder, root_length + 1);
    fault_at = at; torn = half; log_to = log; changes = 0;
}

static int below(const char *path) { return root_length && !strncmp(path, root, root_length) && path[root_length] == '/'; }

static void of_descriptor(int fd, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    long length = syscall(SYS_readlinkat, AT_FDCWD, link, path, PATH_MAX - 1);
    path[length < 0 ? 0 : length] = 0;
}

static void full(int folder, const char *name, char *path) {
    if (name[0] == '/') { snprintf(path, PATH_MAX, "%s", name); return; }
    char base[PATH_MAX];
    if (folder == AT_FDCWD) { if (!getcwd(base, sizeof base)) base[0] = 0; } else of_descriptor(folder, base);
    snprintf(path, PATH_MAX, "%.2000s/%.2000s", base, name);
}

/* Whether this is the change that fails. */
static int step(const char *what, const char *path) {
    if (!below(path)) return 0;
    long number = atomic_fetch_add(&changes, 1) + 1;
    if (log_to >= 0) {
        char line[PATH_MAX + 64];
        int length = snprintf(line, sizeof line, "%s\t%s\n", what, path + root_length + 1);
        syscall(SYS_write, log_to, line, (size_t)length);
    }
    return number == fault_at;
}

static void die(void) { syscall(SYS_exit_group, 137); }
static void on_name(const char *what, int folder, const char *name) {
    if (!root_length) return;
    char path[PATH_MAX];
    full(folder, name, path);
    if (step(what, path)) die();
}
static void on_file(const char *what, int fd) {
    if (!root_length) return;
    char path[PATH_MAX];
    of_descriptor(fd, path);
    if (step(what, path)) die();
}
static void on_write(int fd, const void *data, size_t size) {
    if (!root_length) return;
    char path[PATH_MAX];
    of_descriptor(fd, path);
    if (step("write", path)) {
        if (torn) syscall(SYS_write, fd, data, size / 2);
        die();
    }
}
static int opened(int folder, const char *name, int flags, mode_t mode) {
    if (flags & (O_CREAT | O_TRUNC)) on_name("create", folder, name);
    return (int)syscall(SYS_openat, folder, name, flags, mode);
}

#define MODE(flags, mode) mode_t mode = 0; if ((flags) & O_CREAT) { va_list list; va_start(list, flags); mode = (mode_t)va_arg(list, int); va_end(list); }
int open(const char *name, int flags, ...) { MODE(flags, mode) return opened(AT_FDCWD, name, flags, mode); }
int open64(const char *name, int flags, ...) { MODE(flags, mode) return opened(AT_FDCWD, name, flags, mode); }
int openat(int folder, const char *name, int flags, ...) { MODE(flags, mode) return opened(folder, name, flags, mode); }
int openat64(int folder, const char *name, int flags, ...) { MODE(flags, mode) return opened(folder, name, flags, mode); }
int creat(const char *name, mode_t mode) { return opened(AT_FDCWD, name, O_CREAT | O_WRONLY | O_TRUNC, mode); }
int creat64(const char *name, mode_t mode) { return opened(AT_FDCWD, name, O_CREAT | O_WRONLY | O_TRUNC, mode); }

ssize_t write(int fd, const void *data, size_t size) { on_write(fd, data, size); return syscall(SYS_write, fd, data, size); }
ssize_t pwrite(int fd, const void *data, size_t size, off_t at) { on_file("write", fd); return syscall(SYS_pwrite64, fd, data, size, at); }
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) { on_file("write", fd); return syscall(SYS_pwrite64, fd, data, size, at); }
ssize_t writev(int fd, const struct iovec *parts, int count) { on_file("write", fd); return syscall(SYS_writev, fd, parts, count); }
ssize_t sendfile(int to, int from, off_t *at, size_t size) { on_file("write", to); return syscall(SYS_sendfile, to, from, at, size); }
ssize_t sendfile64(int to, int from, off64_t *at, size_t size) { on_file("write", to); return syscall(SYS_sendfile, to, from, at, size); }
ssize_t copy_file_range(int from, off64_t *a, int to, off64_t *b, size_t size, unsigned flags) {
    on_file("write", to);
    return syscall(SYS_copy_file_range, from, a, to, b, size, flags);
}

static void on_source(int folder, const char *name) {
    char path[PATH_MAX], line[PATH_MAX + 64];
    full(folder, name, path);
    if (log_to < 0 || !below(path)) return;
    int length = snprintf(line, sizeof line, "from\t%s\n", path + root_length + 1);
    syscall(SYS_write, log_to, line, (size_t)length);
}
int renameat(int a, const char *old, int b, const char *new) { on_source(a, old); on_name("rename", b, new); return (int)syscall(SYS_renameat2, a, old, b, new, 0); }
int rename(const char *old, const char *new) { return renameat(AT_FDCWD, old, AT_FDCWD, new); }
int unlinkat(int folder, const char *name, int flags) { on_name("unlink", folder, name); return (int)syscall(SYS_unlinkat, folder, name, flags); }
int unlink(const char *name) { return unlinkat(AT_FDCWD, name, 0); }
int rmdir(const char *name) { return unlinkat(AT_FDCWD, name, AT_REMOVEDIR); }
int mkdirat(int folder, const char *name, mode_t mode) { on_name("mkdir", folder, name); return (int)syscall(SYS_mkdirat, folder, name, mode); }
int mkdir(const char *name, mode_t mode) { return mkdirat(AT_FDCWD, name, mode); }
int linkat(int a, const char *old, int b, const char *new, int flags) { on_name("link", b, new); return (int)syscall(SYS_linkat, a, old, b, new, flags); }
int link(const char *old, const char *new) { return linkat(AT_FDCWD, old, AT_FDCWD, new, 0); }
int symlinkat(const char *to, int folder, const char *name) { on_name("symlink", folder, name); return (int)syscall(SYS_symlinkat, to, folder, name); }
int symlink(const char *to, const char *name) { return symlinkat(to, AT_FDCWD, name); }
int ftruncate(int fd, off_t size) { on_file("truncate", fd); return (int)syscall(SYS_ftruncate, fd, size); }
int ftruncate64(int fd, off64_t size) { on_file("truncate", fd); return (int)syscall(SYS_ftruncate, fd, size); }
int truncate(const char *name, off_t size) { on_name("truncate", AT_FDCWD, name); return (int)syscall(SYS_truncate, name, size); }
int fsync(int fd) { on_file("fsync", fd); return (int)syscall(SYS_fsync, fd); }
int fdatasync(int fd) { on_file("fsync", fd); return (int)syscall(SYS_fdatasync, fd); }
int fchmod(int fd, mode_t mode) { on_file("chmod", fd); return (int)syscall(SYS_fchmod, fd, mode); }
int chmod(const char *name, mode_t mode) { on_name("chmod", AT_FDCWD, name); return (int)syscall(SYS_fchmodat, AT_FDCWD, name, mode); }
int fchmodat(int folder, const char *name, mode_t mode, int flags) { on_name("chmod", folder, name); return (int)syscall(SYS_fchmodat, folder, name, mode); }

/* A disk that keeps nothing it was not told to synchronise, under a program that knows nothing of it.

   Preloaded into the program (LD_PRELOAD), this notes each change below DISK_ROOT in the file
   DISK_LOG, with the bytes that it overwrites, before the change happens. The change itself goes to
   the real file at once, so that the program and others read what was written. The note survives a
   SIGKILL from inside or outside, and whoever reads it can take back, at any later time, what was
   not synchronised: disk.rs does. No real synchronisation happens.

   DISK_KILL="n:before|half|after"  the n-th call kills the process, before it, in its midst or after it
   DISK_KILL="n:fsync"              the first synchronisation from the n-th call on does, before it
   DISK_FAIL="n:EIO|ENOSPC|SHORT"   the n-th call fails; ENOSPC keeps failing, after half a write
   DISK_FSYNC="off"                 synchronising returns 0 and does nothing

   A note is six numbers of eight bytes (kind, inode, three values, length of what follows) and bytes. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { DESCRIPTORS = 1024 };
enum fault { NONE, FAIL_EIO, FAIL_ENOSPC, FAIL_SHORT };
enum death { ALIVE, HALF, AFTER };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char tracked[DESCRIPTORS];
static const char *root, *log_path;
static size_t root_length;
static int log_file = -1, is_full, fsync_off;
static long calls, kill_at, fail_at;
static const char *kill_when = "", *fail_how = "";

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static long number_of(const char *setting, const char **rest) {
    char *end;
    if (setting == NULL) return 0;
    long number = strtol(setting, &end, 10);
    *rest = *end == ':' ? end + 1 : end;
    return number;
}

__attribute__((constructor)) static void begin(void) {
    root = getenv("DISK_ROOT");
    log_path = getenv("DISK_LOG");
    if (root == NULL || log_path == NULL) return;
    root_length = strlen(root);
    kill_at = number_of(getenv("DISK_KILL"), &kill_when);
    fail_at = number_of(getenv("DISK_FAIL"), &fail_how);
    const char *fsync_setting = getenv("DISK_FSYNC");
    fsync_off = fsync_setting != NULL && strcmp(fsync_setting, "off") == 0;
    log_file = REAL(open)(log_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (log_file < 0) abort();
}

static int is_below_root(const char *path) {
    return log_file >= 0 && strncmp(path, root, root_length) == 0
        && (path[root_length] == '/' || path[root_length] == '\0');
}

static int is_tracked(int file) { return file >= 0 && file < DESCRIPTORS && tracked[file]; }

static void note(char kind, uint64_t inode, uint64_t a, uint64_t b, uint64_t c, const void *bytes, size_t length) {
    uint64_t head[6] = {(unsigned char)kind, inode, a, b, c, length};
    struct iovec parts[2] = {{head, sizeof head}, {(void *)bytes, length}};
    if (REAL(writev)(log_file, parts, 2) != (ssize_t)(sizeof head + length)) abort();
}

static void die(void) { raise(SIGKILL); }

/* Counts a call; what is to happen to it. */
static enum fault step(enum death *death) {
    calls += 1;
    *death = ALIVE;
    if (calls == kill_at && strcmp(kill_when, "fsync") != 0) {
        if (strcmp(kill_when, "before") == 0) die();
        *death = strcmp(kill_when, "half") == 0 ? HALF : AFTER;
    }
    if (calls != fail_at) return NONE;
    note('F', 0, 0, 0, 0, "", 0);
    if (strcmp(fail_how, "EIO") == 0) return FAIL_EIO;
    if (strcmp(fail_how, "SHORT") == 0) return FAIL_SHORT;
    is_full = 1;
    return FAIL_ENOSPC;
}

static int refused(int code) {
    pthread_mutex_unlock(&lock);
    errno = code;
    return -1;
}

static int done(int result, enum death death) {
    int code = errno;
    if (death != ALIVE) die();
    pthread_mutex_unlock(&lock);
    errno = code;
    return result;
}

/* The inode of the folder in which a name lies; 0 when there is none, and the call will fail. */
static uint64_t folder_inode(const char *path) {
    char folder[4096];
    struct stat status;
    const char *slash = strrchr(path, '/');
    size_t length = slash == NULL || (size_t)(slash - path) >= sizeof folder ? 0 : (size_t)(slash - path);
    memcpy(folder, path, length);
    folder[length] = '\0';
    if (length == 0 || stat(folder, &status) != 0) return 0;
    return status.st_ino;
}

/* Notes a name that is about to be made. */
static void note_name(char kind, const char *path) {
    uint64_t folder = folder_inode(path);
    if (folder != 0 && access(path, F_OK) != 0) note(kind, folder, 0, 0, 0, path, strlen(path));
}

/* Keeps what a name loses under another one, outside of the disk; its number, or 0. */
static uint64_t keep(const char *path) {
    char name[4096];
    struct stat status;
    if (stat(path, &status) != 0) return 0;
    uint64_t number = ((uint64_t)getpid() << 32) + (uint64_t)calls;
    snprintf(name, sizeof name, "%s.%llu", log_path, (unsigned long long)number);
    if (REAL(linkat)(AT_FDCWD, path, AT_FDCWD, name, 0) != 0) abort();
    return number;
}

/* Reads bytes that are about to change, whatever the descriptor allows. */
static char *old_bytes(int file, uint64_t offset, size_t length) {
    char name[64], *bytes = malloc(length + 1);
    snprintf(name, sizeof name, "/proc/self/fd/%d", file);
    int reader = REAL(open)(name, O_RDONLY | O_CLOEXEC);
    if (bytes == NULL || reader < 0 || pread(reader, bytes, length, (off_t)offset) != (ssize_t)length) abort();
    REAL(close)(reader);
    return bytes;
}

static void note_cut(int file, uint64_t length) {
    struct stat status;
    if (fstat(file, &status) != 0) abort();
    uint64_t size = (uint64_t)status.st_size, lost = size > length ? size - length : 0;
    char *bytes = old_bytes(file, length, lost);
    note('T', status.st_ino, length, 0, size, bytes, lost);
    free(bytes);
}

static int open_file(const char *path, int flags, mode_t mode) {
    enum death death;
    struct stat status;
    pthread_mutex_lock(&lock);
    enum fault fault = step(&death);
    int exists = stat(path, &status) == 0, is_new = !exists && (flags & O_CREAT);
    if (fault == FAIL_EIO) return refused(EIO);
    if (is_full && is_new) return refused(ENOSPC);
    if (is_new) note_name('C', path);
    /* Emptying is done here by hand, so that what is lost can be read first. */
    int file = REAL(open)(path, flags & ~O_TRUNC, mode);
    if (file >= DESCRIPTORS) abort();
    if (file >= 0) {
        tracked[file] = 1;
        if (is_new && fstat(file, &status) == 0) note('I', status.st_ino, 0, 0, 0, "", 0);
        if (flags & O_TRUNC && status.st_size > 0) {
            note_cut(file, 0);
            if (REAL(ftruncate)(file, 0) != 0) abort();
        }
    }
    return done(file, death);
}

#define OPEN(name)                                                       \
    int name(const char *path, int flags, ...) {                         \
        va_list arguments;                                               \
        va_start(arguments, flags);                                      \
        mode_t mode = flags & O_CREAT ? va_arg(arguments, mode_t) : 0;   \
        va_end(arguments);                                               \
        if (is_below_root(path)) return open_file(path, flags, mode);    \
        return REAL(open)(path, flags, mode);                            \
    }
OPEN(open)
OPEN(open64)

int close(int file) {
    if (is_tracked(file)) tracked[file] = 0;
    return REAL(close)(file);
}

ssize_t write(int file, const void *bytes, size_t length) {
    enum death death;
    struct stat status;
    if (!is_tracked(file)) return REAL(write)(file, bytes, length);
    pthread_mutex_lock(&lock);
    int was_full = is_full;
    enum fault fault = step(&death);
    if (fault == FAIL_EIO) return refused(EIO);
    if (was_full) return refused(ENOSPC);
    if ((fault != NONE || death == HALF) && length > 1) length /= 2;
    off_t offset = lseek(file, 0, SEEK_CUR);
    if (fstat(file, &status) != 0 || offset < 0 || fcntl(file, F_GETFL) & O_APPEND) abort();
    size_t overlap = offset < status.st_size ? (size_t)(status.st_size - offset) : 0;
    if (overlap > length) overlap = length;
    char *old = old_bytes(file, (uint64_t)offset, overlap);
    note('W', status.st_ino, (uint64_t)offset, length, (uint64_t)status.st_size, old, overlap);
    free(old);
    return done((int)REAL(write)(file, bytes, length), death);
}

int ftruncate(int file, off_t length) {
    enum death death;
    if (!is_tracked(file)) return REAL(ftruncate)(file, length);
    pthread_mutex_lock(&lock);
    if (step(&death) == FAIL_EIO) return refused(EIO);
    note_cut(file, (uint64_t)length);
    return done(REAL(ftruncate)(file, length), death);
}

int ftruncate64(int file, off_t length) { return ftruncate(file, length); }

int fsync(int file) {
    enum death death;
    struct stat status;
    if (!is_tracked(file)) return REAL(fsync)(file);
    pthread_mutex_lock(&lock);
    if (kill_at > 0 && calls + 1 >= kill_at && strcmp(kill_when, "fsync") == 0) die();
    enum fault fault = step(&death);
    if (fstat(file, &status) != 0) abort();
    if (fault == FAIL_EIO || fault == FAIL_ENOSPC) {
        /* The pages count as clean from now on, and are not on the disk. */
        note('E', status.st_ino, 0, 0, 0, "", 0);
        return refused(fault == FAIL_EIO ? EIO : ENOSPC);
    }
    if (!fsync_off) note(S_ISDIR(status.st_mode) ? 'D' : 'S', status.st_ino, (uint64_t)status.st_size, 0, 0, "", 0);
    return done(0, death);
}

int fdatasync(int file) { return is_tracked(file) ? fsync(file) : REAL(fdatasync)(file); }

int rename(const char *from, const char *to) {
    enum death death;
    struct stat status;
    char names[8192];
    if (!is_below_root(from)) return REAL(rename)(from, to);
    pthread_mutex_lock(&lock);
    enum fault fault = step(&death);
    if (fault == FAIL_EIO) return refused(EIO);
    if (is_full) return refused(ENOSPC);
    if (stat(from, &status) != 0) return refused(errno);
    int length = snprintf(names, sizeof names, "%s%c%s", from, 0, to);
    note('R', folder_inode(to), status.st_ino, keep(to), 0, names, (size_t)length);
    return done(REAL(rename)(from, to), death);
}

int unlink(const char *path) {
    enum death death;
    if (!is_below_root(path)) return REAL(unlink)(path);
    pthread_mutex_lock(&lock);
    if (step(&death) == FAIL_EIO) return refused(EIO);
    note('U', folder_inode(path), keep(path), 0, 0, path, strlen(path));
    return done(REAL(unlink)(path), death);
}

int linkat(int from_folder, const char *from, int to_folder, const char *to, int flags) {
    enum death death;
    if (!is_below_root(to)) return REAL(linkat)(from_folder, from, to_folder, to, flags);
    pthread_mutex_lock(&lock);
    if (step(&death) == FAIL_EIO) return refused(EIO);
    if (is_full) return refused(ENOSPC);
    note_name('C', to);
    return done(REAL(linkat)(from_folder, from, to_folder, to, flags), death);
}

int mkdir(const char *path, mode_t mode) {
    enum death death;
    if (!is_below_root(path)) return REAL(mkdir)(path, mode);
    pthread_mutex_lock(&lock);
    if (step(&death) == FAIL_EIO) return refused(EIO);
    if (is_full) return refused(ENOSPC);
    note_name('M', path);
    return done(REAL(mkdir)(path, mode), death);
}

/* Ways to change a file that this disk would not see: a program that takes one must be told. */
ssize_t writev(int file, const struct iovec *parts, int count) {
    if (is_tracked(file)) abort();
    return REAL(writev)(file, parts, count);
}

ssize_t pwrite64(int file, const void *bytes, size_t length, off64_t offset) {
    if (is_tracked(file)) abort();
    return REAL(pwrite64)(file, bytes, length, offset);
}

ssize_t copy_file_range(int in, off64_t *in_offset, int out, off64_t *out_offset, size_t length, unsigned flags) {
    if (is_tracked(out)) abort();
    return REAL(copy_file_range)(in, in_offset, out, out_offset, length, flags);
}

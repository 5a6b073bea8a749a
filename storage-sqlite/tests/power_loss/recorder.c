/* Records, in order, what a process does to the files beneath one directory, so that a test can say what a disk would have
 * of them if the power failed at any moment. To be preloaded (LD_PRELOAD) into a process on Linux.
 *
 * SYNCLINE_RECORDED_DIRECTORY  the directory, absolute and without links
 * SYNCLINE_RECORDING           the file that the records are appended to, outside of that directory
 *
 * One lock is held from before each call until after its record is written. So the order of records is the order of calls,
 * and a record of a sync says that all before it is on the disk. A call that cannot be recorded ends the process: a record
 * with holes would prove nothing. Memory maps are not seen; SQLite maps its `-shm` only, which no recovery reads. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

_Static_assert(sizeof(off_t) == sizeof(off64_t), "one function serves both names of a call");

enum kind { OPEN = 'o', CREATE = 'c', CLOSE = 'x', WRITE = 'w', TRUNCATE = 't', SYNC = 's', UNLINK = 'u', RENAME = 'r' };

/* Comes before the bytes of each record; as the machine has it in memory. */
struct header {
    uint32_t kind;
    int32_t file; /* the descriptor; -1 for a call that names a file */
    uint64_t offset; /* of a write; the new length of a file that is cut */
    uint64_t length; /* of what follows: the bytes of a write, or a name relative to the directory */
};

#define FILES 4096
static unsigned char recorded[FILES]; /* whether the file with this descriptor lies beneath the directory */
static const char *directory;
static int recording = -1;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static int (*real_open)(const char *, int, ...);
static int (*real_close)(int);
static ssize_t (*real_write)(int, const void *, size_t);
static ssize_t (*real_pwrite)(int, const void *, size_t, off64_t);
static int (*real_ftruncate)(int, off64_t);
static int (*real_fsync)(int);
static int (*real_fdatasync)(int);
static int (*real_unlink)(const char *);
static int (*real_rename)(const char *, const char *);

static void die(const char *what) {
    perror(what);
    abort();
}

static void *real(const char *name) {
    void *found = dlsym(RTLD_NEXT, name);
    if (!found) die(name);
    return found;
}

__attribute__((constructor)) static void start(void) {
    real_open = (int (*)(const char *, int, ...))real("open64");
    real_close = (int (*)(int))real("close");
    real_write = (ssize_t (*)(int, const void *, size_t))real("write");
    real_pwrite = (ssize_t (*)(int, const void *, size_t, off64_t))real("pwrite64");
    real_ftruncate = (int (*)(int, off64_t))real("ftruncate64");
    real_fsync = (int (*)(int))real("fsync");
    real_fdatasync = (int (*)(int))real("fdatasync");
    real_unlink = (int (*)(const char *))real("unlink");
    real_rename = (int (*)(const char *, const char *))real("rename");
    directory = getenv("SYNCLINE_RECORDED_DIRECTORY");
    const char *path = getenv("SYNCLINE_RECORDING");
    if (!directory || !path) die("recorder: no directory or no recording is named");
    recording = real_open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (recording < 0) die("recorder: cannot open the recording");
}

/* The path relative to the directory, which itself is "". NULL if it is elsewhere, or shared memory of SQLite. */
static const char *inside(const char *path) {
    /* Libraries that start before this one open files too. */
    size_t length = directory ? strlen(directory) : 0, end = strlen(path);
    if (!length || strncmp(path, directory, length) != 0) return NULL;
    if (end >= 4 && strcmp(path + end - 4, "-shm") == 0) return NULL;
    if (path[length] == '/') return path + length + 1;
    return path[length] ? NULL : path + length;
}

static int is_recorded(int file) { return file >= 0 && file < FILES && recorded[file]; }

static void record(enum kind kind, int file, uint64_t offset, const void *bytes, size_t length) {
    struct header header = {kind, file, offset, length};
    struct iovec parts[2] = {{&header, sizeof header}, {(void *)bytes, length}};
    if (writev(recording, parts, 2) != (ssize_t)(sizeof header + length)) die("recorder: cannot write a record");
}

static int open_recorded(const char *path, int flags, mode_t mode) {
    const char *name = inside(path);
    if (!name) return real_open(path, flags, mode);
    pthread_mutex_lock(&lock);
    int existed = access(path, F_OK) == 0;
    int file = real_open(path, flags, mode);
    if (file >= FILES) die("recorder: too many files");
    if (file >= 0) {
        recorded[file] = 1;
        record(existed ? OPEN : CREATE, file, 0, name, strlen(name));
        if (existed && flags & O_TRUNC) record(TRUNCATE, file, 0, "", 0);
    }
    pthread_mutex_unlock(&lock);
    return file;
}

int open64(const char *path, int flags, ...) {
    mode_t mode = 0;
    if (flags & O_CREAT) {
        va_list rest;
        va_start(rest, flags);
        mode = va_arg(rest, mode_t);
        va_end(rest);
    }
    return open_recorded(path, flags, mode);
}

int open(const char *path, int flags, ...) __attribute__((alias("open64")));

int close(int file) {
    if (!is_recorded(file)) return real_close(file);
    pthread_mutex_lock(&lock);
    recorded[file] = 0;
    record(CLOSE, file, 0, "", 0);
    int done = real_close(file);
    pthread_mutex_unlock(&lock);
    return done;
}

ssize_t write(int file, const void *bytes, size_t length) {
    if (!is_recorded(file)) return real_write(file, bytes, length);
    pthread_mutex_lock(&lock);
    off64_t offset = lseek64(file, 0, SEEK_CUR);
    if (offset < 0 || fcntl(file, F_GETFL) & O_APPEND) die("recorder: where does this write go?");
    ssize_t written = real_write(file, bytes, length);
    if (written > 0) record(WRITE, file, (uint64_t)offset, bytes, (size_t)written);
    pthread_mutex_unlock(&lock);
    return written;
}

ssize_t pwrite64(int file, const void *bytes, size_t length, off64_t offset) {
    if (!is_recorded(file)) return real_pwrite(file, bytes, length, offset);
    pthread_mutex_lock(&lock);
    ssize_t written = real_pwrite(file, bytes, length, offset);
    if (written > 0) record(WRITE, file, (uint64_t)offset, bytes, (size_t)written);
    pthread_mutex_unlock(&lock);
    return written;
}

ssize_t pwrite(int file, const void *bytes, size_t length, off_t offset) __attribute__((alias("pwrite64")));

int ftruncate64(int file, off64_t length) {
    if (!is_recorded(file)) return real_ftruncate(file, length);
    pthread_mutex_lock(&lock);
    int done = real_ftruncate(file, length);
    if (done == 0) record(TRUNCATE, file, (uint64_t)length, "", 0);
    pthread_mutex_unlock(&lock);
    return done;
}

int ftruncate(int file, off_t length) __attribute__((alias("ftruncate64")));

static int sync_recorded(int (*sync)(int), int file) {
    if (!is_recorded(file)) return sync(file);
    pthread_mutex_lock(&lock);
    int done = sync(file);
    if (done == 0) record(SYNC, file, 0, "", 0);
    pthread_mutex_unlock(&lock);
    return done;
}

int fsync(int file) { return sync_recorded(real_fsync, file); }

int fdatasync(int file) { return sync_recorded(real_fdatasync, file); }

int unlink(const char *path) {
    const char *name = inside(path);
    if (!name) return real_unlink(path);
    pthread_mutex_lock(&lock);
    int done = real_unlink(path);
    if (done == 0) record(UNLINK, -1, 0, name, strlen(name));
    pthread_mutex_unlock(&lock);
    return done;
}

int rename(const char *from, const char *to) {
    if (!inside(from) && !inside(to)) return real_rename(from, to);
    pthread_mutex_lock(&lock);
    int done = real_rename(from, to);
    if (done == 0) record(RENAME, -1, 0, "", 0);
    pthread_mutex_unlock(&lock);
    return done;
}

/* Stands between bearerd and the system, loaded by LD_PRELOAD: kills the process right after a named
 * call, lets that call fail, steps the wall clock, or makes a file somebody else's, as the file
 * FAULTS_PLAN says at that moment ("POINT kill", "POINT ERRNO", "clock SECONDS", "owner UID", one a
 * line). It concerns what lies in the directory FAULTS_STORE, and requests to /token. When each
 * point was passed goes to FAULTS_TRACE, in nanoseconds of the monotonic clock. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

enum kind { OTHER, RECORD, PENDING, LOCK, DIRECTORY, TOKEN, LOGIN };
static unsigned char kinds[65536];

static void set_kind(int fd, enum kind kind) {
    if (fd >= 0 && fd < (int)sizeof kinds) kinds[fd] = kind;
}

static enum kind kind_of(int fd) {
    return fd >= 0 && fd < (int)sizeof kinds ? kinds[fd] : OTHER;
}

/* The word that the plan has for a point; false if there is none. Raw calls: nothing here may come
 * back to itself. */
static int planned(const char *point, char *word, size_t size) {
    const char *path = getenv("FAULTS_PLAN");
    char plan[512] = "";
    int fd = path ? (int)syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0) return 0;
    long length = syscall(SYS_read, fd, plan, sizeof plan - 1);
    syscall(SYS_close, fd);
    if (length <= 0) return 0;
    char *rest = NULL;
    for (char *line = strtok_r(plan, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        size_t named = strlen(point);
        if (!strncmp(line, point, named) && line[named] == ' ') {
            snprintf(word, size, "%s", line + named + 1);
            return 1;
        }
    }
    return 0;
}

/* True if the call at this point is to fail; errno says how. */
static int fails(const char *point) {
    char word[32];
    if (!planned(point, word, sizeof word) || !strcmp(word, "kill")) return 0;
    errno = atoi(word);
    return 1;
}

/* Notes that a point was passed, and ends the process there if that is the plan. */
static void passed(const char *point) {
    const char *path = getenv("FAULTS_TRACE");
    struct timespec now;
    char line[96], word[32];
    int saved = errno;
    syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &now);
    long long nanoseconds = now.tv_sec * 1000000000LL + now.tv_nsec;
    int length = snprintf(line, sizeof line, "%s %lld\n", point, nanoseconds);
    int flags = O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC;
    int fd = path ? (int)syscall(SYS_openat, AT_FDCWD, path, flags, 0600) : -1;
    if (fd >= 0) {
        syscall(SYS_write, fd, line, length);
        syscall(SYS_close, fd);
    }
    if (planned(point, word, sizeof word) && !strcmp(word, "kill")) {
        syscall(SYS_kill, getpid(), SIGKILL);
        for (;;) pause();
    }
    errno = saved;
}

static int ends_with(const char *text, const char *end) {
    size_t length = strlen(text), least = strlen(end);
    return length >= least && !strcmp(text + length - least, end);
}

static enum kind kind_of_path(const char *path) {
    const char *store = getenv("FAULTS_STORE");
    size_t length = store ? strlen(store) : 0;
    if (!store || strncmp(path, store, length)) return OTHER;
    if (!path[length]) return DIRECTORY;
    if (path[length] != '/') return OTHER;
    if (ends_with(path, ".new")) return PENDING;
    if (ends_with(path, ".login")) return LOGIN;
    return ends_with(path, ".lock") ? LOCK : RECORD;
}

int open64(const char *path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    mode_t mode = flags & O_CREAT ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    enum kind kind = kind_of_path(path);
    int creates = kind == PENDING && flags & O_CREAT;
    if (creates && fails("created")) return -1;
    if (kind == LOCK && fails("locked")) return -1;
    if (kind == RECORD && fails("read")) return -1;
    int fd = REAL(open64)(path, flags, mode);
    set_kind(fd, kind);
    if (creates && fd >= 0) passed("created");
    return fd;
}

int close(int fd) {
    set_kind(fd, OTHER);
    return REAL(close)(fd);
}

ssize_t write(int fd, const void *bytes, size_t count) {
    if (kind_of(fd) != PENDING) return REAL(write)(fd, bytes, count);
    if (fails("written")) {
        /* A full disk takes a part first. */
        int saved = errno;
        if (count > 100) return REAL(write)(fd, bytes, 100);
        errno = saved;
        return -1;
    }
    ssize_t done = REAL(write)(fd, bytes, count);
    if (done == (ssize_t)count) passed("written");
    return done;
}

int fsync(int fd) {
    const char *point = kind_of(fd) == PENDING     ? "synced"
                        : kind_of(fd) == DIRECTORY ? "kept"
                                                   : NULL;
    if (point && fails(point)) return -1;
    int done = REAL(fsync)(fd);
    if (point && !done) passed(point);
    return done;
}

int rename(const char *from, const char *to) {
    /* A login is left there by one process, and taken up by another. */
    const char *point = kind_of_path(from) == PENDING  ? "renamed"
                        : kind_of_path(from) == LOGIN ? "taken"
                        : kind_of_path(to) == LOGIN   ? "left"
                                                      : NULL;
    if (point && fails(point)) return -1;
    int done = REAL(rename)(from, to);
    if (point && !done) passed(point);
    return done;
}

static void sends(int fd, const void *bytes, size_t count) {
    const char head[] = "POST /token";
    if (count >= sizeof head - 1 && !memcmp(bytes, head, sizeof head - 1)) {
        set_kind(fd, TOKEN);
        passed("sending");
    }
}

ssize_t send(int fd, const void *bytes, size_t count, int flags) {
    sends(fd, bytes, count);
    return REAL(send)(fd, bytes, count, flags);
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    if (count > 0) sends(fd, parts[0].iov_base, parts[0].iov_len);
    return REAL(writev)(fd, parts, count);
}

ssize_t recv(int fd, void *bytes, size_t count, int flags) {
    ssize_t done = REAL(recv)(fd, bytes, count, flags);
    /* The answer is one JSON object, and its last byte ends it. */
    if (done > 0 && kind_of(fd) == TOKEN && ((char *)bytes)[done - 1] == '}') passed("answered");
    return done;
}

int clock_gettime(clockid_t id, struct timespec *time) {
    char word[32];
    int done = (int)syscall(SYS_clock_gettime, id, time);
    if (id == CLOCK_REALTIME && !done && planned("clock", word, sizeof word)) {
        time->tv_sec += atol(word);
    }
    return done;
}

int statx(int fd, const char *path, int flags, unsigned mask, struct statx *about) {
    char word[32];
    int done = (int)syscall(SYS_statx, fd, path, flags, mask, about);
    if (done == -1) return -1;
    if (kind_of(fd) == RECORD && planned("owner", word, sizeof word)) about->stx_uid = atoi(word);
    return done;
}

/* Stands in for a watchdog device: preloaded into a process, it takes what that process does to a path that ends with
 * "watchdog-standin", and writes each act with the instant (CLOCK_BOOTTIME, ns) to the file that STANDIN_LOG names.
 *
 *   STANDIN_ROUNDS=n      the device takes n seconds, whatever is set
 *   STANDIN_NOWAYOUT=1    it cannot be stopped
 *   STANDIN_OPTIONS=n     what it says that it can do (WDIOF bits)
 *   STANDIN_PAUSES_AT=n   the process is stopped (SIGSTOP) inside its nth feeding, before the device hears of it
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include <linux/watchdog.h>

static int device = -1, seconds = 60, feedings = 0;

static int setting(const char *name, int otherwise) {
    const char *value = getenv(name);
    return value ? atoi(value) : otherwise;
}

static void note(const char *act) {
    struct timespec now;
    char line[80];
    clock_gettime(CLOCK_BOOTTIME, &now);
    int length = snprintf(line, sizeof line, "%s %lld%09ld\n", act, (long long)now.tv_sec, now.tv_nsec);
    int log = syscall(SYS_openat, AT_FDCWD, getenv("STANDIN_LOG"), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    syscall(SYS_write, log, line, length);
    syscall(SYS_close, log);
}

static int is_standin(const char *path) {
    const char *name = "watchdog-standin";
    size_t length = strlen(path), end = strlen(name);
    return length >= end && !strcmp(path + length - end, name);
}

static int start(void) {
    if (device >= 0) { errno = EBUSY; return -1; }
    device = syscall(SYS_openat, AT_FDCWD, "/dev/null", O_WRONLY | O_CLOEXEC);
    note("open");
    return device;
}

#define OPEN(name)                                                                         \
    int name(const char *path, int flags, ...) {                                           \
        va_list rest; va_start(rest, flags); int mode = va_arg(rest, int); va_end(rest);   \
        return is_standin(path) ? start() : (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode); \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                                                       \
    int name(int folder, const char *path, int flags, ...) {                               \
        va_list rest; va_start(rest, flags); int mode = va_arg(rest, int); va_end(rest);   \
        return is_standin(path) ? start() : (int)syscall(SYS_openat, folder, path, flags, mode); \
    }
OPENAT(openat)
OPENAT(openat64)

int ioctl(int fd, unsigned long request, ...) {
    va_list rest;
    va_start(rest, request);
    void *argument = va_arg(rest, void *);
    va_end(rest);
    if (fd != device || fd < 0) return syscall(SYS_ioctl, fd, request, argument);
    int *number = argument, nowayout = setting("STANDIN_NOWAYOUT", 0);
    switch (request) {
    case WDIOC_GETSUPPORT:
        memset(argument, 0, sizeof(struct watchdog_info));
        ((struct watchdog_info *)argument)->options =
            setting("STANDIN_OPTIONS", WDIOF_SETTIMEOUT | WDIOF_MAGICCLOSE | WDIOF_KEEPALIVEPING);
        return 0;
    case WDIOC_SETOPTIONS:
        if (*number & WDIOS_DISABLECARD) {
            if (nowayout) { errno = EBUSY; return -1; }
            note("off");
        } else note("on");
        return 0;
    case WDIOC_SETTIMEOUT:
        *number = seconds = setting("STANDIN_ROUNDS", *number);
        note("settimeout");
        return 0;
    case WDIOC_GETTIMEOUT:
        *number = seconds;
        note("gettimeout");
        return 0;
    case WDIOC_KEEPALIVE:
        if (++feedings == setting("STANDIN_PAUSES_AT", 0)) { note("paused"); raise(SIGSTOP); }
        note("keepalive");
        return 0;
    }
    errno = ENOTTY;
    return -1;
}

ssize_t write(int fd, const void *bytes, size_t length) {
    if (fd == device && fd >= 0 && memchr(bytes, 'V', length)) note("magic");
    return syscall(SYS_write, fd, bytes, length);
}

int close(int fd) {
    if (fd == device && fd >= 0) { note("close"); device = -1; }
    return syscall(SYS_close, fd);
}

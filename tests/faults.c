/* Loaded before libc by the tests of bad days: at the n-th change of a file the process is killed, or the call fails.
   FAULT_AT is n (0: count only), FAULT_ERRNO the error (0: kill), FAULT_ONLY the program that it is for, FAULT_COUNT the file
   that the number of changes is written to when the process ends. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static atomic_long done;
static long at = -1;
static int error;

__attribute__((constructor)) static void start(void) {
    const char *only = getenv("FAULT_ONLY"), *when = getenv("FAULT_AT"), *code = getenv("FAULT_ERRNO");
    if (!only || !when || strcmp(program_invocation_short_name, only) != 0) return;
    at = atol(when);
    error = code ? atoi(code) : 0;
}

__attribute__((destructor)) static void end(void) {
    const char *path = getenv("FAULT_COUNT");
    if (at != 0 || !path) return;
    char text[32];
    int length = snprintf(text, sizeof text, "%ld", (long)done);
    int file = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    at = -1;
    if (file >= 0 && write(file, text, length) == length) close(file);
}

/* 1: the call is to fail. */
static int change(void) {
    if (at < 0) return 0;
    long now = atomic_fetch_add(&done, 1) + 1;
    if (at == 0 || now != at) return 0;
    if (!error) {
        kill(getpid(), SIGKILL);
        for (;;) pause();
    }
    errno = error;
    return 1;
}

static int is_file(int descriptor) {
    struct stat data;
    int kept = errno;
    int is = fstat(descriptor, &data) == 0 && S_ISREG(data.st_mode);
    errno = kept;
    return is;
}

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define ON_FILE(type, name, signature, arguments)                      \
    type name signature {                                              \
        static __typeof__(&name) next;                                 \
        if (!next) next = NEXT(name);                                  \
        return is_file(descriptor) && change() ? -1 : next arguments;  \
    }
#define ON_NAME(name, signature, arguments)                            \
    int name signature {                                               \
        static __typeof__(&name) next;                                 \
        if (!next) next = NEXT(name);                                  \
        return change() ? -1 : next arguments;                         \
    }

ON_FILE(ssize_t, write, (int descriptor, const void *from, size_t length), (descriptor, from, length))
ON_FILE(ssize_t, pwrite64, (int descriptor, const void *from, size_t length, off64_t where), (descriptor, from, length, where))
ON_FILE(ssize_t, writev, (int descriptor, const struct iovec *from, int count), (descriptor, from, count))
ON_FILE(int, ftruncate64, (int descriptor, off64_t length), (descriptor, length))
ssize_t copy_file_range(int from, off64_t *there, int descriptor, off64_t *here, size_t length, unsigned flags) {
    static __typeof__(&copy_file_range) next;
    if (!next) next = NEXT(copy_file_range);
    return is_file(descriptor) && change() ? -1 : next(from, there, descriptor, here, length, flags);
}
ON_NAME(rename, (const char *from, const char *to), (from, to))
ON_NAME(renameat, (int one, const char *from, int other, const char *to), (one, from, other, to))
ON_NAME(renameat2, (int one, const char *from, int other, const char *to, unsigned flags), (one, from, other, to, flags))
ON_NAME(link, (const char *from, const char *to), (from, to))
ON_NAME(linkat, (int one, const char *from, int other, const char *to, int flags), (one, from, other, to, flags))
ON_NAME(symlink, (const char *from, const char *to), (from, to))
ON_NAME(mkdir, (const char *path, mode_t mode), (path, mode))

// Preloaded into a process, makes one of its system calls that write below a folder the last: it
// kills the process there, or from there on refuses all that need space or rights.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static char folder[PATH_MAX];
static long count, last;
static int error;

// Count writes below `below`, and let the `at`th (from 1; 0 for none) fail with `why`, or 0 to kill.
void arm(const char *below, long at, int why) {
  strncpy(folder, below, sizeof folder - 1);
  count = 0;
  last = at;
  error = why;
}

long counted(void) { return count; }

static int below(const char *path) {
  return strncmp(path, folder, strlen(folder)) == 0 && path[strlen(folder)] == '/';
}

static int of_descriptor(int descriptor) {
  char link[64], path[PATH_MAX];
  snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
  ssize_t length = readlink(link, path, sizeof path - 1);
  path[length < 0 ? 0 : length] = 0;
  return below(path);
}

// Stages name what is theirs by a path from where they run.
static int of_path(int from, const char *path) {
  return path[0] == '/' ? below(path) : from == AT_FDCWD || of_descriptor(from);
}

enum Kind { GIVES, TAKES };  // back what it had, or space

// Whether a call is to fail.
static int strike(int ours, enum Kind kind) {
  if (!folder[0] || !ours) return 0;
  count++;
  if (!last || count < last) return 0;
  if (!error) raise(SIGKILL);
  // A full disk lets files be moved and removed.
  if (error == ENOSPC && kind == GIVES) return 0;
  errno = error;
  return 1;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t write(int descriptor, const void *bytes, size_t size) {
  if (folder[0] && last && count + 1 == last && !error && of_descriptor(descriptor))
    REAL(write)(descriptor, bytes, size / 2);
  if (strike(folder[0] && of_descriptor(descriptor), TAKES)) return -1;
  return REAL(write)(descriptor, bytes, size);
}

#define OPEN(name)                                                             \
  int name(const char *path, int flags, ...) {                                 \
    va_list rest;                                                              \
    va_start(rest, flags);                                                     \
    int mode = flags & O_CREAT ? va_arg(rest, int) : 0;                        \
    va_end(rest);                                                              \
    if (strike(flags & (O_CREAT | O_TRUNC) && of_path(AT_FDCWD, path), TAKES)) \
      return -1;                                                               \
    return REAL(name)(path, flags, mode);                                      \
  }
OPEN(open)
OPEN(open64)

#define CALL(name, kind, ours, parameters, arguments)  \
  int name parameters {                                \
    return strike(ours, kind) ? -1 : REAL(name) arguments; \
  }
CALL(fsync, TAKES, folder[0] && of_descriptor(d), (int d), (d))
CALL(mkdir, TAKES, of_path(AT_FDCWD, p), (const char *p, mode_t m), (p, m))
CALL(rmdir, GIVES, of_path(AT_FDCWD, p), (const char *p), (p))
CALL(unlink, GIVES, of_path(AT_FDCWD, p), (const char *p), (p))
CALL(unlinkat, GIVES, of_path(d, p), (int d, const char *p, int f), (d, p, f))
CALL(rename, GIVES, of_path(AT_FDCWD, q), (const char *p, const char *q), (p, q))
CALL(renameat2, GIVES, of_path(e, q), (int d, const char *p, int e, const char *q, unsigned f),
     (d, p, e, q, f))

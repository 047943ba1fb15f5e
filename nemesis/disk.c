/* Makes the disk of one process slow, failing or full: LD_PRELOAD this, and set
 *   SPLITBRAIN_DISK_FILE  a file that holds `struct rule`, mapped, so that a change counts from the next call on;
 *   SPLITBRAIN_DISK_DIR   only files below this directory are concerned: its real path, without a final slash.
 *
 * Concerned are fsync, fdatasync, write, writev, pwrite and pwritev. A sync that fails has not synced. A write
 * that fails with ENOSPC has written nothing.
 *
 * Limits: programs that do not call the C library for these (static binaries, Go, io_uring) and memory-mapped
 * files see a healthy disk. Data that were never synced are not lost here when the process dies, since the
 * kernel outlives it; for that, use the simulator.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define MILLION 1000000u

struct rule {
  uint32_t sync_delay_us;         /* each sync takes this much longer */
  uint32_t sync_error_per_million;  /* this share of syncs fails with EIO */
  uint32_t write_error_per_million; /* this share of writes fails with ENOSPC */
  uint32_t unused;
};

static const struct rule healthy;
static const volatile struct rule *rule = &healthy;
static const char *directory;
static size_t directory_length;

__attribute__((constructor)) static void begin(void) {
  const char *path = getenv("SPLITBRAIN_DISK_FILE");
  directory = getenv("SPLITBRAIN_DISK_DIR");
  if (path == NULL || directory == NULL) return;
  directory_length = strlen(directory);
  int file = open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0) return;
  void *map = mmap(NULL, sizeof(struct rule), PROT_READ, MAP_SHARED, file, 0);
  close(file);
  if (map != MAP_FAILED) rule = map;
}

/* Whether the descriptor is a file below the directory. Costs one readlink, and only while something is wrong. */
static int is_concerned(int descriptor) {
  char link[32], path[PATH_MAX];
  snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
  ssize_t length = readlink(link, path, sizeof path);
  return directory != NULL && length > (ssize_t)directory_length &&
         memcmp(path, directory, directory_length) == 0 && path[directory_length] == '/';
}

static int happens(uint32_t per_million) {
  static _Thread_local uint64_t state;
  if (state == 0) { /* splitmix64, each thread and process its own sequence */
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    state = (uint64_t)now.tv_nsec ^ ((uint64_t)getpid() << 32) ^ (uint64_t)(uintptr_t)&state;
  }
  uint64_t mixed = (state += 0x9E3779B97F4A7C15u);
  mixed = (mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9u;
  mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EBu;
  return (mixed ^ (mixed >> 31)) % MILLION < per_million;
}

/* 0, or the error that the sync ends with. */
static int sync_trouble(int descriptor) {
  uint32_t delay_us = rule->sync_delay_us, errors = rule->sync_error_per_million;
  if ((delay_us == 0 && errors == 0) || !is_concerned(descriptor)) return 0;
  struct timespec rest = {delay_us / MILLION, (long)(delay_us % MILLION) * 1000};
  while (nanosleep(&rest, &rest) != 0 && errno == EINTR) {}
  return happens(errors) ? EIO : 0;
}

static int write_trouble(int descriptor) {
  uint32_t errors = rule->write_error_per_million;
  return errors != 0 && is_concerned(descriptor) && happens(errors) ? ENOSPC : 0;
}

/* The body of a stand-in: the trouble, if there is one, else what the C library does. */
#define STAND_IN(name, trouble, ...)                                          \
  static __typeof__(&name) real_##name;                                       \
  int error = (trouble);                                                      \
  if (error != 0) { errno = error; return -1; }                               \
  if (!real_##name) real_##name = (__typeof__(&name))dlsym(RTLD_NEXT, #name); \
  return real_##name(__VA_ARGS__)

int fsync(int fd) { STAND_IN(fsync, sync_trouble(fd), fd); }

int fdatasync(int fd) { STAND_IN(fdatasync, sync_trouble(fd), fd); }

ssize_t write(int fd, const void *data, size_t size) { STAND_IN(write, write_trouble(fd), fd, data, size); }

ssize_t writev(int fd, const struct iovec *parts, int count) {
  STAND_IN(writev, write_trouble(fd), fd, parts, count);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t place) {
  STAND_IN(pwrite, write_trouble(fd), fd, data, size, place);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t place) {
  STAND_IN(pwrite64, write_trouble(fd), fd, data, size, place);
}

ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t place) {
  STAND_IN(pwritev, write_trouble(fd), fd, parts, count, place);
}

ssize_t pwritev64(int fd, const struct iovec *parts, int count, off64_t place) {
  STAND_IN(pwritev64, write_trouble(fd), fd, parts, count, place);
}

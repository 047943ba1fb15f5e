/* Makes the disk of one process slow, failing, full or still, and lets it die at a chosen point: LD_PRELOAD this, and set
 *   SPLITBRAIN_DISK_FILE  a file that holds `struct rule`, mapped, so that a change counts from the next call on;
 *   SPLITBRAIN_DISK_DIR   only files below this directory are concerned: its real path, without a final slash.
 *
 * Concerned are fsync, fdatasync, write, writev, pwrite and pwritev. A sync that fails has not synced. A write
 * that fails with ENOSPC has written nothing. While the disk stands still, calls begin and do not end. Counts of what
 * struck follow the rule in the same file.
 *
 * Where SPLITBRAIN_DISK_SYNCED names a file, each sync that was done adds a line to it: the file's inode, its size, and
 * where in it the zeros at its end begin, which are room that was made ahead. All of it now outlives the machine. A sync that lies says that it is done, does nothing and adds no line.
 *
 * The process dies (SIGKILL), once, before a sync, after one, or when it renames a file below the directory, which is
 * how programs finish a snapshot that they have written aside.
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
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define MILLION 1000000u

struct rule {
  uint32_t sync_delay_us;         /* each sync takes this much longer */
  uint32_t sync_error_per_million;  /* this share of syncs fails with EIO */
  uint32_t write_error_per_million; /* this share of writes fails with ENOSPC */
  uint32_t stalled;                 /* nothing ends while this is not 0 */
  uint32_t crash;                   /* where to die, one of the points below */
  uint32_t lying_per_million;       /* this share of syncs does nothing and says that it is done */
  uint64_t struck[6];               /* how often: delay, sync error, write error, stalled, crash, lie */
};

enum { BEFORE_SYNC = 1, AFTER_SYNC = 2, SNAPSHOT = 3 };
enum { DELAY, SYNC_ERROR, WRITE_ERROR, STALLED, CRASH, LIE };
#define LIES -1

static struct rule healthy;
static volatile struct rule *rule = &healthy;
static int is_writable;
static int synced_log = -1;
static const char *directory;
static size_t directory_length;

__attribute__((constructor)) static void begin(void) {
  const char *path = getenv("SPLITBRAIN_DISK_FILE");
  directory = getenv("SPLITBRAIN_DISK_DIR");
  if (path == NULL || directory == NULL) return;
  directory_length = strlen(directory);
  const char *synced_path = getenv("SPLITBRAIN_DISK_SYNCED");
  if (synced_path != NULL) synced_log = open(synced_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  int file = open(path, O_RDWR | O_CLOEXEC);
  /* Where it may only be read, what struck is counted for nobody. */
  int sharing = file >= 0 ? MAP_SHARED : MAP_PRIVATE;
  if (file < 0) file = open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0) return;
  int rights = PROT_READ | (sharing == MAP_SHARED ? PROT_WRITE : 0);
  void *map = mmap(NULL, sizeof(struct rule), rights, MAP_SHARED, file, 0);
  close(file);
  if (map == MAP_FAILED) return;
  rule = map;
  is_writable = sharing == MAP_SHARED;
}

static void count(int what) {
  if (is_writable) __sync_fetch_and_add(&rule->struck[what], 1);
}

static void crash_at(uint32_t point) {
  if (rule->crash != point) return;
  count(CRASH);
  if (is_writable) rule->crash = 0;
  kill(getpid(), SIGKILL);
  for (;;) pause();
}

static void wait_while_stalled(void) {
  if (rule->stalled == 0) return;
  count(STALLED);
  struct timespec rest = {0, 5000000};
  while (rule->stalled != 0) nanosleep(&rest, NULL);
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

/* 0, or the error that the sync ends with, or LIES. */
static int sync_trouble(int descriptor) {
  uint32_t delay_us = rule->sync_delay_us, errors = rule->sync_error_per_million;
  uint32_t lies = rule->lying_per_million;
  if (delay_us == 0 && errors == 0 && rule->stalled == 0 && rule->crash == 0 && lies == 0) return 0;
  if (!is_concerned(descriptor)) return 0;
  crash_at(BEFORE_SYNC);
  wait_while_stalled();
  if (delay_us != 0) {
    count(DELAY);
    struct timespec rest = {delay_us / MILLION, (long)(delay_us % MILLION) * 1000};
    while (nanosleep(&rest, &rest) != 0 && errno == EINTR) {}
  }
  if (lies != 0 && happens(lies)) {
    count(LIE);
    return LIES;
  }
  if (!happens(errors)) return 0;
  count(SYNC_ERROR);
  return EIO;
}

/* Where the zeros at the end of a file of this size begin; the descriptor itself may be for writing only. */
static long long used(int descriptor, long long size) {
  char link[32], block[16384];
  snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
  int reader = (int)syscall(SYS_openat, AT_FDCWD, link, O_RDONLY | O_CLOEXEC);
  if (reader < 0) return size;
  while (size > 0) {
    size_t part = size < (long long)sizeof block ? (size_t)size : sizeof block;
    if (pread(reader, block, part, size - (long long)part) != (ssize_t)part) break;
    while (part > 0 && block[part - 1] == 0) part--, size--;
    if (part > 0) break;
  }
  close(reader);
  return size;
}

/* What a sync came to, for whoever is still there to hear it. */
static int synced(int descriptor, int result) {
  struct stat file;
  if (synced_log >= 0 && result == 0 && is_concerned(descriptor) && fstat(descriptor, &file) == 0) {
    char line[72];
    long long bytes = (long long)file.st_size;
    int size = snprintf(line, sizeof line, "%llu %lld %lld\n", (unsigned long long)file.st_ino, bytes,
                        used(descriptor, bytes));
    /* Past our own stand-in; a line that cannot be written makes the disk forget more, not less. */
    if (syscall(SYS_write, synced_log, line, (size_t)size) < 0) return result;
  }
  if (rule->crash == AFTER_SYNC && result == 0 && is_concerned(descriptor)) crash_at(AFTER_SYNC);
  return result;
}

static int write_trouble(int descriptor) {
  uint32_t errors = rule->write_error_per_million;
  if ((errors == 0 && rule->stalled == 0) || !is_concerned(descriptor)) return 0;
  wait_while_stalled();
  if (errors == 0 || !happens(errors)) return 0;
  count(WRITE_ERROR);
  return ENOSPC;
}

/* Whether a path is a file below the directory, as the program names it. */
static int is_below(const char *path) {
  char real[PATH_MAX];
  return directory != NULL && realpath(path, real) != NULL && strncmp(real, directory, directory_length) == 0 &&
         real[directory_length] == '/';
}

static void renaming(const char *path) {
  if (rule->crash == SNAPSHOT && is_below(path)) crash_at(SNAPSHOT);
}

/* The body of a stand-in: the trouble, if there is one, else what the C library does. */
#define FIND(name)                                                            \
  static __typeof__(&name) real_##name;                                       \
  if (!real_##name) real_##name = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

#define STAND_IN(name, trouble, ...)                                          \
  FIND(name);                                                                 \
  int error = (trouble);                                                      \
  if (error != 0) { errno = error; return -1; }                               \
  return real_##name(__VA_ARGS__)

#define SYNC_STAND_IN(name, fd)                                               \
  FIND(name);                                                                 \
  int error = sync_trouble(fd);                                               \
  if (error == LIES) return 0;                                                \
  if (error != 0) { errno = error; return -1; }                               \
  return synced(fd, real_##name(fd))

int fsync(int fd) { SYNC_STAND_IN(fsync, fd); }

int fdatasync(int fd) { SYNC_STAND_IN(fdatasync, fd); }

int rename(const char *from, const char *to) {
  FIND(rename);
  renaming(from);
  return real_rename(from, to);
}

int renameat(int from_directory, const char *from, int to_directory, const char *to) {
  FIND(renameat);
  renaming(from);
  return real_renameat(from_directory, from, to_directory, to);
}

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

/* Makes the disk of one process slow, failing, full or still, and lets it die at a chosen point: LD_PRELOAD this, and set
 *   SPLITBRAIN_DISK_FILE  a file that holds `struct rule`, mapped, so that a change counts from the next call on;
 *   SPLITBRAIN_DISK_DIR   only files below this directory are concerned: its real path, without a final slash.
 *
 * Concerned are fsync, fdatasync, write, writev, pwrite and pwritev. A sync that fails has not synced. A write
 * that fails with ENOSPC has written nothing. While the disk stands still, calls begin and do not end. Counts of what
 * struck follow the rule in the same file.
 *
 * Where SPLITBRAIN_DISK_SYNCED names a file, all that is needed to let the disk forget what was not synced is noted there, a
 * line each, of files by their inode:
 *   c INODE                     it was made
 *   w INODE PLACE LENGTH OLD    so much was written there, over these bytes: in hex, or zN for N zeros; LENGTH 0 where
 *                               these bytes were cut off
 *   s INODE SIZE                it was synced, and is so long: what is above outlives the machine
 * A sync that lies says that it is done, does nothing and adds no line.
 *
 * The process dies (SIGKILL), once, before a sync, after one, or when it renames a file below the directory, which is
 * how programs finish a snapshot that they have written aside.
 *
 * Limits: programs that do not call the C library for these (static binaries, Go, io_uring) and memory-mapped
 * files see a healthy disk. Data that were never synced are not lost when the process dies, since the kernel outlives it:
 * nemesis/power.py takes them away then, by what is noted. Names are not forgotten.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
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

/* Adds a line to the notes, past our own stand-in; one that cannot be written makes the disk forget less. */
static void note(const char *line, size_t size) {
  if (syscall(SYS_write, synced_log, line, size) < 0) return;
}

static int is_noted(int descriptor) { return synced_log >= 0 && is_concerned(descriptor); }

/* Notes that `length` bytes are about to be written at a place, and what of the old ones, up to `end`, that replaces. */
static void note_change(int descriptor, const struct stat *file, off_t place, size_t length, off_t end) {
  size_t size = end > place ? (size_t)(end - place) : 0, got = 0;
  char *line = malloc(2 * size + 96), *old = malloc(size + 1), link[32];
  if (line != NULL && old != NULL) {
    if (size > 0) {
      /* The descriptor itself may be for writing only. */
      snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
      int reader = (int)syscall(SYS_openat, AT_FDCWD, link, O_RDONLY | O_CLOEXEC);
      ssize_t part = 1;
      while (reader >= 0 && got < size && (part = pread(reader, old + got, size - got, place + (off_t)got)) > 0)
        got += (size_t)part;
      if (reader >= 0) close(reader);
    }
    size_t zeros = 0;
    while (zeros < got && old[zeros] == 0) zeros++;
    int head = snprintf(line, 90, "w %llu %lld %zu ", (unsigned long long)file->st_ino, (long long)place, length);
    if (zeros == got) {
      head += snprintf(line + head, 24, "z%zu", got);
    } else {
      for (size_t i = 0; i < got; i++, head += 2) {
        line[head] = "0123456789abcdef"[(unsigned char)old[i] >> 4];
        line[head + 1] = "0123456789abcdef"[old[i] & 15];
      }
    }
    line[head++] = '\n';
    note(line, (size_t)head);
  }
  free(line);
  free(old);
}

/* Before a write; a place below 0 is where the descriptor stands. */
static void note_write(int descriptor, off_t place, size_t length) {
  struct stat file;
  if (length == 0 || !is_noted(descriptor) || fstat(descriptor, &file) != 0 || !S_ISREG(file.st_mode)) return;
  if (place < 0) {
    int flags = fcntl(descriptor, F_GETFL);
    place = flags >= 0 && (flags & O_APPEND) ? file.st_size : lseek(descriptor, 0, SEEK_CUR);
    if (place < 0) return;
  }
  off_t end = place + (off_t)length;
  note_change(descriptor, &file, place, length, end < file.st_size ? end : file.st_size);
}

/* Before a file is cut to a size. */
static void note_cut(int descriptor, off_t size) {
  struct stat file;
  if (!is_noted(descriptor) || fstat(descriptor, &file) != 0 || size >= file.st_size) return;
  note_change(descriptor, &file, size, 0, file.st_size);
}

static size_t total(const struct iovec *parts, int count) {
  size_t length = 0;
  for (int i = 0; i < count; i++) length += parts[i].iov_len;
  return length;
}

/* What a sync came to, for whoever is still there to hear it. */
static int synced(int descriptor, int result) {
  struct stat file;
  if (result == 0 && is_noted(descriptor) && fstat(descriptor, &file) == 0) {
    char line[72];
    int size = snprintf(line, sizeof line, "s %llu %lld\n", (unsigned long long)file.st_ino, (long long)file.st_size);
    note(line, (size_t)size);
  }
  if (rule->crash == AFTER_SYNC && result == 0 && is_concerned(descriptor)) crash_at(AFTER_SYNC);
  return result;
}

/* Opens, for a program that may make a file by that, or empty one. */
static int open_noted(int directory_fd, const char *path, int flags, mode_t mode) {
  int was_there = synced_log < 0 || syscall(SYS_faccessat, directory_fd, path, F_OK) == 0;
  int cuts = synced_log >= 0 && was_there && (flags & O_TRUNC) && (flags & O_ACCMODE) != O_RDONLY;
  int descriptor = (int)syscall(SYS_openat, directory_fd, path, cuts ? flags & ~O_TRUNC : flags, mode);
  struct stat file;
  if (descriptor < 0) return descriptor;
  if (cuts) {
    note_cut(descriptor, 0);
    if (syscall(SYS_ftruncate, descriptor, 0) != 0 && errno != EINVAL) {
      int error = errno;
      close(descriptor);
      errno = error;
      return -1;
    }
  }
  if (!was_there && is_noted(descriptor) && fstat(descriptor, &file) == 0) {
    char line[48];
    note(line, (size_t)snprintf(line, sizeof line, "c %llu\n", (unsigned long long)file.st_ino));
  }
  return descriptor;
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

#define WRITE_STAND_IN(name, fd, place, length, ...)                          \
  FIND(name);                                                                 \
  int error = write_trouble(fd);                                              \
  if (error != 0) { errno = error; return -1; }                               \
  if (synced_log >= 0) note_write(fd, place, length);                         \
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

ssize_t write(int fd, const void *data, size_t size) { WRITE_STAND_IN(write, fd, -1, size, fd, data, size); }

ssize_t writev(int fd, const struct iovec *parts, int count) {
  WRITE_STAND_IN(writev, fd, -1, total(parts, count), fd, parts, count);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t place) {
  WRITE_STAND_IN(pwrite, fd, place, size, fd, data, size, place);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t place) {
  WRITE_STAND_IN(pwrite64, fd, place, size, fd, data, size, place);
}

ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t place) {
  WRITE_STAND_IN(pwritev, fd, place, total(parts, count), fd, parts, count, place);
}

ssize_t pwritev64(int fd, const struct iovec *parts, int count, off64_t place) {
  WRITE_STAND_IN(pwritev64, fd, place, total(parts, count), fd, parts, count, place);
}

int ftruncate(int fd, off_t size) {
  FIND(ftruncate);
  note_cut(fd, size);
  return real_ftruncate(fd, size);
}

int ftruncate64(int fd, off64_t size) {
  FIND(ftruncate64);
  note_cut(fd, size);
  return real_ftruncate64(fd, size);
}

/* The mode is there only where a file may be made. */
#define OPEN_STAND_IN(directory_fd, path, flags, large)                       \
  mode_t mode = 0;                                                            \
  if (((flags) & O_CREAT) || ((flags) & O_TMPFILE) == O_TMPFILE) {            \
    va_list rest;                                                             \
    va_start(rest, flags);                                                    \
    mode = (mode_t)va_arg(rest, int);                                         \
    va_end(rest);                                                             \
  }                                                                           \
  return open_noted(directory_fd, path, (flags) | (large), mode)

int open(const char *path, int flags, ...) { OPEN_STAND_IN(AT_FDCWD, path, flags, 0); }

int open64(const char *path, int flags, ...) { OPEN_STAND_IN(AT_FDCWD, path, flags, O_LARGEFILE); }

int openat(int directory_fd, const char *path, int flags, ...) { OPEN_STAND_IN(directory_fd, path, flags, 0); }

int openat64(int directory_fd, const char *path, int flags, ...) {
  OPEN_STAND_IN(directory_fd, path, flags, O_LARGEFILE);
}

/* Shifts the wall clock of one process: LD_PRELOAD this, and name a file of 8 bytes in SPLITBRAIN_CLOCK_FILE.
 *
 * The file holds a signed 64-bit number of nanoseconds in the byte order of the machine. It is mapped, so a
 * new value counts from the next reading of the clock on. Aligned 8-byte reads are not torn on the machines
 * that Linux runs on.
 *
 * Only CLOCK_REALTIME moves. CLOCK_MONOTONIC must not: sleeps, timeouts and event loops are measured by it, and
 * a program whose monotonic clock jumps hangs in ways that no skewed machine ever shows.
 *
 * Limits: programs that do not call the C library for the time (static binaries, Go) see the true time; so does
 * the kernel, and with it absolute deadlines on CLOCK_REALTIME and the times of files.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define NS_PER_S 1000000000LL

static const volatile int64_t no_offset_ns = 0;
static const volatile int64_t *offset_ns = &no_offset_ns;
static int (*real_clock_gettime)(clockid_t, struct timespec *);

__attribute__((constructor)) static void begin(void) {
  const char *path = getenv("SPLITBRAIN_CLOCK_FILE");
  real_clock_gettime = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
  if (path == NULL) return;
  int file = open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0) return;
  void *map = mmap(NULL, sizeof(int64_t), PROT_READ, MAP_SHARED, file, 0);
  close(file);
  if (map != MAP_FAILED) offset_ns = map;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
  /* Other libraries' constructors may ask for the time before ours has run. */
  int result = real_clock_gettime ? real_clock_gettime(clock, now) : (int)syscall(SYS_clock_gettime, clock, now);
  if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
    int64_t shifted_ns = now->tv_nsec + *offset_ns % NS_PER_S;
    now->tv_sec += *offset_ns / NS_PER_S;
    if (shifted_ns < 0) { shifted_ns += NS_PER_S; now->tv_sec -= 1; }
    if (shifted_ns >= NS_PER_S) { shifted_ns -= NS_PER_S; now->tv_sec += 1; }
    now->tv_nsec = (long)shifted_ns;
  }
  return result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
  struct timespec exact;
  (void)zone; /* obsolete */
  if (clock_gettime(CLOCK_REALTIME, &exact) != 0) return -1;
  now->tv_sec = exact.tv_sec;
  now->tv_usec = exact.tv_nsec / 1000;
  return 0;
}

time_t time(time_t *out) {
  struct timespec exact;
  if (clock_gettime(CLOCK_REALTIME, &exact) != 0) return (time_t)-1;
  if (out != NULL) *out = exact.tv_sec;
  return exact.tv_sec;
}

int timespec_get(struct timespec *now, int base) {
  return base == TIME_UTC && clock_gettime(CLOCK_REALTIME, now) == 0 ? base : 0;
}

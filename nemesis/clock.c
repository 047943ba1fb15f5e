/* Shifts the wall clock of one process: LD_PRELOAD this, and name a file that holds `struct rule` in
 * SPLITBRAIN_CLOCK_FILE.
 *
 * It is mapped, so a new value counts from the next reading of the clock on. While the version is odd the rule is
 * being written; aligned 8-byte reads are not torn on the machines that Linux runs on.
 *
 * The clock is ahead by offset_ns; by drift_ppb more for each second since since_ns of the true time; and by
 * strobe_ns more in every other strobe_period_ns since then.
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

struct rule {
  int64_t version, offset_ns, since_ns, drift_ppb, strobe_ns, strobe_period_ns;
};

static const struct rule right;
static const volatile struct rule *rule = &right;
static int (*real_clock_gettime)(clockid_t, struct timespec *);

__attribute__((constructor)) static void begin(void) {
  const char *path = getenv("SPLITBRAIN_CLOCK_FILE");
  real_clock_gettime = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
  if (path == NULL) return;
  int file = open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0) return;
  void *map = mmap(NULL, sizeof(struct rule), PROT_READ, MAP_SHARED, file, 0);
  close(file);
  if (map != MAP_FAILED) rule = map;
}

/* How far the clock is ahead at this true time. */
static int64_t ahead_ns(const struct timespec *now) {
  struct rule here;
  int tries = 0; /* whoever writes takes microseconds, unless it was killed in the middle */
  do {
    here.version = rule->version;
    __sync_synchronize();
    here.offset_ns = rule->offset_ns;
    here.since_ns = rule->since_ns;
    here.drift_ppb = rule->drift_ppb;
    here.strobe_ns = rule->strobe_ns;
    here.strobe_period_ns = rule->strobe_period_ns;
    __sync_synchronize();
  } while ((here.version % 2 != 0 || here.version != rule->version) && ++tries < 100000);
  int64_t elapsed_ns = now->tv_sec * NS_PER_S + now->tv_nsec - here.since_ns;
  if (elapsed_ns < 0) elapsed_ns = 0;
  int64_t total_ns = here.offset_ns;
  if (here.drift_ppb != 0) total_ns += (int64_t)((__int128)elapsed_ns * here.drift_ppb / NS_PER_S);
  if (here.strobe_period_ns > 0 && elapsed_ns / here.strobe_period_ns % 2 != 0) total_ns += here.strobe_ns;
  return total_ns;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
  /* Other libraries' constructors may ask for the time before ours has run. */
  int result = real_clock_gettime ? real_clock_gettime(clock, now) : (int)syscall(SYS_clock_gettime, clock, now);
  if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
    int64_t offset_ns = ahead_ns(now);
    int64_t shifted_ns = now->tv_nsec + offset_ns % NS_PER_S;
    now->tv_sec += offset_ns / NS_PER_S;
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

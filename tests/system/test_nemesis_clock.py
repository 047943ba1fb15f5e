"""A real process with a shifted clock: it jumps while the process runs, and timers do not."""

import os
import shutil
import subprocess
import sys
import time

import pytest

from nemesis import clock, shim
from nemesis.target import ClockRule

pytestmark = pytest.mark.system

# Answers each line with its wall clock, exact and coarse (5), and how long waiting in several ways took.
PROCESS = """
import asyncio, sys, threading, time
for line in sys.stdin:
    start = time.monotonic()
    time.sleep(0.02)
    threading.Event().wait(0.02)
    asyncio.run(asyncio.sleep(0.02))
    print(time.time(), time.clock_gettime(5), time.monotonic() - start, flush=True)
"""


@pytest.fixture
def library(tmp_path):
    if not (shutil.which("cc") or shutil.which("gcc")):
        pytest.skip("no C compiler; on Debian: apt-get install gcc libc6-dev")
    return shim.build("clock", tmp_path)


COARSE_S = 0.02  # between two ticks of the coarse clock, and more


def ask(process):
    """What its clocks showed, how long it waited, and between which times of the true clock that was."""
    before_s = time.time()
    process.stdin.write("\n")
    process.stdin.flush()
    wall_s, coarse_s, waited_s = map(float, process.stdout.readline().split())
    return wall_s, coarse_s, waited_s, before_s, time.time()


def test_the_clock_jumps_while_the_process_runs_and_waiting_does_not(library, tmp_path):
    file = tmp_path / "clock"
    clock.write_offset(file, 0)
    with subprocess.Popen(
        [sys.executable, "-c", PROCESS],
        env=os.environ | shim.preload([library]) | clock.environment(file),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        for offset_ms in (0, 100_000, -3_600_000, 0.5, -0.25, 1_999.75, -1_999.75, 0):
            clock.write_offset(file, offset_ms)
            wall_s, coarse_s, waited_s, before_s, after_s = ask(process)
            # Between these, however long the machine stood still; and the offset is found to a tenth of a second.
            assert before_s + 0.059 <= wall_s - offset_ms / 1000 <= after_s
            assert before_s - COARSE_S <= coarse_s - offset_ms / 1000 <= after_s
            assert 0.06 <= waited_s < 20, "the large offsets are a hundred seconds and an hour"
        process.stdin.close()


@pytest.mark.parametrize("offset_ms", [-123_456.789, 999.999_999, -0.000_001])
def test_all_ways_to_ask_agree(library, tmp_path, offset_ms):
    """A C program that compares the shifted clock with the kernel's, before and after, which no library can shift."""
    source = tmp_path / "ask.c"
    source.write_text(r"""
        #define _GNU_SOURCE
        #include <stdio.h>
        #include <sys/syscall.h>
        #include <sys/time.h>
        #include <time.h>
        #include <unistd.h>
        static long long ns(struct timespec t) { return t.tv_sec * 1000000000LL + t.tv_nsec; }
        int main(void) {
          struct timespec before, after, a, b, mono, mono_before, mono_after; struct timeval c; time_t d;
          syscall(SYS_clock_gettime, CLOCK_REALTIME, &before);
          clock_gettime(CLOCK_REALTIME, &a); timespec_get(&b, TIME_UTC); gettimeofday(&c, NULL); time(&d);
          syscall(SYS_clock_gettime, CLOCK_REALTIME, &after);
          syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &mono_before); clock_gettime(CLOCK_MONOTONIC, &mono);
          syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &mono_after);
          if (a.tv_nsec < 0 || a.tv_nsec >= 1000000000L) return 1;
          printf("%lld %lld %lld %lld %lld %lld %lld\n", ns(after) - ns(before), ns(a) - ns(before),
                 ns(b) - ns(before), c.tv_sec * 1000000000LL + c.tv_usec * 1000LL - ns(before),
                 d * 1000000000LL - ns(before), ns(mono) - ns(mono_before), ns(mono_after) - ns(mono));
        }
    """)
    program = tmp_path / "ask"
    subprocess.run(["cc", "-o", program, source], check=True)
    file = tmp_path / "clock"
    clock.write_offset(file, offset_ms)
    said = subprocess.run(
        [program],
        env=os.environ | shim.preload([library]) | clock.environment(file),
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    took, exact, exact_c11, micro, whole, since, until = (int(word) for word in said.split())
    for difference in (exact, exact_c11):
        assert 0 <= difference - offset_ms * 1e6 <= took
    assert -1000 <= micro - offset_ms * 1e6 <= took
    assert -1e9 <= whole - offset_ms * 1e6 <= took
    assert since >= 0 <= until, "the monotonic clock is not shifted"


def test_without_a_file_the_clock_is_true(library):
    before_s = time.time()
    said = subprocess.run(
        [sys.executable, "-c", "import time; print(time.time())"],
        env=os.environ | {"LD_PRELOAD": str(library)},
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert before_s <= float(said) <= time.time()


def test_the_library_is_built_once(library, tmp_path):
    before = library.stat().st_mtime_ns
    assert shim.build("clock", tmp_path) == library
    assert library.stat().st_mtime_ns == before


def test_without_a_compiler_the_remedy_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(shim.ShimError, match=r"the fault 'clock' needs a C compiler.*apt-get install gcc"):
        shim.build("clock", tmp_path)


def test_offsets_are_written_in_place(tmp_path):
    file = tmp_path / "clock"
    assert clock.read_rule(file) == ClockRule()
    clock.write_offset(file, 1)
    inode = file.stat().st_ino
    clock.write_offset(file, -2.5)
    assert file.stat().st_ino == inode
    assert file.stat().st_size == 48
    assert clock.read_rule(file) == ClockRule(offset_ms=-2.5)


def test_a_clock_drifts_and_strobes_while_the_process_runs(library, tmp_path):
    file = tmp_path / "clock"
    clock.write_offset(file, 0)
    with subprocess.Popen(
        [sys.executable, "-c", PROCESS],
        env=os.environ | shim.preload([library]) | clock.environment(file),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        since_s = time.time()
        clock.write_rule(file, ClockRule(offset_ms=-5_000, drift_ppm=500_000))
        written_s = time.time()
        time.sleep(0.4)
        wall_s, _, waited_s, before_s, after_s = ask(process)
        assert before_s + 0.5 * (before_s - written_s) <= wall_s + 5 <= after_s + 0.5 * (after_s - since_s)
        assert waited_s < 4, "time-outs do not drift, nor do they wait for what a clock has lost"
        clock.write_rule(file, ClockRule(strobe_ms=7_000, strobe_period_ms=40))
        seen, until_s = set(), time.monotonic() + 60
        while seen != {0, 7} and time.monotonic() < until_s:  # in which half of a period it looks is chance
            wall_s, _, _, before_s, after_s = ask(process)
            (ahead_s,) = (ahead_s for ahead_s in (0, 7) if before_s <= wall_s - ahead_s <= after_s)
            seen.add(ahead_s)
        assert seen == {0, 7}
        process.stdin.close()

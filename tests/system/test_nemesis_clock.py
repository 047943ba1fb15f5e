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


def ask(process):
    process.stdin.write("\n")
    process.stdin.flush()
    wall_s, coarse_s, waited_s = map(float, process.stdout.readline().split())
    return wall_s - time.time(), coarse_s - time.time(), waited_s


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
            wall_s, coarse_s, waited_s = ask(process)
            assert wall_s == pytest.approx(offset_ms / 1000, abs=0.5)
            assert coarse_s == pytest.approx(offset_ms / 1000, abs=0.5)
            assert 0.06 <= waited_s < 1.5
        process.stdin.close()


@pytest.mark.parametrize("offset_ms", [-123_456.789, 999.999_999, -0.000_001])
def test_all_ways_to_ask_agree(library, tmp_path, offset_ms):
    """A C program that compares the shifted clock with the kernel's, which no library can shift."""
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
          struct timespec kernel, a, b, mono, mono_kernel; struct timeval c; time_t d;
          syscall(SYS_clock_gettime, CLOCK_REALTIME, &kernel);
          clock_gettime(CLOCK_REALTIME, &a); timespec_get(&b, TIME_UTC); gettimeofday(&c, NULL); time(&d);
          syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &mono_kernel); clock_gettime(CLOCK_MONOTONIC, &mono);
          if (a.tv_nsec < 0 || a.tv_nsec >= 1000000000L) return 1;
          printf("%lld %lld %lld %lld %lld\n", ns(a) - ns(kernel), ns(b) - ns(kernel),
                 c.tv_sec * 1000000000LL + c.tv_usec * 1000LL - ns(kernel),
                 d * 1000000000LL - ns(kernel), ns(mono) - ns(mono_kernel));
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
    exact, exact_c11, micro, whole, monotonic = (int(word) for word in said.split())
    tolerance_ns = 50_000_000  # what a busy machine puts between two readings
    for difference in (exact, exact_c11, micro + 1000):
        assert 0 <= difference - offset_ms * 1e6 < tolerance_ns
    assert -1e9 <= whole - offset_ms * 1e6 < tolerance_ns
    assert 0 <= monotonic < tolerance_ns


def test_without_a_file_the_clock_is_true(library):
    said = subprocess.run(
        [sys.executable, "-c", "import time; print(time.time())"],
        env=os.environ | {"LD_PRELOAD": str(library)},
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert float(said) == pytest.approx(time.time(), abs=2)


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
        clock.write_rule(file, ClockRule(offset_ms=-5_000, drift_ppm=500_000))
        since = time.monotonic()
        time.sleep(0.4)
        ahead_s, _, waited_s = ask(process)
        assert -5 + 0.5 * 0.4 <= ahead_s + 0.05 <= -5 + 0.5 * (time.monotonic() - since) + 0.1
        assert waited_s < 1.5, "time-outs do not drift"
        clock.write_rule(file, ClockRule(strobe_ms=7_000, strobe_period_ms=40))
        seen = {round(ask(process)[0] / 7) for _ in range(12)}
        assert seen == {0, 1}
        process.stdin.close()

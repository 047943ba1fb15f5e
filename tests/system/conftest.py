"""What tests on real clusters share."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

RUNS_MAX = 3
UML_MODULES = Path("/usr/lib/uml/modules")


def why_no_guest():
    """Why no guest with a kernel that has netem can be had; "" where it can."""
    if "SPLITBRAIN_IN_GUEST" in os.environ:
        return "this is the guest"
    if shutil.which("linux.uml") is None or not UML_MODULES.is_dir():
        return "no user-mode-linux; on Debian: apt-get install user-mode-linux"
    if shutil.which("modprobe", path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None:
        return "no modprobe, which the guest needs; on Debian: apt-get install kmod"
    return ""


@pytest.fixture(scope="session")
def no_guest():
    """See `why_no_guest`."""
    return why_no_guest()


def has_netem():
    """Whether this kernel has netem, or cannot be asked."""
    apart = ["unshare", *(["-r"] if os.geteuid() else []), "-n"]
    try:
        said = subprocess.run(
            [*apart, "tc", "qdisc", "add", "dev", "lo", "root", "netem", "delay", "1ms"],
            capture_output=True, text=True, check=False, timeout=30,
        )  # fmt: skip
    except OSError:
        return True
    return "qdisc kind is unknown" not in said.stderr


def pytest_collection_modifyitems(config, items):
    """Tests of netem that run in the guest (test_nemesis_uml.py) are left out where this kernel has none."""
    netem = [item for item in items if "[tc and netem" in item.name]
    if not netem or why_no_guest() or has_netem():
        return
    config.hook.pytest_deselected(items=netem)
    items[:] = [item for item in items if item not in netem]


@pytest.fixture
def until_all_was_seen():
    """Runs until all that is asked of one has happened: given `once`, and what one run has shown by `seen`.

    A busy machine comes late to faults, and a fault whose time is over is left out. So what happened may be seen in
    the second run or in the third; what must hold in each is for `once` to check.
    """

    def run(once, seen):
        for _ in range(RUNS_MAX):
            outcome = once()
            found = seen(outcome)
            if all(found.values()):
                return outcome
            print("not yet:", found)
        pytest.fail(f"not in {RUNS_MAX} runs: {found}")

    return run


@pytest.fixture
def run_with_faults_from_inside(until_all_was_seen):
    """A run, given its command for options, with faults on members, disks, at crash points and in reaction to events.

    Checks that each kind did what it is for; returns the process that ended.
    """

    def once(command, seed):
        kinds = ("membership", "crash", "isolate-new-leader", "bit-flip")
        options = [option for kind in kinds for option in ("--fault", kind)]
        options += ["--time-limit", "25", "--rate", "40", "--seed", seed, "--fault-interval", "3", "--json"]
        done = subprocess.run(command(*options), capture_output=True, text=True, check=False, timeout=280)
        assert done.returncode in (0, 2), "a damaged disk may leave nobody who can go on; " + done.stderr
        summary = json.loads(done.stdout.splitlines()[-1])
        assert summary["valid"] in (True, "unknown"), done.stdout
        events = json.loads((Path(summary["run_dir"]) / "results.json").read_text())["fault_events"]
        assert not [event for event in events if event["proof"] == "refuted"]
        return done, events

    def seen(outcome):
        _, events = outcome
        lines = [line for event in events if event["proof"] == "proved" for line in event["evidence"]]
        return {
            "bits were flipped": any("of byte" in line for line in lines),
            "a node died at its crash point": any("got to its crash point" in line for line in lines),
            "logs are followed while they are written": any(event.get("set_off") for event in events),
            "members changed": any("joint" in event["caused"] for event in events),
        }

    return lambda command, seed: until_all_was_seen(lambda: once(command, seed), seen)[0]

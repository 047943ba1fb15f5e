"""What tests on real clusters share."""

import json
import subprocess
from pathlib import Path

import pytest


@pytest.fixture
def run_with_faults_from_inside():
    """A run, given its command for options, with faults on members, disks, at crash points and in reaction to events.

    Checks that each kind did what it is for; returns the process that ended.
    """

    def run(command, seed):
        kinds = ("membership", "crash", "isolate-new-leader", "bit-flip")
        options = [option for kind in kinds for option in ("--fault", kind)]
        options += ["--time-limit", "25", "--rate", "40", "--seed", seed, "--fault-interval", "3", "--json"]
        done = subprocess.run(command(*options), capture_output=True, text=True, check=False, timeout=200)
        assert done.returncode in (0, 2), "a damaged disk may leave nobody who can go on; " + done.stderr
        summary = json.loads(done.stdout.splitlines()[-1])
        assert summary["valid"] in (True, "unknown"), done.stdout
        events = json.loads((Path(summary["run_dir"]) / "results.json").read_text())["fault_events"]
        proved = [event for event in events if event["proof"] == "proved"]
        assert not [event for event in events if event["proof"] == "refuted"]
        assert any("of byte" in line for event in proved for line in event["evidence"]), "bits were flipped"
        assert any("got to its crash point" in line for event in proved for line in event["evidence"])
        assert any(event.get("set_off") for event in events), "logs are followed while they are written"
        assert any("joint" in event["caused"] for event in events)
        return done

    return run

"""netem itself: the network tests again, inside a user-mode-linux guest whose kernel has it.

The guest is an ordinary process. Its root is this machine's file system, read-only, so it runs the code as it
stands here; it has its own kernel, clock and network.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(1200)]

REPOSITORY = Path(__file__).parents[2]
MODULES = Path("/usr/lib/uml/modules")


@pytest.fixture(scope="module")
def preloaded(tmp_path_factory):
    """The environment in which the guest runs on processors that are newer than it (tests/uml/xstate.c)."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        return dict(os.environ)
    library = tmp_path_factory.mktemp("uml") / "xstate.so"
    source = REPOSITORY / "tests" / "uml" / "xstate.c"
    subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", library, source], check=True)
    return os.environ | {"LD_PRELOAD": str(library)}


@pytest.fixture(scope="module")
def guest(preloaded, no_guest):
    """How to start the guest: the path of its kernel, and the environment."""
    if no_guest:
        pytest.skip(no_guest)
    return shutil.which("linux.uml"), preloaded


def run_in_guest(guest, directory, *arguments, timeout_s=1000):
    """Runs pytest in the guest with these arguments; returns what the console showed."""
    kernel, environment = guest
    assert not any(" " in argument or "," in argument for argument in arguments), "init.sh splits at commas"
    done = subprocess.run(
        [
            kernel,
            "mem=768M",
            *("root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro", "quiet"),
            *("con=null", "con0=fd:0,fd:1", f"uml_dir={directory}", f"init={REPOSITORY}/tests/uml/init.sh"),
            f"SB_REPOSITORY={REPOSITORY}",
            f"SB_PYTHON={sys.executable}",
            f"SB_MODULES={MODULES}",
            f"SB_TESTS={','.join(arguments)}",
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=timeout_s,
        check=False,
        env=environment,
    )
    return done.stdout + done.stderr


def test_netem_does_what_the_rules_say(guest, tmp_path):
    console = run_in_guest(
        guest, tmp_path, "tests/system/test_nemesis_network.py", "-k", "netem", "--color=no"
    )
    print(console)
    assert "guest pytest exit code 0" in console, console[-3000:]
    passed = re.search(r"(\d+) passed", console)
    assert passed
    assert int(passed[1]) >= 12, "the guest must have netem, or it proves nothing"

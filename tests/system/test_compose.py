"""The transcript in README.md: five nodes behind the load balancer, and the leader killed."""

import os
import re
import shutil
import socket
import subprocess
import uuid
from contextlib import closing
from pathlib import Path

import pytest

from harness.clusters import docker_box, images
from harness.errors import SetupError

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
MARK = "<!-- tests/system/test_compose.py performs this and compares -->"
PORTS = range(8000, 8006)


def transcript():
    """Commands, each with what it is to print."""
    block = (ROOT / "README.md").read_text().partition(MARK)[2].split("```")[1]
    steps = []
    for line in block.splitlines()[1:]:
        if line.startswith("$ "):
            steps.append((line[2:], []))
        else:
            steps[-1][1].append(line)
    return steps


@pytest.fixture
def environment():
    if shutil.which("docker-compose") is None or shutil.which("curl") is None:
        pytest.skip("no docker-compose or no curl; on Debian: apt-get install docker-compose curl")
    try:
        with closing(docker_box.engine()) as client:
            missing = [images.problem(client, name) for name in (None, images.IMAGE, images.LB_IMAGE)]
    except SetupError as error:
        pytest.skip(str(error))
    if any(missing):
        pytest.skip("; ".join(filter(None, missing)))
    for port in PORTS:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                pytest.skip(f"port {port} of this machine is in use")
    named = os.environ | {"COMPOSE_PROJECT_NAME": f"splitbrain{uuid.uuid4().hex[:8]}"}
    yield named
    subprocess.run(
        ["docker-compose", "-f", "docker/compose.yaml", "down", "-v", "-t", "0"],
        cwd=ROOT, env=named, check=False, capture_output=True,
    )  # fmt: skip


def performed(steps, environment):
    """What was printed otherwise than it stands there, with its command; and who led."""
    differences, leaders = [], []
    with subprocess.Popen(
        ["bash"], cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as shell:
        for command, expected in steps:
            if command.startswith("splitbrain images build"):
                continue  # they are there: the fixture has looked
            shell.stdin.write(f"{command} 2>/dev/null; echo; echo END\n")
            shell.stdin.flush()
            said = []
            while not (line := shell.stdout.readline()).startswith("END"):
                assert line, f"bash ended at {command}"
                said += [line.strip()] if line.strip() else []
            leaders += [line for line in said if re.fullmatch("n[1-5]", line)]
            unnamed = [[re.sub(r"^n[1-5]$", "nX", line) for line in lines] for lines in (said, expected)]
            if expected and unnamed[0] != unnamed[1]:
                differences.append((command, said))
    return differences, leaders


def test_the_transcript_of_the_readme(environment, until_all_was_seen):
    """On a busy machine nobody may lead just when it is asked; then it is performed once more."""
    steps = transcript()
    assert [command.split()[0] for command, _ in steps].count("curl") == 3

    def seen(outcome):
        differences, leaders = outcome
        print(differences)
        return {
            "as it stands there": not differences,
            "another one leads after the first was killed": len(set(leaders)) == 2,
        }

    until_all_was_seen(lambda: performed(steps, environment), seen)

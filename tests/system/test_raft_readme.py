"""The transcript of the README, run as it stands there: three servers, the leader killed, the value still there."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from raft.testing.processes import free_ports

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed: apt-get install curl"),
]


# What a reader waits for with his second: that the others have elected somebody.
UNTIL_TWO_ANSWER = """for i in $(seq 200); do
  count=0
  for n in 1 2 3; do curl -sfL -m 5 -o /dev/null http://127.0.0.1:800$n/v1/keys/x && count=$((count + 1)); done
  [ $count = 2 ] && break
  sleep 0.2
done"""


def transcript():
    """The commands and the answers of the README's block about the store."""
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    section = readme.partition("## The store by itself")[2]
    block = re.search(r"```console\n(.*?)```", section, re.DOTALL).group(1)
    commands, answers = [], []
    for line in block.splitlines():
        if line.startswith(("$ ", "> ")):
            commands.append(line[2:])
        else:
            answers.append(line)
    return "\n".join(commands), answers


def test_the_transcript(tmp_path):
    commands, answers = transcript()
    ports = iter(free_ports(6))
    for said in ("7001", "7002", "7003", "8001", "8002", "8003"):
        commands = commands.replace(said, new := str(next(ports)))
        if said.startswith("8"):
            commands = f"port{said[3]}={new}\n{commands}"
    commands = commands.replace("sleep 1", UNTIL_TWO_ANSWER)  # a busy machine
    commands = commands.replace("800$n", "$(eval echo \\$port$n)").replace(
        "python -m", f"{sys.executable} -m"
    )
    try:
        done = subprocess.run(
            ["bash", "-c", commands], cwd=tmp_path, capture_output=True, text=True, timeout=200, check=False
        )
    finally:
        for file in tmp_path.glob("n?.pid"):  # whatever came of it
            subprocess.run(["kill", "-9", file.read_text().strip()], check=False, capture_output=True)
    said = [line for line in re.sub(r"}(?={)", "}\n", done.stdout).splitlines() if line]
    assert said == answers, done.stderr

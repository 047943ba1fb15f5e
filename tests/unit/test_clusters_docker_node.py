"""A node that is killed while its keeper is about to start it."""

import os
import subprocess
import time

from harness.clusters import docker_node


def test_a_kill_that_came_before_the_process_is_repeated(monkeypatch):
    class Box:
        is_here = True

    sent = []
    monkeypatch.setattr(docker_node, "send", lambda *_: sent.append(1))
    monkeypatch.setattr(docker_node, "ended", lambda *_: "signal SIGKILL" if len(sent) > 2 else None)
    docker_node.kill(Box(), "n1")
    assert len(sent) == 3


def test_a_kill_that_is_repeated_does_not_keep_the_keeper_from_telling_the_end(tmp_path):
    """It once killed the `mv` by which the keeper told it, again and again."""
    script = docker_node.keeper(["sleep", "60"])
    script[2] = script[2].replace(str(docker_node.CONTROL), str(tmp_path))
    slow_mv = tmp_path / "bin" / "mv"
    slow_mv.parent.mkdir()
    slow_mv.write_text("#!/bin/sh\nexec sleep 60\n")
    slow_mv.chmod(0o755)
    keeper = subprocess.Popen(script, env=os.environ | {"PATH": f"{slow_mv.parent}:{os.environ['PATH']}"})
    try:
        deadline_s = time.monotonic() + 40
        told = tmp_path / "exit"
        while not (told.exists() and told.read_text()) and time.monotonic() < deadline_s:
            subprocess.run(["pkill", "-KILL", "-P", str(keeper.pid)], check=False)
        assert told.read_text() == "137\n"
    finally:
        keeper.kill()
        keeper.wait()

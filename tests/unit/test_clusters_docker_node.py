"""A node that is killed while its keeper is about to start it."""

from harness.clusters import docker_node


def test_a_kill_that_came_before_the_process_is_repeated(monkeypatch):
    class Box:
        is_here = True

    sent = []
    monkeypatch.setattr(docker_node, "send", lambda *_: sent.append(1))
    monkeypatch.setattr(docker_node, "ended", lambda *_: "signal SIGKILL" if len(sent) > 2 else None)
    docker_node.kill(Box(), "n1")
    assert len(sent) == 3

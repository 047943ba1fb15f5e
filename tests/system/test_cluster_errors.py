"""What real clusters say when they cannot be had: one sentence, exit code 255, and nothing is left."""

import os
import re
import shutil
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from harness import config, plan
from harness.clusters import docker, docker_box, images, local
from harness.errors import SetupError
from harness.systems.raft_service import RaftService

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(400)]

RUN = [sys.executable, "-m", "harness.cli", "run", "--nodes", "3", "--time-limit", "30", "--rate", "100"]


class Misspelt(RaftService):
    """A service whose nodes end at once, with a word about why."""

    def argv(self, python, node, addresses, data, bug):
        return [*super().argv(python, node, addresses, data, bug), "--no-such-option"]


def labelled():
    """Containers and networks of ours."""
    with closing(docker_box.engine()) as client:
        of_ours = {"label": f"{docker_box.OWNER_LABEL}={docker_box.netns.identity(os.getpid())}"}
        return client.containers.list(all=True, filters=of_ours) + client.networks.list(filters=of_ours)


def directories():
    return set(Path("/tmp").glob(f"sb-*-{os.getpid()}-*"))


@pytest.fixture(params=["local", "docker"])
def kind(request):
    try:
        if request.param == "local":
            local.probe()
            return local.LocalCluster
        docker.probe()
    except SetupError as error:
        pytest.skip(str(error))
    return docker.DockerCluster


def test_a_node_that_ends_at_its_start_is_named_with_its_last_words(kind, tmp_path):
    planned = plan.draw(
        config.load(None, {"cluster": kind.kind, "nodes": 3, "faults": [], "time_limit_s": 5.0}), 1
    )
    cluster = kind(planned, Misspelt(), tmp_path)
    with pytest.raises(SetupError) as caught:
        cluster.run(cluster.open)
    said = str(caught.value)
    assert re.match(rf"cluster '{kind.kind}': n\d ended with exit code 254, its last words: raft: ", said)
    assert "--no-such-option" in said
    assert len(said.splitlines()) == 1
    assert directories() == set()
    if kind.kind == "docker":
        assert labelled() == []


def one_sentence(done, *words):
    assert done.returncode == 255, done.stderr
    line = done.stderr.strip().splitlines()[-1]
    assert line.startswith("splitbrain: ")
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in line


def test_docker_is_not_running(tmp_path):
    pytest.importorskip("docker")
    nowhere = os.environ | {"DOCKER_HOST": f"unix://{tmp_path}/none.sock"}
    argv = [*RUN, "--cluster", "docker", "--store", str(tmp_path / "store")]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=nowhere)
    one_sentence(done, "no Docker engine answers", "start one")
    assert not (tmp_path / "store").exists()


def test_an_image_cannot_be_built(tmp_path):
    try:
        docker_box.engine().close()
    except SetupError as error:
        pytest.skip(str(error))
    done = subprocess.run(
        [sys.executable, "-m", "harness.cli", "images", "build", "--base", "splitbrain-no-such-base"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    one_sentence(done, f"image {images.node_image()}: ", "docker/make-base")


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="mounting needs root")
def test_the_disk_is_full(tmp_path):
    try:
        local.probe()
    except SetupError as error:
        pytest.skip(str(error))
    full = tmp_path / "full"
    full.mkdir()
    # The plan takes half of it; a busy machine has time to fill the rest.
    options = ["--time-limit", "60", "--cluster", "local", "--fault", "none", "--store", f"{full}/store"]
    run = " ".join([*RUN, *options])
    script = (
        f"mount -t tmpfs -o size=920k none {full} && {run}; code=$?; "
        f"cat {full}/store/latest/history.jsonl | wc -l; exit $code"
    )
    done = subprocess.run(["unshare", "-m", "sh", "-c", script], capture_output=True, text=True, check=False)
    one_sentence(done, "No space left on device; what was recorded before is kept")
    assert int(done.stdout.split()[-1]) > 100, "what was recorded is there"
    assert directories() == set()

"""What the docker cluster decides without an engine, or with a feigned one."""

import gc
import io
import os
import re
import signal
import time
import tomllib
import types
from importlib import metadata
from pathlib import Path

import pytest

from harness import config, plan
from harness.clusters import balancer, bundle, docker, docker_box, images
from harness.errors import ConfigError, SetupError
from harness.systems.raft_service import RaftService
from nemesis.backend import PROBES, Abilities


def planned(*faults, **options):
    asked = {"cluster": "docker", "faults": list(faults), "time_limit_s": 60.0} | options
    return plan.draw(config.load(None, asked), 1)


def with_image(labels):
    image = types.SimpleNamespace(labels=labels)
    return types.SimpleNamespace(images=types.SimpleNamespace(get=lambda _: image))


def test_without_the_sdk_the_remedy_is_named(monkeypatch):
    monkeypatch.setattr(docker_box.importlib, "import_module", lambda name: exec("import no_such_module"))
    with pytest.raises(SetupError, match=r"the Docker SDK is missing; pip install 'splitbrain\[docker\]'"):
        docker_box.engine()


def test_without_permission_the_remedy_is_named(monkeypatch):
    def refuse(**_options):
        raise OSError("('Connection aborted.', PermissionError(13, 'Permission denied'))")

    monkeypatch.setattr(
        docker_box.importlib, "import_module", lambda _: types.SimpleNamespace(from_env=refuse)
    )
    with pytest.raises(
        SetupError, match="no permission to use the Docker engine; run as root or as a member"
    ):
        docker_box.engine()


def test_a_container_that_is_tried_is_removed_after_the_engine_has_made_it(monkeypatch):
    """The engine goes on making it when we are told to stop: who looks for it before then finds nothing to remove."""
    done = []

    class Slow:
        def __init__(self, _client):
            pass

        def create(self, *_args):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.2)
            done.append("made")

        def remove(self):
            done.append("removed")

    monkeypatch.setattr(docker, "Box", Slow)
    monkeypatch.setattr(docker, "engine", io.BytesIO)
    monkeypatch.setattr(docker.images, "problem", lambda _client: None)
    monkeypatch.setattr(docker.images, "node_image", lambda: "splitbrain-node")
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    docker.probe.cache_clear()
    try:
        with pytest.raises(KeyboardInterrupt):
            docker.probe()
    finally:
        signal.signal(signal.SIGINT, before)
        docker.probe.cache_clear()
    assert done == ["made", "removed"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_without_an_engine_the_reason_is_told(monkeypatch, tmp_path):
    pytest.importorskip("docker")
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    with pytest.raises(SetupError) as caught:
        docker_box.engine()
    said = str(caught.value)
    del caught  # it keeps what the SDK left open
    assert said == (
        f"cluster 'docker': no Docker engine answers at unix://{tmp_path}/none.sock (No such file or directory); start "
        "one, or name it in DOCKER_HOST"
    )
    gc.collect()  # the SDK leaves the socket on which nobody answered


def test_the_image_of_a_node_is_named_by_its_code():
    assert re.fullmatch("splitbrain-node:[0-9a-f]{12}", images.node_image())
    assert bundle.digest() == bundle.digest()
    assert images.problem(with_image({})) is None


def test_a_missing_image_is_named(monkeypatch):
    monkeypatch.setattr(docker, "engine", lambda: types.SimpleNamespace(close=lambda: None))
    docker.probe.cache_clear()
    with pytest.raises(SetupError, match=r"no image splitbrain-node:.*make it with: splitbrain images build"):
        docker.probe()


@pytest.fixture
def able(monkeypatch):
    """Containers in which everything works, but for the libraries of the image."""
    monkeypatch.setattr(docker, "engine", lambda: types.SimpleNamespace(close=lambda: None))
    monkeypatch.setattr(docker, "probe", lambda: Abilities(dict.fromkeys(PROBES)))
    monkeypatch.setattr(docker, "libraries", lambda: ("clock",))
    built = []
    monkeypatch.setattr(images, "problem", lambda _, image=None: "no image")
    monkeypatch.setattr(images, "find_base", lambda *_: "base")
    monkeypatch.setattr(images, "build", lambda _, image, base: built.append((image, base)))
    return built


def test_faults_that_containers_cannot_do_are_refused(able):
    docker.check(planned("partition", "latency", "kill", "pause", "clock"))
    with pytest.raises(
        ConfigError, match=r"fault 'disk' needs 'disk.*cannot do \(no C compiler when the image"
    ):
        docker.check(planned("disk"))


def test_missing_images_are_built_before_the_run_and_it_is_said(able, capsys):
    docker.check(planned("kill"))
    assert able == [(images.node_image(), "base")]
    assert capsys.readouterr().err == "cluster 'docker': no image; building it\n"
    docker.check(planned("kill", via="lb"))
    assert able[1:] == [(images.node_image(), "base"), (images.LB_IMAGE, "base")]


class Engine:
    """An engine with these images, whose registry cannot be reached."""

    def __init__(self, *names):
        self.images = self
        self.names = names

    def list(self, name):
        return [each for each in self.names if each == name]

    def pull(self, *_):
        raise OSError("no route to the registry")


def test_the_base_is_the_one_asked_for_or_there_or_made(monkeypatch):
    said, made = [], []
    monkeypatch.setattr(images, "_make_base", lambda: made.append(1))
    assert images.find_base(Engine(), "mine", said.append) == "mine"
    assert images.find_base(Engine(images.BASE), None, said.append) == images.BASE
    assert (said, made) == ([], [])
    assert images.find_base(Engine(), None, said.append) == images.BASE
    assert made == [1]
    assert "no route to the registry" in said[0]
    assert "making splitbrain-base of Debian packages instead" in said[0]


def test_the_balancer_of_the_compose_file_is_the_one_of_a_run():
    names = {f"n{number}": f"n{number}" for number in range(1, 6)}
    made = (images.recipes() / "haproxy.cfg").read_text()
    assert made.partition("\n")[2] == balancer.config(RaftService(), names, by_name=True)


def test_owners_on_other_machines_are_not_ours(monkeypatch):
    here = docker_box.this_host()
    assert here == docker_box.this_host()
    assert "pid:[" in here or not Path("/proc/self/ns/pid").is_symlink()


def test_an_installed_splitbrain_finds_its_recipes_where_pip_put_them(monkeypatch, tmp_path):
    """It is not beside the packages there; the wheel had none, and images could be built from a checkout only."""
    listed = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    assert listed["tool"]["setuptools"]["data-files"] == {"share/splitbrain/docker": ["docker/*"]}
    monkeypatch.setattr(images.harness, "__file__", str(tmp_path / "site-packages/harness/__init__.py"))
    monkeypatch.setattr(images.metadata, "files", lambda _: None)
    with pytest.raises(SetupError, match="Dockerfile not found, and pip installed none; build images from a"):
        images.recipes()
    place = tmp_path / "share/splitbrain/docker"
    place.mkdir(parents=True)
    (place / "Dockerfile").touch()
    file = metadata.PackagePath("../share/splitbrain/docker/Dockerfile")
    file.dist = types.SimpleNamespace(locate_file=(tmp_path / "site-packages").joinpath)
    (tmp_path / "site-packages").mkdir()
    monkeypatch.setattr(images.metadata, "files", lambda _: [file])
    assert images.recipes() == place
    beside = tmp_path / "site-packages/share/splitbrain/docker"
    beside.mkdir(parents=True)
    (beside / "Dockerfile").touch()
    assert images.recipes() == beside, "as with pip install --target"

"""What the docker cluster decides without an engine, or with a feigned one."""

import gc
import types

import pytest

from harness import config, plan
from harness.clusters import docker
from harness.errors import ConfigError, SetupError
from nemesis.backend import PROBES, Abilities


def planned(*faults):
    return plan.draw(
        config.load(None, {"cluster": "docker", "faults": list(faults), "time_limit_s": 60.0}), 1
    )


def with_image(labels):
    image = types.SimpleNamespace(labels=labels)
    return types.SimpleNamespace(images=types.SimpleNamespace(get=lambda _: image))


def test_without_the_sdk_the_remedy_is_named(monkeypatch):
    monkeypatch.setattr(docker.importlib, "import_module", lambda name: exec("import no_such_module"))
    with pytest.raises(SetupError, match=r"the Docker SDK is missing; pip install 'splitbrain\[docker\]'"):
        docker.engine()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_without_an_engine_the_reason_is_told(monkeypatch, tmp_path):
    pytest.importorskip("docker")
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    with pytest.raises(SetupError, match="cluster 'docker': no Docker engine answers"):
        docker.engine()
    gc.collect()  # the SDK leaves the socket on which nobody answered


def test_an_image_of_other_code_is_refused():
    docker._check_image(with_image({docker.SOURCES_LABEL: docker.sources_digest()}))
    with pytest.raises(SetupError, match="built from other code than this; make it again with: splitbrain"):
        docker._check_image(with_image({docker.SOURCES_LABEL: "old"}))


def test_a_missing_image_is_named():
    with pytest.raises(SetupError, match=r"no image splitbrain-node .*splitbrain images build"):
        docker._check_image(types.SimpleNamespace())


def test_faults_that_containers_cannot_do_are_refused(monkeypatch):
    monkeypatch.setattr(docker, "probe", lambda: Abilities(dict.fromkeys(PROBES)))
    docker.check(planned("partition", "latency", "kill", "pause"))
    with pytest.raises(ConfigError, match="fault 'disk' needs 'disk', which this cluster cannot do"):
        docker.check(planned("disk"))

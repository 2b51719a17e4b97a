"""The smoke pipeline as compiled for Kubeflow Pipelines, by KFP's own local runner: each task in a container of podman's, each
parameter handed on by KFP. The keys are those of every other engine; a second run starts the plan alone.
"""

import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import kfp.local
import pytest
from docker.types import Mount, Ulimit

from pipelines.engines.kubeflow.template import SAID, SETTINGS_FOLDER
from pipelines.plan import refresh, resolve
from tests.containers.podman import PODMAN, USER, give, image
from tests.pipelines.engines.kubeflow.local import flow_for, local_runner, outputs, stages_in_place, write_settings
from wfm.artifacts import Store
from wfm.cluster.settings import ClusterSettings, Image

ROLES: tuple[Image, ...] = ("curation", "training", "control")
WRITABLE = ("/tmp", "/cache", "/home/wfm")
"""Where the template has folders of its own."""
_LINGER = '"$@"; code=$?; sleep 3; exit $code'
"""KFP's runner lets each container be removed at its end and asks for it afterwards: one that is gone would count as a success,
or, with podman's API, as a fault of the server."""


@pytest.fixture
def socket(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Podman behind Docker's API."""
    found = tmp_path_factory.mktemp("podman") / "socket"
    service = subprocess.Popen([*PODMAN, "system", "service", "--time", "0", f"unix://{found}"])
    try:
        deadline = time.monotonic() + 60
        while not found.exists():
            assert service.poll() is None, "podman's service ended"
            assert time.monotonic() < deadline, "podman's service made no socket"
            time.sleep(0.1)
        monkeypatch.setenv("DOCKER_HOST", f"unix://{found}")
        yield found
    finally:
        service.terminate()
        service.wait(30)


def runner(*folders: Path, settings: Path) -> Any:
    """Containers as the template's pods are, with folders of this machine at the same place inside."""
    mounts = [Mount(str(folder), str(folder), type="bind") for folder in folders]
    mounts.append(Mount(SETTINGS_FOLDER, str(settings), type="bind", read_only=True))
    return kfp.local.DockerRunner(
        mounts=mounts, user=str(USER), network_mode="none", read_only=True, cap_drop=["ALL"],
        security_opt=["no-new-privileges"], tmpfs=dict.fromkeys(WRITABLE, "size=512m,mode=1777"), shm_size="64m",
        ulimits=[Ulimit(name="nofile", soft=1024, hard=1024), Ulimit(name="nproc", soft=1000, hard=1000)],
        entrypoint=["tini", "--", "sh", "-c", _LINGER, "-"],  # a pod's command takes the place of the image's own
    )  # fmt: skip


def test_kfps_docker_runner_makes_the_keys_of_every_engine(socket: Path, tmp_path: Path) -> None:
    settings = ClusterSettings.parse({"images": {role: image(role) for role in ROLES}})
    folder = tmp_path / "cluster"
    folder.mkdir()
    write_settings(settings, folder / "cluster.json")
    folder.chmod(0o755)
    store = Store.open(tmp_path / "store")
    plan = resolve("world_model", profile="smoke", store=store)

    def environment(role: Image) -> Mapping[str, str]:
        return {"WFM_IMAGE": image(role), "OMP_NUM_THREADS": "1"}

    flow = flow_for("world_model", "smoke", store)
    said = Path(SAID)
    documents = stages_in_place(flow, settings, said, environment, lambda role: f"localhost/wfm-{role}:latest")
    found = []
    for name in ("first", "second"):
        root = tmp_path / name
        give(root, tmp_path / "store")
        began = time.monotonic()
        with local_runner(runner(tmp_path / "store", settings=folder), root) as run:
            run(documents, run_id=name)
        found.append(outputs(root))
        print(f"{name} run by KFP's DockerRunner: {len(found[-1])} containers in {time.monotonic() - began:.0f} s")
    told = found[0].pop("plan")
    made = {node.name: found[0][f"launch-{node.name.replace('_', '-')}"]["key"] for node in plan.nodes}
    assert made == {node.name: node.key for node in plan.nodes}
    assert all(told[f"key_{of}"] == made[of] for node in plan.nodes for of in node.inputs.values())
    assert set(found[1]) == {"plan"}, "a run that is made already is one container"
    refresh(plan, store)
    assert not plan.missing
    assert all(store.verify(key).ok for key in made.values())

"""A scene of the kill matrix whose attempts are containers: each a fresh one with an empty cache, its ranks one each."""

import itertools
import json
from pathlib import Path
from typing import Any, ClassVar

from tests.containers.podman import Bridge, Container, give
from tests.faults.stage_runs import LEASE_SECONDS, Disk, Job
from wfm.crash_points import VARIABLE

PORT = "29500"


class ContainerJob(Job):
    """Attempts on a bridge; a store on disk is a mounted folder."""

    bridge: ClassVar[Bridge]
    _numbers: ClassVar[Any] = itertools.count(1)

    def start(  # type: ignore[override]
        self, crash: str = "", *, arguments: tuple[str, ...] = (), **more: str
    ) -> list[Container]:
        """Start the stage: a container for each rank, all named to rank 0's."""
        folders = [self.folder, *([Path(self.place.url)] if isinstance(self.place, Disk) else [])]
        give(*folders)
        folders += [
            films for films in [self.scene.seed.parent / "films"] if films.exists()
        ]  # what was ingested where it lies
        command = [f"components.{self.scene.component}", "--spec", self.spec]
        command += [*(arguments or ("--key-out", str(self.folder / "key")))]
        command += [f"--input={role}={key}" for role, key in self.scene.inputs.items()]
        name = f"{self.bridge.name}-{next(self._numbers)}"
        environment = {"WFM_LEASE_SECONDS": str(LEASE_SECONDS), VARIABLE: crash, **more}
        if self.place.options:
            environment["WFM_STORE_OPTIONS"] = json.dumps(dict(self.place.options))
        containers = []
        for rank in range(self.scene.ranks):
            place = {
                "RANK": str(rank), "WORLD_SIZE": str(self.scene.ranks), "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1",
                "MASTER_ADDR": f"{name}-0", "MASTER_PORT": PORT, "GLOO_SOCKET_IFNAME": "eth0",
            } if self.scene.ranks > 1 else {}  # fmt: skip
            containers.append(
                Container(
                    self.role, command, log=self.log(f"{name}-{rank}"), mounts=folders, network=self.bridge.name,
                    name=f"{name}-{rank}", environment={**environment, **place},
                ).start()
            )  # fmt: skip
        return containers

    @property
    def role(self) -> str:
        """Whose image the stage runs in."""
        from pipelines.stages import stage

        return stage(self.scene.component).image

"""The captioning service of the overlays: at zero, asked by stages alone, and what runs are told to name is what it serves."""

import re
from pathlib import Path
from typing import Any

import pytest

from pipelines.request import Request
from tests.manifests.overlays import MANIFESTS, OVERLAYS, of_kind
from wfm.artifacts import Store
from wfm.cluster.captioning import _asks
from wfm.curation.caption.caption_config import CaptionConfig

MANIFEST = (MANIFESTS / "base" / "captioning" / "service.yaml").read_text()


def told() -> list[str]:
    """The options that the manifest tells runs to give."""
    return re.findall(r"--set (caption_clips\.\S+)", MANIFEST)


def config(*more: str) -> CaptionConfig:
    return CaptionConfig().override([*(one.removeprefix("caption_clips.") for one in told()), *more])


def test_what_runs_are_told_to_name_is_what_is_served() -> None:
    deployment = of_kind("prod", "Deployment")["captioning"]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    given = dict(one.removeprefix("--").split("=", 1) for one in container["args"])
    endpoint = config().endpoint
    assert container["command"][:2] == ["vllm", "serve"]
    assert endpoint.model == container["command"][2] == given["served-model-name"]
    assert (endpoint.revision, endpoint.quantization) == (given["revision"], given["quantization"])
    assert re.fullmatch(r"[0-9a-f]{40}", endpoint.revision), "a branch's name is another model tomorrow"
    (key,) = [one["valueFrom"]["secretKeyRef"]["key"] for one in container["env"] if one["name"] == "VLLM_API_KEY"]
    assert endpoint.api_key_variable == key


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_its_address_is_its_services_and_the_scalers(overlay: str) -> None:
    service = of_kind(overlay, "Service")["captioning"]
    namespace = service["metadata"]["namespace"]
    url = f"http://captioning.{namespace}.svc:{service['spec']['ports'][0]['port']}/v1"
    pod = of_kind(overlay, "Deployment")["scaler"]["spec"]["template"]["spec"]
    words = pod["containers"][0]["command"]
    assert words[words.index("--url") + 1].replace("$(NAMESPACE)", namespace) == url
    assert config().endpoint.url.replace("captioning.wfm.", f"captioning.{namespace}.") == url


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_it_stands_at_zero_with_the_label_of_a_queue_and_time_to_load(overlay: str) -> None:
    deployment = of_kind(overlay, "Deployment")["captioning"]
    assert deployment["spec"]["replicas"] == 0
    assert deployment["metadata"]["labels"]["kueue.x-k8s.io/queue-name"]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    probe = container["startupProbe"]
    patience = probe["periodSeconds"] * probe["failureThreshold"]
    assert patience >= 1800
    assert config().endpoint.start_seconds < patience
    assert container["readinessProbe"]["httpGet"]["path"] == "/health"
    assert "--quantization=fp8" in container["args"]
    (claim,) = [one for one in deployment["spec"]["template"]["spec"]["volumes"] if "persistentVolumeClaim" in one]
    assert claim["persistentVolumeClaim"]["readOnly"] is True


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_stages_alone_ask_it_and_it_asks_nobody(overlay: str) -> None:
    def about(policy: dict[str, Any]) -> bool:
        return bool(policy["spec"]["podSelector"].get("matchLabels", {}).get("wfm.dev/role") == "captioning")

    policies = of_kind(overlay, "NetworkPolicy")
    (only,) = [one for one in policies.values() if about(one)]
    assert only["spec"]["policyTypes"] == ["Ingress"], "what leaves it is denied, but names"
    (rule,) = only["spec"]["ingress"]
    assert rule["from"] == [{"podSelector": {"matchLabels": {"wfm.dev/role": "stage"}}}]
    assert rule["ports"] == [{"protocol": "TCP", "port": 8000}]
    roles = {"values": []}
    for expression in policies["store"]["spec"]["podSelector"]["matchExpressions"]:
        roles = expression
    assert "captioning" not in roles["values"]


def test_address_and_patience_are_how_and_the_rest_is_what() -> None:
    whole = config()
    assert config("endpoint.url=http://other:1/v1", "endpoint.start_seconds=1").what() == whole.what()
    for other in ("endpoint.model=other", "endpoint.revision=other", "endpoint.quantization=awq"):
        assert config(other).what() != whole.what()
    without = CaptionConfig().override(["source=endpoint", "endpoint.url=http://o:1/v1", "endpoint.model=m"])
    assert "quantization" not in without.what()["endpoint"], "keys of before stay"


def test_a_plan_of_such_a_run_is_seen_by_the_scaler(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store", {"fsync": False})
    plan = Request("curate", profile="demo", overrides=tuple(told())).plan(store)
    node = plan.node("caption_clips")
    written = {"name": node.name, "stage": node.stage, "config": node.config, "done": node.done}
    assert _asks(written, config().endpoint.url)
    plain = Request("curate", profile="demo").plan(store).node("caption_clips")
    assert not _asks({"name": plain.name, "stage": plain.stage, "config": plain.config}, config().endpoint.url)

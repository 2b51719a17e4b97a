import base64
import io

import av
import numpy as np
import pytest

from wfm.artifacts import Store
from wfm.evaluation.page.config import PageConfig
from wfm.evaluation.page.data import PageData, short_source
from wfm.evaluation.page.gather import gather
from wfm.evaluation.page.gather_curation import detail
from wfm.evaluation.page.gather_examples import compare_actions, describe_actions
from wfm.evaluation.page.gather_stages import stage_costs
from wfm.evaluation.page.training_curves import thinned
from wfm.evaluation.page.write import render


def test_every_section_is_filled(page_data):
    assert [metrics.family for metrics in page_data.metrics] == ["diffusion", "autoregressive"]
    assert len(page_data.predictions) == 3
    assert len(page_data.actions) == 2
    assert {chart.title for chart in page_data.training} >= {"Diffusion model: loss", "Tokenizer, discrete: loss"}
    assert len(page_data.horizon) == 3
    assert page_data.source_count == 14
    assert len(page_data.configs) == len(page_data.stages) == 21
    assert all(len(verdict.measured) > 3 for verdict in page_data.verdicts)


def test_the_funnel_adds_up(page_data):
    files, cut, kept = page_data.funnel
    assert [part.count for part in files.segments] == [12, 1, 1]
    assert {part.name for part in files.segments if part.kind == "lost"} == {"truncated", "duplicate bytes"}
    for step in page_data.funnel:
        assert sum(part.count for part in step.segments) == step.count
    assert cut.segments[0].count == kept.count == 52
    assert [part.name for part in kept.segments] == ["train", "val", "test"]


def test_rejected_clips_are_spread_over_the_reasons_and_say_why(page_data):
    assert len(page_data.rejected) == 5
    assert {clip.reason for clip in page_data.rejected} == {"black", "duplicate", "static", "text overlay"}
    for clip in page_data.rejected:
        assert base64.b64decode(clip.jpeg_base64)[:3] == b"\xff\xd8\xff"
        assert clip.detail
    assert detail({"reason": "something_new"}) == ""


def test_videos_hold_the_panels_their_labels_name(page_data, run, make):
    video = page_data.predictions[-1]
    assert video.labels == ["Truth", "Diffusion", "Diffusion mean", "Autoregressive", "Optical flow", "Last frame"]
    with av.open(io.BytesIO(base64.b64decode(video.mp4_base64))) as container:
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    assert frames.shape == (video.frames, video.height, video.width, 3)
    tall, wide = (video.height - 4) // 2, (video.width - 8) // 3

    def change(panel: np.ndarray) -> float:
        return float(np.abs(panel[-1].astype(int) - panel[video.past_frames + 1]).mean())

    truth, held = frames[:, :tall, :wide], frames[:, -tall:, -wide:]
    assert change(held) < change(truth) / 5  # the last panel holds still, but for what compression leaves
    assert video.notes[0] == "rank 1 of 12"
    assert page_data.predictions[0].notes[0] == "rank 12 of 12"


def test_a_video_is_traced_to_its_source(page_data):
    steps = page_data.predictions[0].trace
    assert "generated window s" in steps[0]
    assert "clip c" in steps[1]
    assert "/videos/" in steps[2]
    assert "0.00–0.54 s" in steps[2]


def test_stages_carry_what_their_manifests_say(page_data):
    ingest = next(stage for stage in page_data.stages if stage.node == "ingest_videos")
    assert ingest.cpu_seconds == pytest.approx(ingest.seconds * 1.7)
    assert ingest.skipped == {"duplicate_bytes": 1}
    assert page_data.stages[0].node == "simulate_videos"


def test_lineage_ends_in_the_page_and_begins_at_the_source(page_data):
    nodes = {node.name: node for node in page_data.lineage}
    assert nodes["simulate_videos"].parents == []
    assert nodes["write_report"].parents
    assert set(nodes["generate_diffusion"].parents) >= {nodes["write_shards"].key, nodes["train_diffusion"].key}


def test_missing_inputs_leave_their_sections_empty(run):
    inputs, store = run
    bare = gather({}, store, PageConfig())
    assert (bare.metrics, bare.predictions, bare.funnel, bare.lineage) == ([], [], [], [])
    assert bare.headline == "Nothing was evaluated."
    one = gather({"evaluated_diffusion": inputs["evaluated_diffusion"]}, store, PageConfig())
    assert one.predictions == []
    assert len(one.metrics) == 1


def test_options_change_what_they_claim(run):
    inputs, store = run
    page = gather(inputs, store, PageConfig(title="T", examples=1, action_examples=2, rejected=0, targets=()))
    assert (page.title, len(page.predictions), len(page.actions), page.rejected, page.verdicts) == ("T", 1, 4, [], [])


def test_actions_in_words(make):
    spec = make(1).spec
    actions = np.zeros((4, 2), np.float32)
    assert describe_actions(actions, spec) == "No action"
    actions[:, 0] = -42
    assert describe_actions(actions, spec) == "Camera orbit rate −42 deg/s"
    changing = actions.copy()
    changing[2:, 0] = 30
    changing[:, 1] = 1
    assert describe_actions(changing, spec) == "Camera orbit rate −42 to +30 deg/s, 1 more"
    assert compare_actions(actions, -actions, spec) == "camera orbit rate −42 against +42 deg/s"


def test_a_long_curve_is_thinned_without_losing_its_mean_or_its_end():
    xs, ys = thinned([float(i) for i in range(1000)], [float(i) for i in range(1000)])
    assert len(xs) == 160
    assert xs[-1] == 999
    assert np.mean(ys) == pytest.approx(499.5, abs=4)
    assert thinned([1.0], [2.0]) == ([1.0], [2.0])


def test_keys_in_sources_are_cut_and_nothing_else_is():
    key = "0123456789" + "a" * 54
    assert short_source(f"wfm://{key}/videos/x.mp4") == "wfm://0123456789…/videos/x.mp4"
    assert short_source("/videos/0123456789abcdef.mp4") == "/videos/0123456789abcdef.mp4"


def test_tries_that_made_nothing_cost_too(tmp_path):
    """A try that was killed (no outcome) and one that failed stand beside the one that made the artifact."""
    store = Store.open(tmp_path / "store", {"fsync": False})
    run = store.runs.create({})
    for outcome in (None, "try_again", "done"):
        number = run.append_attempt("split", {"ranks": 2})
        run.write_usage("split", number, {"cpu_seconds": 4.0, "gpu_seconds": 1.0})
        run.write_usage("split", number, {"cpu_seconds": 3.0, "gpu_seconds": "none"}, 1)
        if outcome:
            run.write_outcome("split", number, {"outcome": outcome, "cpu_seconds": 5.0})
    with store.attempt("1" * 64) as attempt:
        made = attempt.commit(
            stage="split", kind="k", resources={"cpu_seconds": 8.0}, extra={"run_id": run.id, "node": "split"}
        )
    (cost,) = stage_costs({made.key: made.manifest}, store)
    assert (cost.cpu_seconds, cost.gpu_seconds) == (4.0 + 5.0 + 5.0 + 3 * 3.0, 3.0)
    assert (cost.failed_tries, cost.failed_cpu_seconds, cost.failed_gpu_seconds) == (2, 4.0 + 5.0 + 2 * 3.0, 2.0)
    given_up = store.runs.create({})  # the same work, submitted before and given up
    for key in (made.key, "2" * 64):
        number = given_up.append_attempt("split")
        given_up.write_outcome("split", number, {"outcome": "cancelled", "cpu_seconds": 100.0, "key": key})
    (cost,) = stage_costs({made.key: made.manifest}, store)
    assert (cost.failed_tries, cost.failed_cpu_seconds, cost.cpu_seconds) == (3, 115.0, 123.0)
    text = render(PageData(title="T", headline="H", stages=[cost]))
    assert "1 min 55 s in 3 failed tries" in text
    assert "<dt>of that, failed tries</dt><dd>1 min 55 s, gpu 2.0 s <small>3 tries</small></dd>" in text
    store.objects.delete_tree(f"runs/{given_up.id}")
    store.objects.delete_tree(f"runs/{run.id}")
    (cost,) = stage_costs({made.key: made.manifest}, store)
    assert (cost.cpu_seconds, cost.failed_tries) == (8.0, 0), "its run is gone: what the manifest says"

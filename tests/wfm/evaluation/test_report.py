import json

import numpy as np
import pytest

from wfm.actions import ActionSpec
from wfm.errors import DataError, InputError
from wfm.evaluation.config import EvaluationConfig
from wfm.evaluation.generated import CEILING
from wfm.evaluation.report import evaluate
from wfm.evaluation.schema import SCHEMA_VERSION, Metrics, read_metrics

CONFIG = EvaluationConfig(split="val", resamples=200)
PAST = 5


@pytest.fixture(scope="module")
def judged(make):
    made = make(12)
    return made, *evaluate(made, None, CONFIG)


def test_the_ceiling_closes_the_whole_way_and_repeat_last_none_of_it(make):
    made = make(12)
    videos = dict(made.videos)
    videos["sampled"] = videos[CEILING]
    videos["mean"] = np.concatenate(
        [made.truth[:, :PAST], np.repeat(made.truth[:, PAST - 1 : PAST], made.truth.shape[1] - PAST, axis=1)], axis=1
    )
    metrics, _ = evaluate(make(12, videos=videos), None, CONFIG)
    moving = metrics.subsets["moving"]
    assert moving.way_closed["sampled"].mean == pytest.approx(1.0)
    assert moving.way_closed["mean"].mean == pytest.approx(0.0)
    assert moving.gains["mean"]["repeat_last"].psnr_gain_db.mean == 0.0
    assert moving.gains["mean"]["repeat_last"].share_of_windows.mean == 0.0


def test_a_perfect_prediction_is_at_the_top_of_every_scale(make):
    metrics, _ = evaluate(make(12, sigma=0), None, CONFIG)
    best = metrics.subsets["all"].videos["sampled"]
    assert (best.psnr_db.mean, best.ssim.mean) == pytest.approx((60.0, 1.0), abs=1e-5)
    assert (best.perceptual_distance.mean, best.kernel_distance.mean) == pytest.approx((0.0, 0.0), abs=1e-9)


def test_given_frames_do_not_count(make, judged):
    _, metrics, _ = judged
    made = make(12)
    videos = {name: video.copy() for name, video in made.videos.items()}
    videos["sampled"][:, :PAST] = 0
    spoiled, _ = evaluate(make(12, videos=videos), None, CONFIG)
    assert spoiled.subsets == metrics.subsets
    assert spoiled.horizon == metrics.horizon


def test_gains_subsets_and_horizon_are_consistent(judged):
    made, metrics, rows = judged
    every = metrics.subsets["all"]
    gain = every.gains["sampled"]["repeat_last"].psnr_gain_db.mean
    difference = every.videos["sampled"].psnr_db.mean - every.videos["repeat_last"].psnr_db.mean
    assert gain == pytest.approx(difference)
    curve = metrics.horizon["all"].curves("psnr_db")["sampled"]
    assert np.mean(curve.mean) == pytest.approx(every.videos["sampled"].psnr_db.mean)
    assert len(curve.mean) == metrics.predicted_frames == made.truth.shape[1] - PAST
    assert metrics.subsets["moving"].windows + metrics.subsets["static"].windows == every.windows == 12
    assert len(rows) == 12 * len(every.videos)
    assert {row["video"] for row in rows} == set(every.videos)


def test_repeat_last_wins_where_nothing_moves_and_loses_where_it_does(judged):
    _, metrics, _ = judged
    assert metrics.subsets["static"].gains["sampled"]["repeat_last"].psnr_gain_db.mean < 0
    assert metrics.subsets["fixed_rate"].gains["sampled"]["repeat_last"].psnr_gain_db.low > 0


def test_what_is_not_known_is_absent_with_a_reason(make, judged):
    _, metrics, _ = judged
    assert "not simulated" in metrics.objects.absent
    assert metrics.objects.videos == {}
    null = np.zeros((12, 13, 0), np.float32)
    plain, _ = evaluate(make(12, spec=ActionSpec.null(), actions=null, shuffled_actions=null), None, CONFIG)
    assert plain.action_sensitivity == {}
    assert "camera_orbit_rate" in plain.subsets["fixed_rate"].absent
    assert "no known" in plain.camera.rate_absent


def test_the_same_input_gives_the_same_bytes_and_the_seed_moves_only_intervals(make, judged):
    _, metrics, _ = judged
    again, _ = evaluate(make(12), None, CONFIG)
    assert again.model_dump_json() == metrics.model_dump_json()
    other, _ = evaluate(make(12), None, CONFIG.override(["seed=5"]))
    one, two = (m.subsets["all"].videos["sampled"].psnr_db for m in (metrics, other))
    assert one.mean == two.mean
    assert (one.low, one.high) != (two.low, two.high)


def test_autoregressive_is_judged_by_its_greedy_video(make):
    metrics, _ = evaluate(make(6, family="autoregressive"), None, CONFIG)
    assert metrics.headline_variant == "greedy"
    assert metrics.variants == ["greedy", "sampled", "shuffled_action"]
    assert list(metrics.action_sensitivity) == ["greedy"]


def test_windows_of_one_session_give_means_without_intervals(make, tmp_path):
    # Before: windows were drawn in place of sessions.
    metrics, _ = evaluate(make(3, sessions=1), None, CONFIG)
    every = metrics.subsets["all"]
    assert every.videos["sampled"].psnr_db.low is None
    assert every.gains["sampled"]["repeat_last"].psnr_gain_db.high is None
    assert every.videos["sampled"].kernel_distance.low is None
    assert metrics.horizon["all"].curves("psnr_db")["sampled"].low == []
    path = tmp_path / "metrics.json"
    path.write_text(json.dumps(metrics.model_dump(mode="json"), allow_nan=False))
    assert read_metrics(path) == metrics


def test_metrics_of_the_first_schema_are_read(tmp_path, judged):
    _, metrics, _ = judged
    path = tmp_path / "metrics.json"
    path.write_text(json.dumps({**metrics.model_dump(mode="json"), "schema_version": 1}))
    assert read_metrics(path).subsets == metrics.subsets


def test_metrics_survive_json_and_refuse_what_is_newer(tmp_path, judged):
    _, metrics, _ = judged
    path = tmp_path / "metrics.json"
    path.write_text(json.dumps(metrics.model_dump(mode="json"), allow_nan=False))
    assert read_metrics(path) == metrics
    path.write_text(json.dumps({**metrics.model_dump(mode="json"), "schema_version": SCHEMA_VERSION + 1}))
    with pytest.raises(DataError, match="newer"):
        read_metrics(path)
    path.write_text(json.dumps({**metrics.model_dump(mode="json"), "surprise": 1}))
    with pytest.raises(DataError, match="surprise"):
        read_metrics(path)
    path.write_text("[]")
    with pytest.raises(DataError, match="not a metrics file"):
        read_metrics(path)
    assert Metrics.model_validate(metrics.model_dump()) == metrics


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"past_frames": 13}, "none are predicted"),
        ({"samples": []}, "0 rows"),
        ({"actions": np.zeros((12, 13, 3), np.float32)}, "actions 'right'"),
    ],
)
def test_contradictions_are_refused(make, change, message):
    with pytest.raises((DataError, InputError), match=message):
        evaluate(make(12, **change), None, CONFIG)

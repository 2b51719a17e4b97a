"""A measurement is a declared row: columns, options, filters, reports and words follow from the row alone."""

import dataclasses
import json
import operator
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

import wfm
from components import derivation
from wfm.curation.dataset.clip_table import ClipRow
from wfm.curation.dataset.column_words import columns_of
from wfm.curation.measure import measurements as package
from wfm.curation.measure.measurement import Limit, Measurement
from wfm.curation.measure.measurements import Measures, limits, measurements, values_of
from wfm.curation.select.measurement_limits import MeasuredLimits, limited
from wfm.curation.select.select import SelectConfig
from wfm.curation.select.threshold_report import OPTIONS
from wfm.errors import ConfigError

ROOT = Path(wfm.__file__).parent.parent
PLANTED = """
from wfm.curation.measure.measurement import Limit, Measurement

MEASUREMENTS = (
    Measurement(
        name="green_share",
        words="Mean share of green in the light of stills.",
        share=True,
        of=lambda seen: float(seen.own("green_share").pictures()[..., 1].mean() / 255),
        watch=lambda watch: watch.gather("rgb24", 32),
        limits=(Limit(reason="green", option="measured.maximum_green_share"),),
    ),
)
"""
ASKED = """
import dataclasses, json, sys
from pathlib import Path
from components.derivation import closure
from wfm.curation.dataset.clip_table import ClipRow, clip_row, join
from wfm.curation.dataset.column_words import columns_of
from wfm.curation.measure.measurements import Measures
from wfm.curation.measure.score import ScoreClip, ScoreConfig
from wfm.curation.rows import Selection
from wfm.curation.select.select import Scored, SelectConfig, filters
from wfm.curation.select.threshold_report import OPTIONS, columns, drops
from wfm.evaluation.page.gather_curation import detail
from wfm.records import Clip

def clip(**given):
    return Clip(**{f.name: given.get(f.name, "x" if "str" in str(f.type) else 48) for f in dataclasses.fields(Clip)})

found = {}
for name, path in (("grey", sys.argv[1]), ("green", sys.argv[2])):
    rows, here = [], clip(clip_id=name)
    (score,) = ScoreClip(ScoreConfig(measures=True), lambda _: Path(path), rows)(here)
    found[name] = here, score, rows[0]
config = SelectConfig().override(["measured.maximum_green_share=0.6", "minimum_sharpness=null", "minimum_contrast=null",
                                  "maximum_static_share=null", "maximum_text_score=null", "maximum_mark_score=null"])
items = [Scored(*one) for one in found.values()]
here, score, measures = found["green"]
chosen = Selection(clip_id="green", kept=False, reason="green", duplicate_of="", duplicate_tier="", duplicate_cosine=0.0,
                   split="", group="")
row = clip_row(join([here], [chosen], [score], [], more={"measures": [measures]})[0], "")
table = Measures.to_table([measures])
print(json.dumps({
    "green": measures.green_share,
    "reasons": [next((r for f in filters(config) if (r := f.reason(item))), "") for item in items],
    "public": ClipRow.from_table(ClipRow.to_table([row]))[0].green_share,
    "words": columns_of("clips.parquet")["green_share"],
    "option": OPTIONS["green_share"],
    "reported": "green_share" in columns(items),
    "drops": [drop.alone for drop in drops(items, config)[0] if drop.name == "green"],
    "page": detail({**dataclasses.asdict(row)}),
    "off in keys": "maximum_green_share" not in json.dumps(SelectConfig().what()),
    "on in keys": "maximum_green_share" in json.dumps(config.what()),
    "older tables": Measures.from_table(table.drop_columns(["green_share"]))[0].green_share,
    "in code ids": [
        name for name in ("score_clips", "select_clips", "write_shards", "write_report", "dedup_clips", "embed_clips")
        if "wfm.curation.measure.measurements.green" in closure(name)
    ],
}))
"""


def test_a_file_more_is_a_measurement_from_the_pass_to_the_page(tmp_path: Path, make_clip: Callable[..., Path]) -> None:
    """In a copy of the sources, where one file is added and nothing is edited."""
    for name in ("wfm", "components"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "wfm/curation/measure/measurements/green.py").write_text(PLANTED)

    def greened(frames):  # type: ignore[no-untyped-def]
        frames = frames.copy()
        frames[..., 1] = 240
        return frames

    clips = [make_clip(1), make_clip(1, change=greened)]
    done = subprocess.run(
        [sys.executable, "-c", ASKED, *map(str, clips)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    assert found["green"] == pytest.approx(240 / 255, abs=0.1)
    assert found["reasons"] == ["", "green"]
    assert found["public"] == found["green"]
    assert found["words"] == "Mean share of green in the light of stills."
    assert found["option"] == "measured.maximum_green_share"
    assert found["reported"]
    assert found["drops"] == [1]
    assert found["page"] == f"green share {found['green']:.3g}"
    assert found["off in keys"]
    assert found["on in keys"]
    assert found["older tables"] is None
    assert found["in code ids"] == ["score_clips", "select_clips", "write_shards", "write_report"]


def test_every_row_speaks_and_is_public() -> None:
    words = columns_of("clips.parquet")
    public = {field.name for field in dataclasses.fields(ClipRow)}
    for row in measurements():
        assert words[row.name], row.name
        assert row.name in public
        assert bool(row.words) == (row.table == "measures")
        for limit in row.limits:
            assert operator.attrgetter(limit.option)(SelectConfig()) is not ...
            assert limit.of is not None or OPTIONS[row.name] == limit.option
            row.evidence(limit).format(0.5)
    assert {limit.option for row in measurements() for limit in row.limits} <= {
        *SelectConfig.model_fields,
        *(f"measured.{name}" for name in MeasuredLimits.model_fields),
    }
    assert [limited(name).name for name in ("maximum_nsfw", "drop_ocr_corner", "drop_video_types")] == [
        *("nsfw", "ocr_corner", "video_type")
    ]


def test_filters_are_asked_in_the_order_they_always_were() -> None:
    reasons = [limit.reason for table in ("scores", "measures") for _, limit in limits(table)]
    assert reasons[:17] == [
        *("black", "static", "low_motion", "text_overlay", "mark_overlay", "blurred", "low_contrast"),
        *("shaky", "frozen", "borders", "under_exposed", "over_exposed", "blocky", "ocr_text", "unsafe"),
        *("low_flow", "compressed"),
    ]


def test_who_only_reads_the_scores_does_not_follow_the_code_that_measures() -> None:
    wing = "wfm.curation.measure."
    rows = (
        wing + "measurement",
        wing + "video_type",
        wing + "block_flow",
        wing + "camera_moves",
    )  # the types to refuse
    for component in ("write_shards", "select_clips"):
        assert not [
            name for name in derivation.closure(component) if name.startswith(wing) and not name.startswith(rows)
        ], component
    assert not [name for name in derivation.closure("dedup_clips") if name.startswith(wing)]


def test_values_come_from_the_rows() -> None:
    seen = SimpleNamespace(motion=SimpleNamespace(speed=1, patch_minimum=2, pan_x=3, pan_y=4, source="s"))
    rows = [row for row in measurements() if row.name.startswith(("motion", "pan"))]
    assert [row.of(seen) for row in rows] == [1, 2, 3, 4, "s"]
    with pytest.raises(AttributeError):
        values_of("measures", seen)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1", "no MEASUREMENTS"),
        ("MEASUREMENTS = (1,)", "no MEASUREMENTS"),
        (PLANTED.replace('name="green_share"', 'name="flow"'), "measurement 'flow' is declared twice"),
        (PLANTED.replace('reason="green"', 'reason="black"'), "reason 'black' is declared twice"),
        (PLANTED.replace("maximum_green_share", "maximum_shake"), "'measured.maximum_shake' is declared twice"),
        (PLANTED.replace('words="Mean', 'table="scores", words="Mean'), "rows.Score has"),
        (PLANTED.replace("measured.maximum_green", "measured.most_green"), "name it maximum_"),
    ],
)
def test_a_file_that_declares_wrongly_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str
) -> None:
    (tmp_path / "planted.py").write_text(text)
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
    measurements.cache_clear()
    try:
        with pytest.raises(ConfigError, match=message):
            measurements()
    finally:
        sys.modules.pop(f"{package.__name__}.planted", None)
        measurements.cache_clear()


def test_a_limit_says_on_which_side_it_refuses() -> None:
    assert [Limit(reason="x", option=f"measured.{side}_x").above for side in ("maximum", "minimum")] == [True, False]
    row = Measurement(name="x", of=lambda seen: 1.0)
    assert row.judged(Limit(reason="x", option="minimum_x"))(SimpleNamespace(x=3)) == 3


def test_a_public_column_is_not_taken_twice() -> None:
    from wfm.records import with_columns

    with pytest.raises(ValueError, match="Measures has a column 'flow' already"):
        with_columns({"flow": float})(Measures)

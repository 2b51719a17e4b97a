"""`ModelSheet` -> its card in Markdown. What the model loses to stands in the first lines, what is not known is said."""

from wfm.catalogue.markdown import code, front_matter, table, text
from wfm.catalogue.sheet import DataUsed, ModelSheet, Result, SubsetResult
from wfm.evaluation.page.words import ends, signed
from wfm.evaluation.schema import Estimate

TASK = "video-to-video"
"""What Hugging Face calls it."""


def model_card(sheet: ModelSheet, *, with_front_matter: bool = True) -> str:
    """The card."""
    window, size = sheet.window, sheet.parameters
    counted = ", ".join(f"{code(role)} {count:,}" for role, count in size.items())
    lines = [
        *([*front_matter(_front(sheet)), ""] if with_front_matter else []),
        f"# {text(sheet.name)}: {text(sheet.title)} world model",
        "",
        *_first_lines(sheet),
        "",
        f"Takes {window.past_frames} frames of {window.height} x {window.width} at {window.fps:g} frames/s and predicts "
        f"the next {window.predicted_frames}; longer futures are rolled out window by window. Parameters: "
        f"{counted or 'not known'}.",
        "",
        "## Result",
        "",
        *_result(sheet),
        "## How to use it",
        "",
        *_use(sheet),
        "## Data",
        "",
        *_data(sheet),
        "## Limits",
        "",
        *(f"- {limit}" for limit in limits_of(sheet)),
        "",
        "## Licence",
        "",
        *_licence(sheet),
        "",
        "## Lineage",
        "",
        *_lineage(sheet),
        "",
    ]
    return "\n".join(lines)


def _front(sheet: ModelSheet) -> dict[str, object]:
    values: dict[str, object] = {
        "license": "unknown",
        "library_name": "wfm",
        "pipeline_tag": TASK,
        "tags": ["world-model", "video-prediction", sheet.family],
    }
    if (result := sheet.result) is not None and (index := _index(sheet, result)):
        values["model-index"] = index
    return values


def _index(sheet: ModelSheet, result: Result) -> list[dict[str, object]]:
    """Figures as Hugging Face lists them: of the model's own rows."""
    data = sheet.data[0].names[0] if sheet.data and sheet.data[0].names else "held-out windows"
    results: list[dict[str, object]] = []
    for subset in result.subsets:
        metrics: list[object] = []
        for row in subset.rows:
            if row.baseline:
                continue
            for name, found in (("PSNR, dB", row.psnr_db), ("PSNR gain over the last frame held, dB", row.gain_db)):
                if found is not None:
                    metrics.append({"type": "psnr", "value": round(found.mean, 4), "name": f"{row.method}: {name}"})
        if metrics:
            results.append(
                {
                    "task": {"type": TASK, "name": "Video prediction"},
                    "dataset": {"name": f"{data}, {subset.heading.lower()}", "type": "wfm", "split": result.split},
                    "metrics": metrics,
                }
            )
    return [{"name": sheet.name, "results": results}] if results else []


def _first_lines(sheet: ModelSheet) -> list[str]:
    if sheet.result is None:
        return [f"**No result: {text(sheet.result_absent)}.** Nothing here says how good its predictions are."]
    loses = sheet.result.loses
    return [
        text(sheet.result.headline),
        "",
        f"**Loses:** {text(loses, 2000)}."
        if loses
        else "Neither holding the last frame nor carrying on the optical flow is nearer to the truth on average, in any of "
        "the tables below.",
    ]


def _result(sheet: ModelSheet) -> list[str]:
    result = sheet.result
    if result is None:
        return [f"None: {text(sheet.result_absent)}.", ""]
    sessions = f"{result.sessions:,} recording session{'s' * (result.sessions != 1)}"
    lines = [
        f"{text(result.split)} split, {result.windows:,} windows from {sessions}. Mean and 95 % "
        "interval over sessions; gain: PSNR over holding the last frame; better on: share of windows with a gain above zero.",
        "",
        *([which_evaluation(result), ""] if result.evaluation else []),
    ]
    for subset in result.subsets:
        lines += [f"### {text(subset.heading)}", "", *_subset(subset), ""]
    return lines


def which_evaluation(result: Result) -> str:
    """Which evaluation the figures are of, in a sentence."""
    told = f"Figures of evaluation {code(result.evaluation[:12])}"
    told += f" of {text(result.evaluated_at[:10])}" if result.evaluated_at else ""
    if not result.published_with:
        return f"{told}, with which it was published."
    return f"{told}, made after it was published (with {code(result.published_with[:12])})."


def _subset(subset: SubsetResult) -> list[str]:
    if subset.absent:
        return [f"Not measured: {text(subset.absent)}."]
    rows = [
        [
            text(row.method),
            _figure(row.psnr_db),
            _figure(row.gain_db, sign=True),
            _figure(row.gain_over_flow_db, sign=True),
            f"{row.share_of_windows.mean * 100:.0f} %" if row.share_of_windows else "–",
        ]
        for row in subset.rows
    ]
    heads = ("method", "PSNR, dB", "gain, dB", "over flow, dB", "better on")
    return [f"{subset.windows:,} windows.", "", *table(heads, rows, numbers=4)]


def _figure(found: Estimate | None, *, sign: bool = False) -> str:
    if found is None:
        return "–"

    def shown(value: float) -> str:
        return signed(value, 2) if sign else f"{value:.2f}".replace("-", "−")

    known = found.low is not None or not sign  # the difference of two means has no interval of its own
    return f"{shown(found.mean)} [{ends(found, shown)}]" if known else shown(found.mean)


def _use(sheet: ModelSheet) -> list[str]:
    name = next((one for one in sheet.names if one.endswith("@latest")), next(iter(sheet.names), ""))
    model = name.removeprefix("model/").removesuffix("@latest") or "FOLDER"
    further = " [--action FILE | --camera FILE]" if sheet.actions else ""
    words = " [--text CAPTION]" if sheet.reads_text else ""
    lines = ["```", f"wfm generate {model} --past CLIP.mp4{further}{words}", "```", ""]
    if not sheet.actions:
        return [*lines, "Takes no actions.", ""]
    return [
        *lines,
        f"Actions, one row per frame at {sheet.action_rate_hz:g} rows/s, in frame: {text(sheet.action_frame)}",
        "",
        *table(("action", "unit"), [[code(one.name), text(one.unit)] for one in sheet.actions]),
        "",
    ]


def _data(sheet: ModelSheet) -> list[str]:
    if not sheet.data:
        return [
            "Not known here: a bundle names its tokenizer, model and evaluation, and the store that it came from knows the "
            "data. `wfm artifacts pull` writes what it knows beside the model.",
            "",
        ]
    lines = []
    for used in sheet.data:
        lines += [*_one_dataset(used), ""]
    return lines


def _one_dataset(used: DataUsed) -> list[str]:
    called = ", ".join(code(name) for name in used.names) or code(used.key[:12])
    if used.problem:
        return [f"{called}: nothing more is known ({text(used.problem)})."]
    hours = sum(split.seconds for split in used.splits.values()) / 3600
    simulated = f" {used.simulated_videos:,} of the files are simulated, not filmed." if used.simulated_videos else ""
    rows = [
        [text(name), f"{split.clips:,}", f"{split.sessions:,}", f"{split.seconds / 3600:.2f}"]
        for name, split in used.splits.items()
    ]
    return [
        f"{called}: {used.clips:,} clips ({hours:,.2f} h) of {used.videos:,} videos.{simulated}",
        "",
        *table(("split", "clips", "sessions", "hours"), rows, numbers=3),
    ]


def limits_of(sheet: ModelSheet) -> list[str]:
    """What nobody should conclude, in sentences of Markdown."""
    window = sheet.window
    found = [text(limit, 2000) for limit in sheet.result.limits] if sheet.result else []
    return [
        *found,
        f"Figures are of one window, {window.predicted_frames} frames ahead: longer futures are rolled out, each window from "
        "the predictions of the one before, and were not measured."
        if sheet.result
        else "Nothing was measured: no figure says how far its predictions can be trusted.",
        f"Frames of another size than {window.height} x {window.width} or another rate than {window.fps:g} frames/s are "
        "outside of what it was trained on.",
    ]


def _licence(sheet: ModelSheet) -> list[str]:
    lines = ["Nobody stated a licence for the weights; ask whoever trained them."]
    rights = sorted({(one.licence, one.consent) for used in sheet.data for one in used.rights})
    if rights:
        told = "; ".join(f"licence {text(licence)}, consent {text(consent)}" for licence, consent in rights)
        lines.append(f"The videos it was trained on: {told}.")
    else:
        lines.append("What the videos that it was trained on allow is not known here.")
    return lines


def _lineage(sheet: ModelSheet) -> list[str]:
    if not sheet.lineage:
        return ["Not known."]
    rows = [
        [text(step.stage or step.kind), text(step.kind), code(step.key[:12]), text(step.created_at or step.problem)]
        for step in sheet.lineage
    ]
    return [
        *([f"Bundle {code(sheet.key)}.", ""] if sheet.key else []),
        *table(("made by", "kind", "key", "at"), rows),
    ]

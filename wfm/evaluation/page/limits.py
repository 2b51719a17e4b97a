"""What a result does not show."""

from wfm.evaluation.metrics import all_metrics
from wfm.evaluation.page.cast import Cast
from wfm.evaluation.schema import Metrics


def limits(cast: Cast, metrics: list[Metrics]) -> list[str]:
    """In sentences."""
    found = []
    for one in metrics[:1]:
        chosen = "Choices were made on validation windows" if one.split == "test" else "These are validation windows"
        sessions = f"{one.sessions} recording session{'s' * (one.sessions != 1)}"
        found.append(
            f"{chosen}; figures are of the {one.split} split: {one.windows} windows from {sessions}. "
            "Sessions, not windows, are drawn for the intervals; with few sessions they are too narrow."
        )
        found += [metric.limit for metric in all_metrics() if metric.limit]
        if one.objects.absent:
            found.append(f"Object permanence was not measured: {one.objects.absent}.")
        else:
            found.append(
                "The worlds are simulated, few colours and plain shapes: nothing here says how the models do on real video."
            )
    for one in metrics:
        report = one.subsets.get("static")
        gain = report.gains.get(one.headline_variant, {}).get("repeat_last") if report else None
        if gain and gain.psnr_gain_db and gain.psnr_gain_db.mean < 0:
            name = cast.name(one.family, one.headline_variant)
            worse = f"{-gain.psnr_gain_db.mean:.1f} dB"
            found.append(f"{name}: where the camera rests, holding the last frame is {worse} better.")
    return found

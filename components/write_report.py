"""Draw the page of a run: predictions beside truth and baselines, curves, curation, cost, lineage, configs.

Reads the reports and videos of the models, the data set, the trained models (their curves) and every manifest
upstream. Writes `report/index.html`: one file that opens offline.

    python -m components.write_report --spec URL --input evaluated_FAMILY=KEY --input generated_FAMILY=KEY ... --key-out PATH
"""

from typing import Any

from components.entrypoint import Context, Result, main
from wfm.artifacts.verified import hash_file
from wfm.evaluation.page.config import PageConfig, template_parts


class WriteReportConfig(PageConfig):
    """What the page shows; see `wfm.evaluation.page.config`."""


def external_inputs(config: WriteReportConfig, inputs: dict[str, str], store: Any) -> dict[str, str]:
    """Template, style and script are not Python, so they enter the key by what they hold."""
    return {path.name: hash_file(path)[1] for path in template_parts()}


def run(ctx: Context[WriteReportConfig]) -> Result:
    """Gather, draw, write."""
    from wfm.evaluation.page.gather import gather
    from wfm.evaluation.page.write import write_page

    data = gather(ctx.inputs, ctx.store, ctx.config, run_id=ctx.run_id)
    size = write_page(data, ctx.out / "report" / "index.html")
    ctx.log.info("page of %.1f MB", size / 1e6)
    met = sum(verdict.met is True for verdict in data.verdicts)
    return Result(
        counts={
            "inputs": len(ctx.inputs),
            "outputs": 1,
            "bytes": size,
            "videos": len(data.predictions) + len(data.actions),
            "targets": len(data.verdicts),
            "targets_met": met,
        },
        extra={"headline": data.headline},
    )


CONFIG = WriteReportConfig

if __name__ == "__main__":
    main(__spec__.name, CONFIG, run)

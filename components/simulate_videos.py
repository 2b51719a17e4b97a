"""Film simulated worlds: ordinary long mp4 files with hard cuts, copies and junk, and sidecars that say what is known.

One part per session: `parts/session_0003/{videos,actions,attributes,truth}/`. The same bytes for the same config, whatever
the number of workers. `truth/` is for evaluation and tests only.

    python -m components.simulate_videos --spec URL --key-out PATH
"""

from dataclasses import replace

from components.entrypoint import Context, PartContext, Result, main
from wfm.simulation.config import SimulationConfig


def simulate_part(part: PartContext[SimulationConfig]) -> Result:
    """One session."""
    from wfm.simulation.corpus import simulate_session

    counts = simulate_session(part.config, part.inputs["session"], part.out)
    return Result(counts={"inputs": 1, "outputs": counts["videos"], **counts})


def run(ctx: Context[SimulationConfig]) -> Result:
    """All sessions: on the run's Dask workers, or on `workers` processes of our own where there are none."""
    from wfm.simulation.session import session_name

    sessions = {session_name(index): {"session": index} for index in range(ctx.config.sessions)}
    if ctx.scheduler or ctx.config.workers == 1:
        parts = ctx.map_parts(sessions, simulate_part)
    else:
        from wfm.parts.workers import local_cluster

        with local_cluster(ctx.config.workers) as address:  # children: what they use is counted with this process
            parts = replace(ctx, scheduler=address).map_parts(sessions, simulate_part)
    counts = {
        name: sum(part.counts.get(name, 0) for part in parts)
        for name in ("inputs", "outputs", "videos", "frames", "duplicates", "static_videos")
    }
    return Result(counts=counts, parts=parts)


CONFIG = SimulationConfig

if __name__ == "__main__":
    main(__spec__.name, CONFIG, run)

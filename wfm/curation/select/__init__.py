"""Numbers and groups -> kept or not, with one reason each; then what the kept clips are about.

In reading order:

    select               the step (measurement_limits: filters that are off until chosen)
    drops                the figure that decided, for each clip that was dropped
    threshold_report     a page of what each threshold would drop
    kept_clips           the kept ones as vectors -> cluster: what belongs together, named; taxonomy: categories and weights
"""

__all__ = ["cluster", "drops", "kept_clips", "measurement_limits", "select", "taxonomy", "threshold_report"]

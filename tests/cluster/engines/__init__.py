"""Models of the servers of engines, for tests: Argo's and KFP's REST calls over real HTTP, and what plays a run behind them.

1. `http`     requests, tokens, and what goes wrong on purpose
2. `models`   whatever is stored or answered is read by the official client's own models: an unknown field, or one of another
              type, fails the test
3. `argo`     Argo Server's workflows, templates and CronWorkflows; `kfp` experiments, pipelines, runs, recurring runs (v2beta1)
4. `player`   runs the steps of a compiled template as real processes over a real store; `stage` is what stands for a stage

Not modelled: pods, artifacts, archived workflows, several users; what the controllers of both do with anything that
`wfm compile` does not write. Words of refusals are those of argo-workflows 4.1 and of KFP 2.17, as their sources and
issues have them.
"""

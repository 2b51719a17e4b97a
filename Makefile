# wfm: `make demo` and `make test` do all their own set-up on a fresh Debian machine with Python 3.11 (root or sudo).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WORKERS ?= 2
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: help demo smoke setup setup-dev system test test-all check render snapshots fuzz crash-matrix launcher-schedules life-of-a-run camera-films containers lock clean

help: ## this list
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-18s %s\n", $$1, $$2}'

demo: setup ## set everything up and run the main job: raw video to two evaluated world models and a page
	$(BIN)/wfm run world_model --profile demo

smoke: setup ## the same in at most 3 minutes, to see that all of it runs
	$(BIN)/wfm run world_model --profile smoke

setup: $(VENV)/.ready ## just .venv with `wfm` in it

setup-dev: $(VENV)/.ready-dev ## what the tests need too

$(VENV)/.ready: pyproject.toml constraints.txt .ci/system_packages
	bash .ci/system_packages libosmesa6 libegl1 libgl1 libglib2.0-0
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade 'pip>=24' 'setuptools>=77'
	$(BIN)/pip install --quiet -c constraints.txt torch==2.13.0
	$(BIN)/pip install --quiet -c constraints.txt -e '.[curate,train,prefect]'
	touch $@

$(VENV)/.ready-dev: $(VENV)/.ready
	bash .ci/system_packages chromium chromium-driver g++
	$(BIN)/pip install --quiet -c constraints.txt -e '.[curate,curate-models,caption,search,train,tensorboard,text,prefect,s3,k8s,argo,kfp,dev]'
	$(BIN)/pip check
	touch $@

check: setup-dev ## lint, types, storeys, lock, what is rendered
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/wfm lock --check
	$(BIN)/python -m tests.manifests.compiled --check

render: setup-dev ## renew what is written by commands: manifests/rendered/, docs/commands.md
	$(BIN)/python -m tests.manifests.overlays
	$(BIN)/python -m tests.manifests.compiled
	$(BIN)/python -m tests.contracts.commands_page

snapshots: setup-dev ## renew what each command shows on a terminal, and docs/schemas; read the difference
	WFM_RENEW_SNAPSHOTS=1 $(BIN)/python -m pytest -q tests/pipelines/commands/test_snapshots.py

test: check ## everything but the long matrices, in two processes of a thread each (`WORKERS=0`: in one, of all threads)
	$(BIN)/python -m compileall -q wfm pipelines components tests # thousands of processes begin 0.3 s sooner
	$(if $(filter-out 0,$(WORKERS)),OMP_NUM_THREADS=1) $(BIN)/python -m pytest -m "not long" -n $(WORKERS) --dist loadfile --no-loadscope-reorder

test-all: check ## the long matrices too
	$(BIN)/python -m pytest

fuzz: setup-dev ## ten thousand seeded mutations of everything that is read from outside (about an hour)
	$(BIN)/python -m pytest -m long tests/faults/test_fuzz.py tests/contracts/test_fuzz_records.py

crash-matrix: setup-dev ## every point where a stage may die, in every scene, on a disk and on S3; thirty preemptions; ranks and ranges that are killed, each way (more than an hour)
	$(BIN)/python -m pytest -m long tests/faults/test_kill_matrix.py tests/faults/test_preemption_storm.py tests/faults/test_kill_and_resume.py \
		tests/faults/test_two_copies.py tests/faults/test_grace.py tests/faults/test_store_in_trouble.py tests/faults/test_crash_points.py \
		tests/faults/test_expired_credentials.py tests/components/test_ranks.py tests/components/test_part_ranges.py \
		tests/components/test_stopping.py tests/wfm/training/test_ranks.py tests/wfm/parts/test_dask_settings.py tests/wfm/data/order/test_order_ranks.py

launcher-schedules: setup-dev ## three hundred seeded schedules of a launcher against the model of a cluster, and ten with real processes
	$(BIN)/python -m pytest -s -m long tests/cluster/test_schedules.py tests/cluster/test_processes.py tests/cluster/test_other_server.py

life-of-a-run: setup-dev ## a run submitted, suspended, resumed, cancelled, by the clock and filled up, on each of the four engines
	$(BIN)/python -m pytest tests/pipelines/engines/test_life_of_a_run.py tests/pipelines/engines/test_life_on_a_cluster.py

camera-films: setup-dev ## old cameras' films, downloaded from Debian: all their frames come out
	$(BIN)/python -m pytest -m long tests/wfm/data/test_camera_files.py

containers: setup-dev ## the images are built and run: what they promise, the smoke pipeline, two ranks, kill points (needs root, 15 GB)
	bash .ci/system_packages podman runc buildah debootstrap catatonit netavark aardvark-dns iproute2
	$(BIN)/python tests/containers/make_images.py
	$(BIN)/python -m pytest -s -o timeout=3600 tests/containers/check_images.py tests/containers/check_pipeline.py \
		tests/containers/check_kubeflow.py \
		tests/containers/check_ranks.py \
		tests/containers/check_pods.py tests/containers/check_kill_points.py

lock: setup ## renew components/lock.json: which code each stage's version stands for
	$(BIN)/wfm lock

clean: ## remove the virtual environment; the store is left alone
	rm -rf $(VENV) build *.egg-info

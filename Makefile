# make demo: train on a bucket drawn here and print where the report is. make test: the tests for every change, without
# Docker. make test-all: every test, in groups that can run side by side.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.PHONY: install install-dev demo docs docs-generate test test-all test-properties test-end-to-end test-jobs test-image \
  test-zoo test-upstream soak benchmark-conversion benchmark-check benchmark-parity benchmark-learning \
  benchmark-accuracy benchmark-averaging benchmark-exports benchmark-new-label benchmark-yardstick benchmark-training \
  benchmark-gpu lint format sdists lock audit size image training-zip clean

PYTHON ?= python3
# TensorFlow's CPU build unless this machine has an NVIDIA driver; `make install REQUIREMENTS=requirements.txt` decides.
# What is installed already stays.
PRESENT := $(patsubst .venv/installed-%,%.txt,$(filter-out %-dev,$(wildcard .venv/installed-*)))
REQUIREMENTS ?= $(or $(firstword $(PRESENT)),$(if $(wildcard /proc/driver/nvidia/version),requirements.txt,requirements-cpu.txt))
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check --no-deps
INSTALLED := .venv/installed-$(basename $(REQUIREMENTS))
CHECK_PYTHON := $(PYTHON) -c 'import sys; (3, 10) <= sys.version_info[:2] <= (3, 13) or \
  sys.exit("Python 3.10 to 3.13 is needed, $(PYTHON) is another: name one with PYTHON=...")'
SDISTS := dist/object_detection-0.1.tar.gz dist/slim-0.1.tar.gz

install: $(INSTALLED)
install-dev: $(INSTALLED)-dev
sdists: $(SDISTS)

$(INSTALLED): $(REQUIREMENTS) $(SDISTS)
	@$(CHECK_PYTHON)
	$(PYTHON) -m venv --clear .venv
	.venv/bin/python $(PIP_INSTALL) --require-hashes -r $(REQUIREMENTS)
	.venv/bin/python $(PIP_INSTALL) --no-build-isolation --force-reinstall $(SDISTS)
	touch $@

$(INSTALLED)-dev: $(INSTALLED) requirements-dev.txt
	.venv/bin/python $(PIP_INSTALL) --require-hashes -r requirements-dev.txt
	touch $@

.build-venv/installed: sdists/requirements.txt
	@$(CHECK_PYTHON)
	$(PYTHON) -m venv .build-venv
	.build-venv/bin/python $(PIP_INSTALL) --require-hashes -r sdists/requirements.txt
	touch $@

# MODELS_DIR=path/to/models builds from a clone of tensorflow/models instead of the published source. What was built
# from a clone is always built anew, since nobody knows whether the clone is still the same.
FROM_CLONE := dist/from-clone
$(SDISTS) &: sdists/build.py sdists/compatibility.py sdists/source.txt .build-venv/installed \
  $(if $(MODELS_DIR)$(wildcard $(FROM_CLONE)),FORCE)
	.build-venv/bin/python sdists/build.py --out dist $(if $(MODELS_DIR),--models-dir '$(MODELS_DIR)')
	$(if $(MODELS_DIR),touch,rm -f) $(FROM_CLONE)

FORCE:

demo: install
	.venv/bin/python -m tests.demo demo
	rm -rf demo/work demo/results
	MODEL=smoke DATA_DIR=demo/bucket RESULT_DIR=demo/results WORK_DIR=demo/work ./start.sh 300
	@echo "Report: $(CURDIR)/demo/results/report.html"

# A worker for each core. Tests of one file share what it trains, and stay together; tests/conftest.py deals them out.
PYTEST := .venv/bin/python -m pytest --numprocesses auto --dist loadscope --no-loadscope-reorder
OTHER_GROUPS := $(addprefix --ignore tests/,end_to_end mounts jobs image)

test: install-dev
	$(PYTEST) $(OTHER_GROUPS)

# Every test in its groups, each of which can run by itself.
test-all: test test-properties test-end-to-end test-jobs test-image

# Ten thousand random documents and a thousand data sets in the variants of tools; `make test` tries a tenth of them.
test-properties: install-dev
	.venv/bin/python -m pytest tests/data/test_properties.py tests/data/test_variants.py --hypothesis-profile=thorough

# Whole jobs, also on filesystems that refuse what bucket mounts refuse.
test-end-to-end: install-dev .clients-venv/installed .clients-node/installed
	$(PYTEST) --durations=25 tests/end_to_end tests/mounts

# The clients that load the exports, in an environment of their own.
.clients-venv/installed: tests/clients/requirements.txt
	@$(CHECK_PYTHON)
	$(PYTHON) -m venv --clear .clients-venv
	.clients-venv/bin/python $(PIP_INSTALL) --require-hashes -r tests/clients/requirements.txt
	touch $@

# The clients in JavaScript, with nothing of theirs run at the installation.
.clients-node/installed: tests/clients/package.json tests/clients/package-lock.json
	rm -rf .clients-node
	mkdir .clients-node
	cp $^ .clients-node
	npm ci --prefix .clients-node --ignore-scripts --no-audit --no-fund --loglevel=error
	touch $@

# Every box model of the zoo, two steps each: about two hours on two cores. What is done stays done, in zoo-sweep/.
test-zoo: install-dev
	.venv/bin/python -m tests.zoo.sweep

# Upstream's own unit tests on the built sdists, those of TF2 and those of TF1: tests/upstream/known.csv lists what cannot
# pass and why. UPSTREAM=matchers runs a folder of it.
UPSTREAM ?= core 'builders ../nets ../deployment' models 'anchor_generators box_coders matchers predictors meta_architectures' \
  '*_test.py data_decoders dataset_tools inference legacy metrics tpu_exporters utils'
test-upstream: install-dev
	root=$$(echo .venv/lib/python3*/site-packages/object_detection); failed=0; \
	for mode in 1 0; do for folders in $(UPSTREAM); do \
	  paths=(); for folder in $$folders; do paths+=($$root/$$folder); done; \
	  TF2_BEHAVIOR=$$mode TF_CPP_MIN_LOG_LEVEL=3 .venv/bin/python -W ignore -m pytest -q --tb=line -c /dev/null \
	    -p tests.upstream.plugin -p no:cacheprovider -o python_files='*_test.py' "$${paths[@]}" || failed=1; \
	done; done; exit $$failed

# A job that is killed again and again must end as one that is left alone.
KILLS ?= 20
SEED ?= 1
soak: install-dev
	.venv/bin/python -m tests.soak $(KILLS) $(SEED)

# Old and current TensorFlow against each other, what a conversion costs, whether a TF1 model learns from scratch.
benchmark-parity: install-dev .tensorflow-gpu-venv/installed
	.venv/bin/python -m benchmarks.parity .tensorflow-gpu-venv/bin/python
benchmark-conversion: install-dev
	.venv/bin/python -m benchmarks.conversion
	.venv/bin/python -m benchmarks.workers
# BASELINE=COMMIT compares with an older `check`.
benchmark-check: install-dev
	.venv/bin/python -m benchmarks.checking
# BUCKETS='path path' RECIPES='names in benchmarks/recipes.yaml'; what is done stays done, in accuracy/. ACCURACY adds flags.
benchmark-accuracy: install-dev
	.venv/bin/python -m benchmarks.accuracy $(BUCKETS) --recipes $(RECIPES) $(ACCURACY)
# The job and YOLO11n from random weights for the same minutes. YOLO_PYTHON is the interpreter of an environment with
# ultralytics, which is no part of this project: `pip install ultralytics`.
benchmark-yardstick: install-dev
	.venv/bin/python -m benchmarks.yardstick '$(BUCKET)' --python '$(YOLO_PYTHON)'
# Models by name with MODELS; what is done stays done, in exports/.
benchmark-exports: install-dev
	.venv/bin/python -m benchmarks.exports $(if $(MODELS),--models $(MODELS))
benchmark-new-label: install-dev
	.venv/bin/python -m benchmarks.new_label
benchmark-learning: install-dev
	.venv/bin/python -m benchmarks.learning
benchmark-training: install-dev
	.venv/bin/python -m benchmarks.training
# On a machine with GPUs, in the image: ten minutes at most, without network. MODELS names others than the three.
benchmark-gpu:
	$(DOCKER) run --rm --gpus all --network none --volume '$(CURDIR):/repo:ro' --workdir /tmp --entrypoint python \
	  --env PYTHONPATH=/opt/object_detection:/repo $(IMAGE) -m benchmarks.gpu $(MODELS)
benchmark-averaging: install-dev
	.venv/bin/python -m benchmarks.averaging '$(BUCKET)'

PYTHON3_10 ?= python3.10
.tensorflow-gpu-venv/installed: requirements-tensorflow-gpu.txt $(SDISTS)
	$(PYTHON3_10) -m venv --clear .tensorflow-gpu-venv
	.tensorflow-gpu-venv/bin/python $(PIP_INSTALL) --require-hashes -r requirements-tensorflow-gpu.txt
	.tensorflow-gpu-venv/bin/python $(PIP_INSTALL) --no-build-isolation --force-reinstall $(SDISTS)
	touch $@

# BuildKit without the buildx plugin is what Debian's own client has.
DOCKER ?= $(firstword $(wildcard /usr/bin/docker) docker)
IMAGE ?= detection-training-job
VERSION = $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' entrypoint/__init__.py)
image:
	DOCKER_BUILDKIT=1 $(DOCKER) build --tag $(IMAGE) --build-arg REVISION='$(REVISION)' --build-arg VERSION='$(VERSION)' \
	  $(IMAGE_OPTIONS) .

# Builds the CPU image on a base that debootstrap makes, and runs it. Needs root, and Debian's docker.io, debootstrap.
test-image: install-dev
	DOCKER=$(DOCKER) .venv/bin/python -m pytest --durations=25 tests/image

# What services get: jobs/NAME, with the names in it taken from the command line or the environment, and then NAME's
# own client. `make submit-kubernetes IMAGE=... BUCKET=...`; what is missing is told.
FILL := $(PYTHON) jobs/fill.py
submit-sagemaker:
	manifest=$$($(FILL) jobs/sagemaker.json) && aws sagemaker create-training-job --cli-input-json "file://$$manifest"
submit-vertex-ai:
	manifest=$$($(FILL) jobs/vertex-ai.yaml) && gcloud ai custom-jobs create --region='$(REGION)' \
	  --display-name=detector --config="$$manifest"
submit-azure-ml:
	manifest=$$($(FILL) jobs/azure-ml.yaml) && az ml job create --file "$$manifest"
submit-kubernetes submit-kubeflow submit-convert-kubernetes submit-convert-dask-kubernetes: submit-%:
	manifest=$$($(FILL) jobs/$*.yaml) && kubectl create --filename "$$manifest"
submit-slurm submit-convert-slurm: submit-%:
	manifest=$$($(FILL) jobs/$*.sh) && sbatch "$$manifest"
submit-convert-dask-compose:
	manifest=$$($(FILL) jobs/convert-dask-compose.yaml) && $(DOCKER) compose --file "$$manifest" up --exit-code-from convert
PARTS ?= 16
submit-convert-aws-batch:
	manifest=$$($(FILL) jobs/convert-aws-batch.json) && \
	aws batch register-job-definition --cli-input-json "file://$$manifest" && \
	aws batch submit-job --job-name convert-photos --job-definition convert-photos --job-queue '$(QUEUE)' \
	  --array-properties 'size=$(PARTS)'
CLOUD_RUN = https://run.googleapis.com/v2/projects/$(PROJECT)/locations/$(REGION)/jobs
submit-convert-cloud-run:
	manifest=$$($(FILL) jobs/convert-cloud-run.json) && \
	send() { curl --fail-with-body --header @<(echo "Authorization: Bearer $$GOOGLE_TOKEN") "$$@"; } && \
	send --json "@$$manifest" '$(CLOUD_RUN)?jobId=convert-photos' && \
	send --request POST '$(CLOUD_RUN)/convert-photos:run'

submit-watson-machine-learning:
	manifest=$$($(FILL) jobs/watson-machine-learning.json) && curl --fail-with-body --json "@$$manifest" \
	  --header @<(echo "Authorization: Bearer $$IBM_TOKEN") '$(WML_URL)/ml/v4/trainings?version=2024-10-10'

# The job for services that run no image: start.sh installs what it needs, then trains.
training-zip: dist/training.zip
# Which packages and which revision a zip holds decides whether it is up to date, beside its files.
REVISION = $(shell git describe --always --dirty --abbrev=40 --exclude='*' 2>/dev/null || echo unknown)
dist/training-zip.txt: FORCE
	@mkdir -p dist
	@[[ "$$(cat $@ 2>/dev/null)" == "$(REQUIREMENTS) $(REVISION)" ]] || echo "$(REQUIREMENTS) $(REVISION)" > $@
dist/training.zip: dist/training-zip.txt start.sh LICENSE jobs/install.sh jobs/training_zip.py $(REQUIREMENTS) $(SDISTS) \
  $(shell find entrypoint pipelines -type f -not -path '*/__pycache__/*')
	$(PYTHON) jobs/training_zip.py $(REQUIREMENTS) $@ '$(REVISION)'

# The manifests against the schemas of their services, and what the services promise against the job.
test-jobs: install-dev .jobs-venv/installed dist/training.zip
	.venv/bin/python -m pytest tests/jobs

.jobs-venv/installed: jobs/requirements.txt
	@$(CHECK_PYTHON)
	$(PYTHON) -m venv .jobs-venv
	.jobs-venv/bin/python $(PIP_INSTALL) --require-hashes -r jobs/requirements.txt
	touch $@

lint: install-dev
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/hadolint Dockerfile
	.venv/bin/shellcheck start.sh .ci/run jobs/install.sh
	.venv/bin/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml

# Known vulnerabilities of what is in the images, from PyPI's advisories; what is not known there is an error too.
audit: .jobs-venv/installed
	.jobs-venv/bin/pip-audit --strict --disable-pip --require-hashes -r requirements.txt
	.jobs-venv/bin/pip-audit --strict --disable-pip --require-hashes -r requirements-cpu.txt

format: install-dev
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

# Versions are chosen anew with `make lock UPGRADE=--upgrade`; otherwise those that stand stay.
LOCK = uv pip compile --quiet --universal --generate-hashes --python-version 3.10 --fork-strategy requires-python \
  --custom-compile-command 'make lock' $(UPGRADE)
EXCLUDED := --excludes requirements-excluded.txt
# Lists of packages that only some jobs need.
EXTRAS := coreml dask onnx openvino

lock:
	$(LOCK) requirements.in -o requirements.txt $(EXCLUDED)
	$(LOCK) requirements-cpu.in -o requirements-cpu.txt $(EXCLUDED) --excludes <(echo tensorflow)
	$(LOCK) sdists/requirements.in -o sdists/requirements.txt
	uv pip compile --quiet --generate-hashes --python-version 3.10 --python-platform x86_64-manylinux_2_28 \
	  --custom-compile-command 'make lock' $(UPGRADE) --excludes requirements-tensorflow-gpu-excluded.txt \
	  --overrides requirements-tensorflow-gpu-overrides.txt \
	  requirements-tensorflow-gpu.in -o requirements-tensorflow-gpu.txt
	for name in $(EXTRAS); do $(LOCK) requirements-$$name.in -o requirements-$$name.txt \
	  --excludes <(grep -v "^tqdm$$" requirements-excluded.txt); done
	$(LOCK) requirements-dev.in -o requirements-dev.txt
	$(LOCK) jobs/requirements.in -o jobs/requirements.txt \
	  --excludes <(printf '%s\n' dask distributed kopf kr8s kubernetes-asyncio pykube-ng)
	$(LOCK) docs/requirements.in -o docs/requirements.txt
	$(LOCK) tests/clients/requirements.in -o tests/clients/requirements.txt --excludes <(echo opencv-contrib-python)

# The documentation as a site, in dist/site. Its table of settings and its tree of files are made from the code.
docs: docs-generate .docs-venv/installed
	.docs-venv/bin/mkdocs build --quiet --strict
	@echo "Site: $(CURDIR)/dist/site/index.html"

docs-generate: install
	.venv/bin/python -m docs.generate

.docs-venv/installed: docs/requirements.txt
	@$(CHECK_PYTHON)
	$(PYTHON) -m venv --clear .docs-venv
	.docs-venv/bin/python $(PIP_INSTALL) --require-hashes -r docs/requirements.txt
	touch $@

# The size of the environment and what fills it.
size: install
	@du -sh .venv; du -sm .venv/lib/python*/site-packages/* | sort -rn | head -12

clean:
	rm -rf .venv .build-venv .clients-node .clients-venv .docs-venv .jobs-venv .tensorflow-gpu-venv .audit-venv .submitted \
	  dist demo

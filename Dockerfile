# The job as an image: `docker run --gpus all -v bucket:/data IMAGE [NUM_STEPS] [--setting value ...]`.
#
# The default base brings what the NVIDIA driver needs inside a container; CUDA's libraries are packages of
# requirements.txt. For machines without a GPU: --build-arg REQUIREMENTS=requirements-cpu.txt, on any base with apt.
# For drivers that run CUDA 11 and no more: --build-arg REQUIREMENTS=requirements-tensorflow-gpu.txt, on a base with
# CUDA 11, cuDNN 8 and Python 3.10, such as nvidia/cuda:11.8.0-cudnn8-runtime-ubuntu22.04.
ARG BASE_IMAGE=nvidia/cuda:12.9.1-base-ubuntu24.04

FROM ${BASE_IMAGE} AS build
# The pinned base decides the release; its archive keeps no older versions that a pin could name.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends python3 python3-venv \
 && rm -rf /var/lib/apt/lists/*
# What installs and builds; a base's own pip may be too old to install for another environment than its own.
COPY sdists/requirements.txt /build/sdists/requirements.txt
RUN --mount=type=cache,target=/root/.cache/pip \
    python3 -m venv /build/venv && /build/venv/bin/pip install --no-deps --require-hashes -r /build/sdists/requirements.txt

# The packages of the lock, without what runs no job: headers to compile against, and tests.
FROM build AS requirements
ARG REQUIREMENTS=requirements.txt
# Lists of packages that only some jobs need, such as EXTRAS='requirements-onnx.txt requirements-dask.txt'.
ARG EXTRAS=
COPY requirements*.txt /build/lists/
RUN --mount=type=cache,target=/root/.cache/pip \
    python3 -m venv --without-pip /opt/venv \
 && for list in $REQUIREMENTS $EXTRAS; do \
      /build/venv/bin/pip --python /opt/venv install --no-deps --no-compile --require-hashes -r "/build/lists/$list" \
        || exit 1; \
    done \
 && rm -rf /opt/venv/lib/python3*/site-packages/tensorflow/include \
 && find /opt/venv -type d -name tests -prune -exec rm -rf {} + \
 && /opt/venv/bin/python -m compileall -q -j 0 /opt/venv/lib

# object_detection and slim, built from the published source, and installed beside the packages.
FROM build AS sdists
COPY sdists/*.py sdists/source.txt /build/sdists/
RUN /build/venv/bin/python /build/sdists/build.py --out /opt/sdists \
 && /build/venv/bin/pip install --no-deps --no-build-isolation --target /opt/object_detection /opt/sdists/*.tar.gz

# What is in the image, as CycloneDX: scanners read it without running anything.
FROM sdists AS sbom
COPY --from=requirements /opt/venv /opt/venv
RUN PYTHONPATH=/opt/object_detection /build/venv/bin/cyclonedx-py environment --output-reproducible --of JSON \
    --output-file /build/sbom.cdx.json /opt/venv/bin/python

FROM ${BASE_IMAGE} AS job
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends python3 tini \
 && rm -rf /var/lib/apt/lists/*
COPY --from=requirements /opt/venv /opt/venv
COPY --from=sdists /opt/sdists /opt/sdists
COPY --from=sdists /opt/object_detection /opt/object_detection
COPY --from=sbom /build/sbom.cdx.json /opt/job/
COPY start.sh LICENSE README.md /opt/job/
COPY pipelines /opt/job/pipelines
COPY entrypoint /opt/job/entrypoint
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONPATH=/opt/job:/opt/object_detection \
    DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED=false \
    PYTHONDONTWRITEBYTECODE=1
# A new volume that is mounted here takes over the mode.
RUN mkdir --mode=0777 /data
# What was baked in works: every module can be imported, upstream's API among them, and the catalogue read.
RUN export MPLCONFIGDIR=/tmp/matplotlib \
 && python -m compileall -q /opt/job/entrypoint && /opt/job/start.sh models > /dev/null \
 && python -c "import object_detection.model_lib_v2, object_detection.exporter_lib_v2, nets, PIL, tenacity" \
 && rm -rf /tmp/matplotlib
# Which release this is: in --version, in job.json and in the labels. `make image` gives both.
ARG REVISION=unknown
ARG VERSION=unknown
RUN printf '%s\n' "$REVISION" > /opt/job/entrypoint/REVISION
LABEL org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.title="detection training job" \
      org.opencontainers.image.description="A bucket of labelled photos in, a trained object detector out" \
      org.opencontainers.image.licenses="Apache-2.0"
# Any other user works too: nothing outside of DATA_DIR, RESULT_DIR and WORK_DIR is written. Services that make folders
# as root and let nobody choose the user, as SageMaker does, want --build-arg JOB_USER=0:0.
ARG JOB_USER=10001:0
USER ${JOB_USER}
WORKDIR /opt/job
STOPSIGNAL SIGTERM
# tini passes SIGTERM on and reaps what the job leaves, with -s also where it is not the first process, as in Apptainer;
# services put their own words behind it, such as `train`.
ENTRYPOINT ["/usr/bin/tini", "-s", "--", "/opt/job/start.sh"]

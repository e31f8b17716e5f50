#!/usr/bin/env bash
# What a training service runs: start.sh [NUM_STEPS] [--setting value ...]; `start.sh --help` lists the settings.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export PYTHONPATH="$here${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1

# The first process of a container obeys only the signals that it handles. What it has started ends with it.
trap 'kill $(jobs -p) 2>/dev/null || true; exit 143' TERM INT HUP

# Training.zip brings its packages along as a list. Bash handles a signal while it waits, not while a program runs.
if [[ -f $here/install.sh ]]; then
  bash "$here/install.sh" &
  wait $! || { echo CACLI-TRAINING-FAILED; exit 1; }
fi

# An environment that `make install` made comes before the system's Python, which the image has.
python=$here/.venv/bin/python
[[ -x $python ]] || python=python3

# SageMaker runs `IMAGE train` and means the whole job; the step of that name is `python -m entrypoint train`.
[[ ${1-} != train ]] || shift

# Python looks for modules in the current folder first, and that can be the bucket: a `yaml.py` in it would be run. The
# folder is removed from the path before anything is imported, because Python 3.10 has no option that does it.
run='import sys; sys.path[:] = filter(None, sys.path); import runpy; runpy.run_module("entrypoint", None, "__main__", True)'
exec "$python" -c "$run" "$@"

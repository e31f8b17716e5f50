#!/usr/bin/env bash
# Installs the job's packages beside it, for services that run no image: in training.zip, start.sh runs this first.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
[[ ! -e $here/.venv/installed ]] || exit 0
# `python -m` looks for modules in the current folder first, which can be the user's bucket.
cd "$here"

python3 -c 'import sys; (3, 10) <= sys.version_info[:2] <= (3, 13) or sys.exit("Python 3.10 to 3.13 is needed")'
python3 -m venv --clear "$here/.venv"
pip=("$here/.venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps)
"${pip[@]}" --require-hashes -r "$here/requirements.txt"
"${pip[@]}" --no-build-isolation "$here"/dist/*.tar.gz
touch "$here/.venv/installed"

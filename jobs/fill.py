"""Fills in a manifest: `python3 jobs/fill.py jobs/kubernetes.yaml`. The values of its ${NAMES} are in the environment.

Prints the path of the filled manifest. It imports only the standard library, so that a machine that only submits jobs
needs no packages.
"""

from __future__ import annotations

import os
import string
import sys
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path

OUT = Path(".submitted")
# Characters that could end a string in JSON, YAML or the shell, so that the rest of a value is read as code.
FORBIDDEN = set("\"'`\\$\n")


def main(arguments: list[str]) -> int:
    """Writes the filled manifest into .submitted; returns 2 if it cannot be read or filled in."""
    try:
        path = Path(arguments[0])
        filled = fill(path.read_text(encoding="utf-8"), defaults() | os.environ)
    except (IndexError, OSError) as error:
        print(f"name a manifest, such as jobs/kubernetes.yaml ({error})", file=sys.stderr)
        return 2
    except ValueError as error:
        print(f"{path}: {error}", file=sys.stderr)
        return 2
    target = OUT / path.name
    target.parent.mkdir(exist_ok=True)
    # Only the owner may read a manifest, because it can contain the keys of a bucket.
    target.touch(mode=0o600)
    target.write_text(filled, encoding="utf-8")
    print(target)
    return 0


def defaults() -> dict[str, str]:
    """Returns the values of the optional names. The job's name contains the time of submission."""
    moment = datetime.now(timezone.utc).strftime("%Y%m%d-%H%M%S")
    model = "ssd_mobilenet_v2_fpnlite_320x320"
    return {"JOB_NAME": f"detector-{moment}", "NUM_STEPS": "auto", "MODEL": model, "PARTS": "16"}


def fill(manifest: str, values: Mapping[str, str]) -> str:
    """Returns the manifest with its names replaced; raises ValueError if values are missing or one is not allowed."""
    template = string.Template(manifest)
    names = template.get_identifiers() if hasattr(template, "get_identifiers") else identifiers(template)
    missing = [name for name in names if not values.get(name)]
    if missing:
        example = " ".join(f"{name}=..." for name in missing)
        raise ValueError(f"{', '.join(missing)} not given: make submit-... {example}")
    for name in names:
        if FORBIDDEN & set(values[name]):
            raise ValueError(f"{name}={values[name]!r} holds a quote, a backslash, a $ or a line break")
    return template.substitute(values)


def identifiers(template: string.Template) -> list[str]:
    """Returns the names in a template, in their order. From Python 3.11 on, Template has a method for this."""
    found = (match.group("named") or match.group("braced") for match in template.pattern.finditer(template.template))
    return list(dict.fromkeys(name for name in found if name))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

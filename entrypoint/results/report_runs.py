"""The runs in RESULT_DIR for the report: the rows of their table, and the sentence about the best of them.

Texts of earlier runs lay in a bucket where anybody may write. The page escapes them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone

from entrypoint.results.history import History, Run
from entrypoint.training import identity, resuming

MOST_WORDS = 6  # settings that differ


@dataclass(frozen=True)
class RunRow:
    """A run in the table."""

    number: int  # from 1, the oldest one
    date: str  # when the training ended, in UTC
    time: str
    run: Run
    is_now: bool
    is_comparable: bool  # whether it was measured on the same validation photos as this run
    differs: str  # what differs from this run


def rows(history: History) -> list[RunRow]:
    """Returns the runs, the newest first."""
    numbered = enumerate(history.runs, start=1)
    return [row(number, run, history.now) for number, run in numbered][::-1]


def row(number: int, run: Run, now: Run) -> RunRow:
    """Returns the row of a run, compared with the run of this job."""
    is_now = run.weights == now.weights
    differs = "this run" if is_now else differences(run, now)
    is_comparable = run.validation == now.validation
    return RunRow(number, f"{ended(run):%Y-%m-%d}", f"{ended(run):%H:%M}", run, is_now, is_comparable, differs)


def ended(run: Run) -> datetime:
    """Returns when the training of a run ended, in UTC."""
    return datetime.fromtimestamp(run.ended, timezone.utc)


def differences(run: Run, now: Run) -> str:
    """Returns in words what differs from the run of this job: photos, then settings with their values in that run."""
    words = []
    if run.validation != now.validation:
        words.append("other validation photos or boxes: mAP cannot be compared")
    elif run.data != now.data:
        words.append("other training photos or boxes")
    found = resuming.differences(run.settings, now.settings)
    settings = [setting(name, before) for name, (before, _) in found.items()]
    if len(settings) > MOST_WORDS:
        settings[MOST_WORDS:] = [f"{len(settings) - MOST_WORDS} more settings"]
    return "; ".join([*words, *settings]) or "nothing: the same settings and photos"


def setting(name: str, value: str) -> str:
    """Returns a setting with its value. Digests mean nothing to people, and the model has a column of its own."""
    if name == "MODEL":
        return "another model"
    if name in (identity.START, identity.CONFIG):
        return f"another {name}"
    return f"{name} {value}" if value == resuming.NOT_SET else f"{name}={value}"


def about_best(history: History) -> str:
    """Returns a sentence about the best run on the same validation photos; nothing if there is no other run on them."""
    now = history.now
    measured = [run for run in history.runs if run.validation == now.validation and run.map is not None]
    if len(measured) < 2 or now.map is None:
        return ""
    best = max(measured, key=lambda run: (run.map, run.weights == now.weights))
    if best.weights == now.weights:
        return f"This run has the highest mAP of the {len(measured)} runs on the same validation photos."
    return (
        f"Of the {len(measured)} runs on the same validation photos, that of {ended(best):%Y-%m-%d %H:%M} has the "
        f"highest mAP: MODEL={best.model}, {best.steps:,} steps, mAP {best.map:.3f}. The files in RESULT_DIR are those "
        "of the newest run."
    )

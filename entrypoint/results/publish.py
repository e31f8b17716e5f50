"""Finished files -> RESULT_DIR.

The manifest job.json is removed first and written last: if it is there, the results beside it are whole.
"""

from __future__ import annotations

import json

from entrypoint import workspace
from entrypoint.results import manifest, parity
from entrypoint.results.export import formats
from entrypoint.results.replaced import replaced_files
from entrypoint.system import bucket, copying, files
from entrypoint.training import checkpoints, events, last_job
from entrypoint.workspace import Workspace


def refuse_links(work: Workspace) -> None:
    """Raises UserError, before any work, if a link has the name of a file or folder that the job writes."""
    if not bucket.is_remote(work.results):
        paths = (work.label_map, work.pipeline, work.metrics, work.table, work.report, work.model_card, work.history)
        names = (
            *(path.name for path in paths),
            work.manifest.name,
            work.predictions.name,
            work.published_checkpoints.name,
            *formats.folders(),
            *(formats.format_of(name).place(work.settings) for name in work.settings.exports),
        )
        copying.refuse_links(work.results / name for name in names)


def run(work: Workspace) -> str:
    """Copies what the steps made into RESULT_DIR, the manifest last; returns a digest of the manifest.

    Raises:
        JobError: an export failed, or is not the model. All else is published by then.
    """
    steps = {
        work.label_map: "label_map",
        work.pipeline: "pipeline",
        work.metrics: "evaluate",
        work.report: "report",
        work.model_card: "report",
        work.history: "report",
    }
    for path, step in steps.items():
        workspace.existing(path, step)
    last_job.retract(work)
    published = [copying.copy_file(path, work.results / path.name) for path in steps]
    if work.table.exists():
        published.append(copying.copy_file(work.table, work.results / work.table.name))
    published += checkpoints.publish_all(work)
    published += copying.copy_tree(work.predictions, work.results / work.predictions.name)
    exports = parity.load(work)
    for each in formats.load(work):
        # An export that is not the model is worse than none.
        if exports[each.name].is_failure:
            continue
        published += copying.copy_tree(work.root / each.folder, work.results / each.place(work.settings))
    events.publish(work)
    names = sorted(path.relative_to(work.results).as_posix() for path in published)
    for path in replaced_files(work):
        if path not in published:
            bucket.remove(path)
    content = json.dumps({**manifest.describe(work), "files": names}, indent=1, default=str).encode()
    copying.write_file(work.manifest, content)
    bucket.remove(work.replaced)
    parity.refuse_failed(work)
    return files.digest(content.decode())

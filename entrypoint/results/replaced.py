"""The files of the last finished job in RESULT_DIR that this job does not write again."""

from __future__ import annotations

import re

from entrypoint.results.export import formats
from entrypoint.system import bucket
from entrypoint.system.bucket import Place
from entrypoint.training import last_job
from entrypoint.workspace import Workspace

# The files of a finished job, as this program names them. Checkpoints are not among them: they are removed when a newer
# one is there.
FILES = (
    r"label_map\.pbtxt|pipeline\.config|metrics\.json|report\.html|model_card\.md"
    r"|checkpoint/events/(?:plugins/profile/job/)?[^/\x00]+"
    r"|predictions/(?:detections|photos)\.json"
)


def replaced_files(work: Workspace) -> list[Place]:
    """Returns the files of the replaced job in RESULT_DIR.

    The manifest that names them lay in a bucket where anybody may write: only files below RESULT_DIR count, and only
    those that are named as this program names its own.
    """
    names = last_job.load_replaced(work).get("files")
    if not isinstance(names, list):
        return []
    root = work.results.resolve()
    pattern = re.compile(rf"{FILES}|(?:{'|'.join(formats.folders())})/[^\x00]+")
    ours = [name for name in names if isinstance(name, str) and pattern.fullmatch(name)]
    paths = [work.results / name for name in ours if not is_of_other_version(name, work)]
    with bucket.named_errors(root):
        return [path for path in paths if is_file_below(path, root)]


def is_of_other_version(name: str, work: Workspace) -> bool:
    """Returns whether a file belongs to a SERVING_VERSION that is not the one of this job.

    Such versions stay: TensorFlow Serving can load them beside the new one, or instead of it.
    """
    folders = "|".join(each.folder for each in map(formats.format_of, formats.NAMES) if each.is_versioned)
    found = re.match(rf"(?:{folders})/([1-9][0-9]*)/", name)
    return found is not None and found[1] != str(work.settings.serving_version)


def is_file_below(path: Place, root: Place) -> bool:
    """Returns whether a path is a file below a folder, links followed; a name that no file can have is not."""
    try:
        return path.resolve().is_relative_to(root) and path.is_file()
    except (OSError, RuntimeError):
        # Python raises RuntimeError for a loop of links.
        return False

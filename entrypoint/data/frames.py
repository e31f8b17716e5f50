"""The sizes and orientations of photos: from their headers, or as `check` left them in WORK_DIR."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from entrypoint.data import images
from entrypoint.data.formats.source import Files
from entrypoint.data.images import Frame
from entrypoint.system import bucket, display, documents, parallel
from entrypoint.system.bucket import Entry, Place
from entrypoint.system.errors import UserError
from entrypoint.workspace import Workspace, claim

logger = logging.getLogger("job")

HEAD = 1 << 16  # bytes: for most photos, fewer bytes contain the size and the orientation
# Returns size and orientation of each photo whose header can be read, by its key.
Measure = Callable[[list[str], Files], dict[str, Frame]]


@dataclass(frozen=True, slots=True)
class KnownPhoto:
    """A photo that was read, as it was then."""

    bytes: int  # of the file
    version: str  # see `bucket.Entry`
    frame: Frame | None  # None if the header cannot be read

    def is_of(self, entry: Entry) -> bool:
        """Returns whether the photo has not changed since."""
        return (self.bytes, self.version) == (entry.size, entry.version)


@dataclass(frozen=True)
class KnownPhotos:
    """What `check` leaves in WORK_DIR for the job that follows."""

    photos: dict[str, KnownPhoto]  # by key


def measure_headers(keys: list[str], files: Files) -> dict[str, Frame]:
    """Returns size and orientation of each photo whose header can be read."""

    def measure(key: str) -> tuple[str, Frame | None]:
        try:
            return key, measure_photo(files.root / key, files.root)
        except OSError as error:
            if error.errno not in bucket.FINAL:
                raise
            # The conversion reports why the photo cannot be read, and counts it.
            return key, None

    found = parallel.map_in_order(measure, keys, files.workers)
    return {key: frame for key, frame in display.progress(found, len(keys), "sizes of photos") if frame is not None}


def measure_photo(place: Place, root: Place) -> Frame | None:
    """Returns size and orientation of a photo, from its first bytes if they suffice; None for a file without a photo.

    Raises:
        OSError: the photo cannot be read; the error names the place.
    """
    head = bucket.read_head(place, HEAD, root)
    frame = images.read_frame(head)
    if frame is None and len(head) == HEAD:
        return images.read_frame(bucket.read(place, root, images.MOST_BYTES))
    return frame


def remembering(work: Workspace) -> Measure:
    """Returns a function like `measure_headers` that reads only photos that `check` has not read, or that changed."""

    def measure(keys: list[str], files: Files) -> dict[str, Frame]:
        known = load(work) if keys else {}
        same = {key: known[key] for key in keys if key in known and known[key].is_of(files.entries[key])}
        if same:
            logger.info("sizes of %d photos are those that `check` found", len(same))
        frames = measure_headers([key for key in keys if key not in same], files)
        return frames | {key: each.frame for key, each in same.items() if each.frame}

    return measure


def load(work: Workspace) -> dict[str, KnownPhoto]:
    """Returns the photos that `check` has read on the same WORK_DIR, by their keys; empty if there are none."""
    try:
        return documents.read(KnownPhotos, work.known_photos).photos
    except (FileNotFoundError, UserError):
        # Whatever it is, it can be read again from the photos.
        return {}


def keep(work: Workspace, frames: Mapping[str, Frame], keys: Iterable[str], entries: Mapping[str, Entry]) -> None:
    """Leaves what was read in WORK_DIR, unless another job uses it or it cannot be written to."""
    photos = {key: KnownPhoto(entries[key].size, entries[key].version, frames.get(key)) for key in keys}
    try:
        with claim(work):
            documents.write(work.known_photos, KnownPhotos(photos), is_large=True)
    except (UserError, OSError) as error:
        logger.info("the job will read the sizes of photos again: %s", error)

"""A conversion by the workers of a Dask cluster: a task is a shard, and what it needs lies in RECORDS_DIR.

Workers run the job's own image. Dask is not among the job's packages: requirements-dask.txt adds it.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from entrypoint.data import conversion, tf_record
from entrypoint.data.conversion import Conversion
from entrypoint.data.quality import Seen
from entrypoint.settings.schema import Settings
from entrypoint.system import bucket, display, documents, version
from entrypoint.system.bucket import Place
from entrypoint.system.errors import JobError, UserError

if TYPE_CHECKING:
    from distributed import Client

logger = logging.getLogger("job")

SECONDS_TO_CONNECT = 30
IMAGE = "start the workers with the job's own image"


def convert(scheduler: str, names: list[str], place: Place, settings: Settings, refuse: tf_record.Refuse) -> None:
    """Converts shards on the workers of a scheduler.

    Raises:
        UserError: the scheduler does not answer, a worker has another version of the job, or too many photos are lost.
        JobError: a shard ended its workers several times.
    """
    client = connect(scheduler)
    try:
        refuse_other_workers(client)
        skipped: dict[str, str] = {}
        found = outcomes(client, names, place, settings)
        for lost in display.progress(found, len(names), "shards"):
            skipped.update(lost)
            if len(skipped) > tf_record.MANY_LOST:
                refuse(skipped)
    finally:
        client.close()


def connect(scheduler: str) -> Client:
    """Returns a client of the scheduler.

    Raises:
        UserError: Dask is not installed, or the scheduler does not answer.
    """
    try:
        from distributed import Client
    except ImportError:
        raise UserError(
            "Dask is not installed: add it with `pip install --no-deps --require-hashes -r requirements-dask.txt`, or "
            "build the image with --build-arg EXTRAS=requirements-dask.txt"
        ) from None
    try:
        return Client(scheduler, timeout=SECONDS_TO_CONNECT, set_as_default=False)
    except (OSError, ValueError) as error:
        raise UserError(f"--scheduler {scheduler} does not answer ({error}): name the address that it logs") from None


def refuse_other_workers(client: Client) -> None:
    """Raises UserError, with the names of the workers, if a worker cannot run this version of the job."""
    found = client.run(version.describe, on_error="return")
    if not found:
        logger.warning("the scheduler has no worker yet; the conversion begins with the first one")
    wrong = {worker: words for worker, words in found.items() if words != version.describe()}
    if wrong:
        told = "; ".join(f"{worker} has {words}" for worker, words in sorted(wrong.items()))
        raise UserError(f"workers without version {version.describe()} of the job: {told}: {IMAGE}")
    profiled = [worker for worker, is_on in client.run(is_profiled, on_error="return").items() if is_on is True]
    if profiled:
        logger.warning(
            "%s: Dask's profiler can stop a worker for good on Python 3.11: start workers with "
            "DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED=false",
            ", ".join(sorted(profiled)),
        )


def is_profiled() -> bool:
    """Returns whether a worker runs where Dask's profiler can deadlock: cpython#106883, distributed#8616."""
    import dask

    return sys.version_info[:2] == (3, 11) and bool(dask.config.get("distributed.worker.profile.enabled"))


def outcomes(client: Client, names: list[str], place: Place, settings: Settings) -> Iterator[dict[str, str]]:
    """Yields for each shard, when it is done, the photos that cannot be used and why."""
    from distributed import KilledWorker, as_completed

    futures = [
        client.submit(convert_shard, str(place), name, str(settings.data_dir), settings.workers, pure=False)
        for name in names
    ]
    try:
        for future in as_completed(futures, loop=client.loop):
            yield future.result()
    except KilledWorker as error:
        raise JobError(
            f"{error}: the kernel kills a worker if memory runs out: give the workers more memory, or set WORKERS lower"
        ) from None
    except ImportError as error:
        raise UserError(f"a worker cannot run the job ({error}): {IMAGE}") from None
    finally:
        client.cancel(futures)


def convert_shard(place: str, name: str, root: str, workers: int) -> dict[str, str]:
    """Runs on a worker: converts a shard with `workers` threads; returns the photos that cannot be used, and why."""
    records, seen = bucket.parse(place), Seen()
    found = documents.read(Conversion, records / "conversion.json")
    conversion.refuse_other_job(found.job, records)
    for each in conversion.convert(records, name, found, bucket.parse(root), workers):
        seen.add(each)
    return seen.skipped

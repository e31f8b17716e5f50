"""`convert` writes the records into RECORDS_DIR, from which any number of jobs train.

One process converts all photos, or parts do: `convert --part 3/16` and so on in 16 processes, of which the last one
to end writes the manifest. With `--scheduler` the workers of a Dask cluster convert. What is done stays done.
"""

import logging

from entrypoint.data import annotations, conversion, shards, tf_record
from entrypoint.data.conversion import Conversion
from entrypoint.settings.command_line import Command
from entrypoint.settings.parts import Part
from entrypoint.settings.schema import Settings
from entrypoint.system import copying, lease
from entrypoint.system.bucket import Place
from entrypoint.system.errors import UserError

logger = logging.getLogger("job")


def run(command: Command) -> None:
    """Converts what is not done yet, and writes the manifest when all is done.

    Raises:
        UserError: the settings, the photos or RECORDS_DIR are not fit for it.
    """
    settings = command.settings
    place = conversion.records_dir(settings)
    annotations.refuse_missing_bucket(settings.data_dir)
    lease.make_writable("RECORDS_DIR", place)
    copying.write_below([place])
    if command.part:
        convert_part(command.part, place, settings)
        return
    beginning = conversion.begin(settings)
    found = beginning.conversion
    names = conversion.left(place, found)
    logger.info("%d of %d shards are done", len(found.shards) - len(names), len(found.shards))

    def refuse(skipped: dict[str, str]) -> None:
        tf_record.refuse_losses(beginning.dataset, skipped, settings.max_skipped)

    if command.scheduler:
        from entrypoint.data import dask_workers

        dask_workers.convert(command.scheduler, names, place, settings, refuse)
    else:
        convert_here(names, found, place, settings, refuse)
    conversion.finish(place, beginning, settings)


def convert_part(part: Part, place: Place, settings: Settings) -> None:
    """Converts the shards of a part on this machine. The first part to come reads the bucket for all."""
    found = conversion.read(place, settings) or conversion.begin(settings).conversion
    photos = sum(each.photos for each in found.shards.values())

    def refuse(skipped: dict[str, str]) -> None:
        if len(skipped) > settings.max_skipped * photos:
            raise UserError(tf_record.tell_losses(len(skipped), photos, {}, skipped, settings.max_skipped))

    own = set(list(found.shards)[part.index :: part.total])
    names = [name for name in conversion.left(place, found) if name in own]
    logger.info("part %s: %d of its %d shards are done", part, len(own) - len(names), len(own))
    convert_here(names, found, place, settings, refuse)
    # Each part writes its facts before it looks, so the last one sees them all.
    if waiting := conversion.left(place, found):
        logger.info("part %s is done; %d shards of other parts are not", part, len(waiting))
    else:
        conversion.finish(place, conversion.begin(settings), settings)


def convert_here(
    names: list[str], found: Conversion, place: Place, settings: Settings, refuse: tf_record.Refuse
) -> None:
    """Converts shards on this machine, WRITERS at a time."""
    threads = max(1, settings.workers // shards.WRITERS)
    runs = [conversion.convert(place, name, found, settings.data_dir, threads) for name in names]
    tf_record.collect(runs, sum(found.shards[name].photos for name in names), refuse)

"""The conversion on many machines: `python -m entrypoint.beam --records_dir PLACE [--setting value ...] [Beam's own]`.

This Apache Beam pipeline reads the photos of DATA_DIR and writes into RECORDS_DIR the shards, their manifest and the
checked annotations. The job uses these files and converts nothing itself. The pipeline calls the same function for a
photo as the job's own step. Without options of Beam it runs on this machine. `--runner=DataflowRunner`, `FlinkRunner`
and `SparkRunner` have further options, and then DATA_DIR and RECORDS_DIR must be addresses that all machines can reach.
"""

import dataclasses
import functools
import json
import logging
import os
import sys
from collections.abc import Sequence
from typing import Any

from entrypoint.data import annotations, examples, images, tf_record
from entrypoint.data.annotations import Dataset, LabelledImage
from entrypoint.data.examples import Converted
from entrypoint.data.quality import Seen
from entrypoint.data.records import Shard
from entrypoint.data.split import split
from entrypoint.settings import command_line, environment
from entrypoint.settings.schema import Settings
from entrypoint.system import bucket, documents, files, logs
from entrypoint.system.errors import JobError, UserError, explain
from entrypoint.zoo import input_size

logger = logging.getLogger("job")

Parts = dict[str, list[LabelledImage]]


def main(arguments: Sequence[str]) -> int:
    """Converts the photos and returns the exit code: 0 done, 2 the user can mend it, 1 other errors."""
    logs.configure()
    # Beam starts Python programs. They must not look for modules in the current folder, which can be the bucket.
    os.environ.setdefault("PYTHONSAFEPATH", "1")
    try:
        values, options = command_line.load_with_others(arguments)
        run(values, options)
    except JobError as error:
        logger.error("%s", error)  # noqa: TRY400 - the message is complete without a traceback
        return error.exit_code
    except Exception as error:
        logger.error("%s", explain(error))  # noqa: TRY400
        return JobError.exit_code
    return 0


def run(values: Settings, options: list[str]) -> None:
    """Writes the files of RECORDS_DIR, the manifest last. `options` are the options of Beam.

    Raises:
        UserError: RECORDS_DIR is not set or not empty, Beam is not installed, or the bucket cannot be converted.
    """
    if values.records_dir is None:
        raise UserError("RECORDS_DIR is missing: set it to the folder, or the address, for the records")
    if bucket.matching(values.records_dir, "*"):
        raise UserError(f"RECORDS_DIR={values.records_dir} is not empty: name another place, or remove what is there")
    refuse_missing_beam()
    environment.prepare(values)
    dataset = annotations.read_bucket(values, exclude=values.result_dir)
    parts = split(dataset.images, values.validation_fraction, values.seed)
    totals = {
        name: tf_record.shard_count(sum(image.bytes for image in part), len(part)) for name, part in parts.items()
    }
    tf_record.refuse_losses(dataset, {}, values.max_skipped)
    convert_all(dataset, parts, totals, values, options)
    seen = collect(values)
    tf_record.judge(dataset, parts, seen, values.max_skipped)
    shards = {
        name: tuple(Shard(f"{name}-{index:05d}-of-{total:05d}.tfrecord") for index in range(total))
        for name, total in totals.items()
    }
    manifest = tf_record.describe(dataset, parts, seen, shards, values)
    write(values, "dataset.json", "".join(files.pieces(dataset)) + "\n")
    write(values, "manifest.json", files.to_json(documents.to_plain(manifest)))
    tf_record.log_counts(manifest)


def refuse_missing_beam() -> None:
    """Raises UserError if Apache Beam is not installed."""
    try:
        import apache_beam  # noqa: F401
    except ImportError:
        raise UserError(
            "Apache Beam is not installed. Only this conversion needs it: make an environment for it with "
            "`pip install --no-deps --require-hashes -r requirements-beam.txt`"
        ) from None


def convert_all(dataset: Dataset, parts: Parts, totals: dict[str, int], values: Settings, options: list[str]) -> None:
    """Runs the pipeline to its end. It writes `*.tfrecord`, and the outcome for each photo as a line of JSON."""
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions

    storage = input_size.storage(values)
    convert = functools.partial(
        examples.convert,
        root=values.data_dir,
        ids={label: index for index, label in enumerate(dataset.labels, start=1)},
        shrink=storage.shrink if storage else images.keep_size,
    )
    with beam.Pipeline(options=PipelineOptions(options)) as pipeline:
        for name, total in totals.items():
            if not total:
                continue
            # If the graph held the list of photos, it would be too large for some runners.
            write(values, f"photos/{name}.jsonl", "".join(f"{to_line(image)}\n" for image in parts[name]))
            converted = (
                pipeline
                | f"{name}: list" >> beam.io.ReadFromText(place(values, f"photos/{name}.jsonl"))
                | f"{name}: spread" >> beam.Reshuffle()
                | f"{name}: convert" >> beam.Map(lambda line: convert(annotations.of_json(line)))
            )
            _ = (
                converted
                | f"{name}: usable" >> beam.Filter(lambda each: each.example is not None)
                | f"{name}: example" >> beam.Map(lambda each: each.example)
                | f"{name}: write"
                >> beam.io.WriteToTFRecord(place(values, name), file_name_suffix=".tfrecord", num_shards=total)
            )
            _ = (
                converted
                | f"{name}: facts" >> beam.Map(lambda each: to_line(dataclasses.replace(each, example=None)))
                | f"{name}: note" >> beam.io.WriteToText(place(values, f"facts/{name}"), file_name_suffix=".jsonl")
            )


def to_line(item: LabelledImage | Converted) -> str:
    """Returns a photo, or the outcome of its conversion, as JSON without a line break."""
    return files.encoder().encode(item)


def collect(values: Settings) -> Seen:
    """Returns the outcomes that the pipeline has written for all photos."""
    from apache_beam.io.filesystems import FileSystems

    seen = Seen()
    for found in FileSystems.match([place(values, "facts/*.jsonl")])[0].metadata_list:
        with FileSystems.open(found.path) as file:
            for line in file.read().decode().splitlines():
                seen.add(to_converted(json.loads(line)))
    return seen


def to_converted(document: dict[str, Any]) -> Converted:
    """Returns the outcome that `to_line` has written for a photo."""
    photo = document["photo"]
    facts = images.Facts(**{**photo, "changes": tuple(photo["changes"])}) if photo else None
    return Converted(document["key"], None, document["skipped"], facts)


def write(values: Settings, name: str, text: str) -> None:
    """Writes a file of RECORDS_DIR with Beam's file systems, as the pipeline does."""
    from apache_beam.io.filesystems import FileSystems

    with FileSystems.create(place(values, name), "application/json") as file:
        file.write(text.encode(errors="replace"))


def place(values: Settings, name: str) -> str:
    """Returns the path or address of a file of RECORDS_DIR in the form that Beam expects."""
    return f"{str(values.records_dir).rstrip('/')}/{name}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

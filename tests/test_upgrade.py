"""A job that runs while the code is updated goes on: records, split, ids and identities stay what they were."""

from __future__ import annotations

import hashlib
import json
import random
import struct
import zlib
from pathlib import Path

from entrypoint import job, workspace
from entrypoint.training import train
from entrypoint.workspace import Workspace
from tests.conftest import make_settings

# Printed by commit 7e34242, whose modules lay in one folder, for the bucket below and the settings of the test.
RECORDS = "5e5722dca2ddced70edfc59711e61a53228d7cc9e2db8a35de4e4b824bb84300"
OUTPUTS = {
    "annotations": "ab7479f3b21c967fd25fab122b268a0b79193a40b77e420c444336dbb40c68a6",
    "label_map": "42f3a17c1f9ed590d5df247bdd26bb589b727bafa9eabc91fd1677ee9c219bf3",
    "tf_record": "cf7a7e88f84255ee0377bf3a5c976fc7a516013fea34500f991382cf46e704ae",
    "checkpoint": "none",
    "pipeline": "106760d0af44544a3b47914b401cbc80cc6d88a2bc7d3ca1977adf7cf9e4e82c",
}
IDENTITY = "fda48fdfe54c353c7815c229d00206a4d42571852e4fa62260c16527b360d5d5"


def png(seed: int, width: int = 64, height: int = 48) -> bytes:
    """A PNG of noise whose bytes no library's version decides: the pixels are not compressed."""
    noise = random.Random(seed).randbytes(width * height * 3)
    rows = b"".join(b"\0" + noise[start : start + width * 3] for start in range(0, len(noise), width * 3))
    stored = b"\x78\x01\x01" + struct.pack("<HH", len(rows), len(rows) ^ 0xFFFF) + rows
    stored += struct.pack(">I", zlib.adler32(rows))

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", stored) + chunk(b"IEND", b"")


def draw(folder: Path) -> None:
    """Twelve photos of three labels, with boxes to repair, a photo without objects, and a name that is not ASCII."""
    folder.mkdir()
    rng = random.Random(7)
    boxes = {}
    for index in range(12):
        name = f"ä photo {index}.png"
        (folder / name).write_bytes(png(index))
        x, y = rng.random() / 2, rng.random() / 2
        box = {"label": ("cat", "dog", "owl")[index % 3], "x": x, "y": y, "x2": x + 0.4, "y2": y + 0.3}
        boxes[name] = [box, {**box, "x": 1.2, "x2": 0.7}] if index else [{"label": "Negative"}]
    document = {"version": "1.0", "type": "localization", "labels": ["owl", "cat"], "annotations": boxes}
    (folder / "_annotations.json").write_text(json.dumps(document))


def test_records_and_identities_are_those_of_the_release_before(tmp_path: Path) -> None:
    draw(tmp_path / "bucket")
    # That release cut any number of boxes to their photos.
    work = Workspace(make_settings(tmp_path, model="smoke", num_steps=5, max_repaired=1))
    with workspace.claim(work):
        for step in job.PLAN:
            if step.name in OUTPUTS:
                job.run_unless_done(step, work)
    digest = hashlib.sha256()
    for path in sorted(work.records.glob("*.tfrecord")):
        digest.update(path.name.encode() + path.read_bytes())
    assert digest.hexdigest() == RECORDS
    assert {name: workspace.output_of(name, work) for name in OUTPUTS} == OUTPUTS
    assert train.identify(work) == IDENTITY

"""Which photos are trained on and which are kept for validation: a function of keys, labels and the seed alone."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict

from entrypoint.data.annotations import LabelledImage

SPLITS = ("train", "validation")


def split(photos: list[LabelledImage], fraction: float, seed: int) -> dict[str, list[LabelledImage]]:
    """Returns the photos for training and for validation, each in an order that only key and seed decide.

    A photo is for validation if the hash of its key, as a number from 0 to 1, lies below the fraction. It stays there
    when photos are added, and every label comes near its fraction. A label without a photo in validation gets the one
    of its lowest hash, and a label without a photo to train on keeps the one of its highest hash; these few can change
    sides when photos of that label are added. A split that the bucket itself has stays as it is.
    """
    ranked = sorted(photos, key=lambda image: (rank(image.key, seed), image.key))
    if any(image.part for image in ranked):
        return {name: [image for image in ranked if image.part == name] for name in SPLITS}
    chosen = {image.key for image in ranked if rank(image.key, seed) < fraction}
    by_label: dict[str, list[str]] = defaultdict(list)
    for image in ranked:
        for label in sorted({box.label for box in image.boxes}):
            by_label[label].append(image.key)
    if fraction > 0:
        for _, keys in sorted(by_label.items()):
            if len(keys) > 1 and chosen.isdisjoint(keys):
                chosen.add(keys[0])
        for _, keys in sorted(by_label.items()):
            if chosen.issuperset(keys):
                chosen.discard(keys[-1])
    return {
        "train": [image for image in ranked if image.key not in chosen],
        "validation": [image for image in ranked if image.key in chosen],
    }


def rank(key: str, seed: int) -> float:
    """Returns a number from 0 to 1 that looks random and depends on key and seed alone.

    A key need not be UTF-8: its bytes are hashed.
    """
    return int.from_bytes(hashlib.sha256(f"{seed} ".encode() + os.fsencode(key)).digest()[:8], "big") / 2**64

"""Finds objects with MediaPipe's ObjectDetector: `python mediapipe_detect.py MODEL PHOTO ...`, a line of JSON each.

It needs MediaPipe alone, and nothing of this project.
"""

import json
import sys

import mediapipe
from mediapipe.tasks.python import BaseOptions, vision


def main(model: str, photos: list[str]) -> None:
    """Prints for each photo its detections: [label, score, left, top, width, height], in pixels."""
    options = vision.ObjectDetectorOptions(base_options=BaseOptions(model_asset_path=model), score_threshold=0.01)
    with vision.ObjectDetector.create_from_options(options) as detector:
        for photo in photos:
            found = detector.detect(mediapipe.Image.create_from_file(photo)).detections
            print(json.dumps([as_list(each) for each in found]))


def as_list(detection: vision.ObjectDetectorResult) -> list[object]:
    """Returns a detection as a list."""
    # The best label of a box comes first.
    category, box = detection.categories[0], detection.bounding_box
    return [category.category_name, category.score, box.origin_x, box.origin_y, box.width, box.height]


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])

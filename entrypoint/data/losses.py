"""Why an annotated photo cannot be used, and what a user can do about it. Each such photo counts for MAX_SKIPPED."""

from __future__ import annotations

MISSING = "photo missing in the bucket, skipped"
OUTSIDE = "photo outside of the bucket, skipped"
DAMAGED = "file of annotations is damaged, skipped"
ENCODING = "file of annotations is in no encoding that it names, skipped"
SEVERAL = "several photos fit to one annotation, none taken"
REPEATED = "photo listed more than once with different boxes, left out"
SAME_ID = "photo that shares its image id with another one, left out"
TURNED = "photo on its side whose boxes fit before and after it was turned, left out"
SIZE = "photo of another size than its annotations say, left out"
CLASS = "class that the list of labels does not have, photo left out"
WORDS = "line with a wrong number of words, photo left out"
NO_SCORE = "line with a sixth number that is no score, photo left out"
NUMBERS = "line with a word that is no number, photo left out"
LABEL = "box without a label, photo left out"
CORNERS = "box with a corner missing or no number, photo left out"
NO_BOX = "annotation that is no box, photo left out"
UNUSABLE = "photo without a usable box, skipped"

EXPORT = "export the annotations again"
# What is lost -> how to mend it. An object that was drawn and cannot be read must not be trained on as background.
MENDS = {
    MISSING: "put the photos into the bucket under the names that the annotations have",
    OUTSIDE: "put the photos into the bucket itself",
    DAMAGED: EXPORT,
    ENCODING: "save the files as UTF-8, or declare their encoding",
    SEVERAL: "give each photo a name of its own, or keep pictures that are no photos elsewhere",
    REPEATED: "export each photo once, with a name and an id of its own",
    SAME_ID: "export with an image id for each photo: nobody knows on which of them a box was drawn",
    TURNED: "export the annotations with the sizes of the upright photos",
    SIZE: "put the photos into the bucket at the size at which they were annotated, or correct the size",
    CLASS: "use the list of labels that the boxes were drawn with",
    WORDS: "YOLO has a class and four numbers on a line, or corners of a polygon; DOTA has eight numbers and a class",
    NO_SCORE: "export boxes without rotation, or the corners of rotated ones: nobody knows how an angle was counted",
    NUMBERS: "put numbers with blanks between them on each line, and a class where the format has it",
    LABEL: "give each box a label",
    CORNERS: EXPORT,
    NO_BOX: "draw boxes",
    UNUSABLE: "draw boxes within the photos",
}

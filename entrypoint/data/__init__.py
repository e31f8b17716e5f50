"""From the bucket to the records: annotations in every format, boxes, photos, the split, TFRecords, data quality.

Nothing in here knows a model, beyond the size of its input.
"""

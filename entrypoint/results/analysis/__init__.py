"""Where a model fails: thresholds, errors by kind and size, calibration, and labels that look wrong.

`analyse` is what other modules call; `document` holds the types of its result.
"""

from entrypoint.results.analysis.analysis import analyse as analyse
from entrypoint.results.analysis.document import Analysis as Analysis

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from entrypoint.system import logs


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.4, "0 s"), (99, "99 s"), (100, "2 min"), (5400, "90 min"), (12_000, "3 h 20 min")]
)
def test_time_is_in_words(seconds: float, words: str) -> None:
    assert logs.time_in_words(seconds) == words


def test_progress_in_a_log_estimates_the_time_that_is_left(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0

    def items() -> Iterator[int]:
        nonlocal now
        for item in range(100):
            now += 2.0
            yield item

    monkeypatch.setattr("entrypoint.system.logs.time.monotonic", lambda: now)
    with caplog.at_level(logging.INFO):
        assert list(logs.progress(items(), 100, "photos")) == list(range(100))
    assert caplog.messages[0] == "photos: 3 of 100, about 3 min left"
    assert caplog.messages[-1] == "photos: 99 of 100, about 2 s left"

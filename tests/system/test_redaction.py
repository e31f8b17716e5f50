from __future__ import annotations

from entrypoint.system.redaction import redact


def test_credentials_are_redacted() -> None:
    assert redact("https://user:pass@host/zoo/") == "https://***@host/zoo/"
    assert redact("https://user:p@ss@host/zoo/") == "https://***@host/zoo/"
    assert redact("https://host/a.tar.gz?X-Signature=abc") == "https://host/a.tar.gz?***"
    assert redact("Max retries for url: /a?X-Signature=abc (timed out)") == ("Max retries for url: /a?*** (timed out)")

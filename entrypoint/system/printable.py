"""Text from outside is made fit for a log, a terminal and a service: one line, without marks and without credentials.

A label, a file name or the words of a server can hold anything: line breaks that forge a line of the log, control
characters that move a terminal's cursor, marks that reverse the order of characters, or the very words by which a
service recognises success.
"""

from __future__ import annotations

import re

# The marks that change the order of characters (Unicode Standard Annex 9).
BIDIRECTIONAL = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
# Control characters, separators of lines and of paragraphs, and lone surrogates.
UNFIT = (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029, *range(0xD800, 0xE000))
ESCAPES = {
    code: chr(code).encode("unicode_escape", "surrogatepass").decode() for code in (*UNFIT, *map(ord, BIDIRECTIONAL))
}
# The words that services read in a log. Only the job itself may print them.
MARKS = re.compile(r"(?<=CACLI)-(?=TRAINING)|(?<=tensorflow):(?=loss)", re.IGNORECASE)
USER = re.compile(r"(?<=://)[^\s'\"]*@")
QUERY = re.compile(r"(://[^\s?#;'\"]*)[?#;][^\s'\"]+")
SIGNED = re.compile(r"\?[^\s'\"]*=[^\s'\"]*")


def printable(text: object) -> str:
    """Returns a text from outside as one line: unfit characters escaped, marks broken, credentials removed."""
    escaped = redact(str(text)).translate(ESCAPES)
    return MARKS.sub(lambda match: f"\\x{ord(match[0]):02x}", escaped)


def redact(text: str) -> str:
    """Returns a text without the user names, passwords, signed queries and fragments of the addresses in it."""
    return SIGNED.sub("?***", QUERY.sub(r"\1?***", USER.sub("***@", text)))


class Lines(tuple[str, ...]):
    """Lines of a log that the job itself broke; each is made printable by itself."""

    __slots__ = ()

    def __str__(self) -> str:
        return "\n".join(map(printable, self))

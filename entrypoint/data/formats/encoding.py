"""Text that other programs wrote is decoded without loss, or the file and the byte are named."""

from __future__ import annotations

import codecs
import re
from pathlib import PurePosixPath

from entrypoint.system.bucket import Place
from entrypoint.system.errors import UserError

# The mark of UTF-32 begins with that of UTF-16.
MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
DECLARATION = re.compile(rb"""^\s*<\?xml[^>]*?encoding\s*=\s*["']([\w.:-]+)["']""")
# GB 18030 has all characters of the older encodings at the same bytes.
WIDER = {"gb2312": "gb18030", "gbk": "gb18030", "cp936": "gb18030"}


def decode(content: bytes, place: Place | PurePosixPath) -> str:
    """Returns a text in UTF-8, or in what its byte order mark says.

    Raises:
        UserError: the text is in another encoding; the message names the byte.
    """
    try:
        return content.decode(marked(content) or "utf-8")
    except UnicodeError as error:
        raise UserError(f"{place} is not UTF-8 ({where(content, error)}): save it in the encoding UTF-8") from None


def decode_xml(content: bytes) -> str:
    """Returns an XML document in the encoding that its byte order mark or its declaration names, otherwise in UTF-8.

    Raises:
        UnicodeError: the document is in another encoding.
        LookupError: Python does not know the declared encoding.
    """
    declared = DECLARATION.match(content)
    name = marked(content) or (codecs.lookup(declared[1].decode("ascii")).name if declared else "utf-8")
    return content.decode(WIDER.get(name, name))


def marked(content: bytes) -> str | None:
    """Returns the encoding that the byte order mark of a text names, or None without a mark."""
    return next((name for mark, name in MARKS if content.startswith(mark)), None)


def where(content: bytes, error: UnicodeError) -> str:
    """Returns the line and the byte at which the decoding of a content failed."""
    start = error.start if isinstance(error, UnicodeDecodeError) else 0
    line = content.count(b"\n", 0, start) + 1
    return f"line {line}, byte {start}: 0x{content[start : start + 1].hex()}"

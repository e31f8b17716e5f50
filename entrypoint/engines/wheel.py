"""For which GPUs the installed TensorFlow has code, read from its files: it is not imported for that."""

from __future__ import annotations

import ast
import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Capability = tuple[int, int]  # a compute capability, such as 8 and 9

# The module in the package that TensorFlow's build writes, and the entry of its dictionary.
BUILD_INFO = "python/platform/build_info.py"
CAPABILITIES = "cuda_compute_capabilities"


@dataclass(frozen=True)
class Code:
    """The compute capabilities that a build of TensorFlow has code for.

    A GPU runs the binary code for its own major version up to its minor version, and compiles the intermediate code
    (PTX) of any capability up to its own (CUDA C++ Programming Guide, "Binary Compatibility", "PTX Compatibility").
    """

    binary: tuple[Capability, ...] = ()
    intermediate: tuple[Capability, ...] = ()

    def runs_on(self, gpu: Capability) -> bool:
        """Returns whether there is binary code for a GPU."""
        return any(major == gpu[0] and minor <= gpu[1] for major, minor in self.binary)

    def can_be_compiled_for(self, gpu: Capability) -> bool:
        """Returns whether there is intermediate code that the driver can compile for a GPU."""
        return any(each <= gpu for each in self.intermediate)


def read() -> Code | None:
    """Returns what the installed TensorFlow has code for, or None if it does not say."""
    found = importlib.util.find_spec("tensorflow")
    place = Path(found.origin).parent / BUILD_INFO if found and found.origin else None
    return parse(place.read_text(encoding="utf-8")) if place and place.is_file() else None


def parse(module: str) -> Code | None:
    """Returns the capabilities in the text of TensorFlow's module, or None if it has none.

    An entry is `sm_89` for binary code, or `compute_90` for binary and intermediate code (TensorFlow's configure.py).
    """
    try:
        nodes = list(ast.walk(ast.parse(module)))
    except SyntaxError:
        return None
    for entries in filter(None, map(entries_of, nodes)):
        binary = tuple(capability for _, capability in entries)
        return Code(binary, tuple(capability for kind, capability in entries if kind == "compute"))
    return None


def entries_of(node: ast.AST) -> list[tuple[str, Capability]]:
    """Returns the entries in the pair ('cuda_compute_capabilities', [...]); an empty list for any other expression."""
    try:
        value: Any = ast.literal_eval(node) if isinstance(node, ast.Tuple) else None
    except ValueError:
        return []
    if not (isinstance(value, tuple) and len(value) == 2 and value[0] == CAPABILITIES and isinstance(value[1], list)):
        return []
    found = [re.fullmatch(r"(sm|compute)_(\d+)(\d)[a-z]?", str(each)) for each in value[1]]
    return [(each[1], (int(each[2]), int(each[3]))) for each in found if each]

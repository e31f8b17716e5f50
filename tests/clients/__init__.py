"""Programs of the exports' real clients, each run in an environment with the client's own packages."""

import json
import subprocess
from pathlib import Path
from typing import Any

from tests.conftest import ROOT, environment

CLIENTS = Path(__file__).parent


def run_node(program: str, *arguments: object) -> list[Any]:
    """Runs a program of this folder in Node with the packages of package.json; returns the JSON that it prints."""
    env = {**environment(), "NODE_PATH": str(ROOT / ".clients-node" / "node_modules")}
    command = ["node", str(CLIENTS / program), *map(str, arguments)]
    result = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    return [json.loads(line) for line in result.stdout.splitlines() if line.startswith(("[", "{"))]

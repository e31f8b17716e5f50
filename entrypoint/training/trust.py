"""Trust on first use: an archive that was downloaded for the last job in RESULT_DIR must not have changed since.

The zoo publishes no hashes. The manifest of a finished job, job.json, holds the address and the SHA-256 of its archive,
and the next download of that address is compared with it.
"""

from __future__ import annotations

import logging

from entrypoint.system.errors import UserError
from entrypoint.training import last_job
from entrypoint.workspace import Workspace

logger = logging.getLogger("job")


def refuse_changed(address: str, sha256: str, work: Workspace) -> None:
    """Checks a downloaded archive against the last job in RESULT_DIR.

    Raises:
        UserError: the last job downloaded another archive from this address.
    """
    noted = noted_sha256(address, work)
    if noted is None:
        logger.info(
            "checkpoint: %s has SHA-256 %s; job.json will note it, and the next download is compared with it "
            "(CHECKPOINT_SHA256 pins it)",
            address,
            sha256,
        )
    elif noted != sha256:
        raise UserError(
            f"{address} has SHA-256 {sha256}, and the job.json of the last job in RESULT_DIR has {noted}: the archive "
            f"changed on its server. If that is right, set CHECKPOINT_SHA256={sha256}"
        )


def noted_sha256(address: str, work: Workspace) -> str | None:
    """Returns the SHA-256 that the last job in RESULT_DIR noted for an address, or None."""
    start = last_job.load(work).get("start")
    if not isinstance(start, dict) or start.get("archive") != address:
        return None
    return str(start.get("archive_sha256"))

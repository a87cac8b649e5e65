"""What an operator's gateway asks of the pipeline: ``python -m pipeline purge|rebuild``.

The task is read from standard input and the answer written to standard output, both JSON. The
three roots are those of the tasks: ``INGEST_LANDING_DIR``, ``INGEST_STAGED_DIR``,
``INGEST_CURATED_DIR``. Exit codes: 0 done, 1 failed (the answer says why), 2 usage.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from pipeline import purge, rebuild
from pipeline.delivery import ConfError
from pipeline.errors import DeliveryError

TASKS = {"purge": purge.run, "rebuild": rebuild.run}


def main(words: list[str]) -> int:
    """Do what is asked for."""
    if len(words) != 1 or words[0] not in TASKS:
        sys.stderr.write("usage: python -m pipeline purge|rebuild < task.json\n")
        return 2
    try:
        answer: dict[str, Any] = TASKS[words[0]](json.load(sys.stdin), os.environ)
        code = 0
    except (ConfError, DeliveryError, OSError, rebuild.ChangedError) as error:
        answer, code = {"error": str(error)}, 1
    json.dump(answer, sys.stdout)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""What schemathesis is taught: ids that exist, and words that no answer may hold.

Loaded by ``st run`` itself (``SCHEMATHESIS_HOOKS``); the facts come from the file that
``SCHEMA_FACTS`` names: ``{"ids": {parameter: [...]}, "foreign": [...]}``.
"""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import schemathesis

FACTS = json.loads(Path(os.environ["SCHEMA_FACTS"]).read_text())


@schemathesis.hook
def map_path_parameters(context: Any, path_parameters: dict[str, Any] | None) -> Any:
    """Ask mostly for what is there, the caller's own or another's: made-up ids end at the door."""
    found = dict(path_parameters or {})
    for name, value in found.items():
        draw = random.Random(repr(value))  # the same case asks for the same thing again
        known = FACTS["ids"].get(name)
        if known and draw.random() < 0.8:
            found[name] = draw.choice(known)
    return found


@schemathesis.serializer("application/offset+octet-stream")
def as_it_is(context: Any, value: Any) -> Any:
    """Send an upload's bytes as they were drawn."""
    return value if isinstance(value, bytes) else str(value).encode()


@schemathesis.check
def no_foreign_data(context: Any, response: Any, case: Any) -> None:
    """Fail when an answer tells anything of the other client."""
    told = response.text + json.dumps(dict(response.headers), default=str)
    sent = json.dumps([case.path_parameters, case.query], default=str)
    for word in FACTS["foreign"]:
        # What the caller said itself may be repeated to it.
        assert word not in told or word in sent, f"{word} is another client's"

"""Which delivery a run works on: validated ids, and the places that follow from them.

Every path is made here, and only from names that match their pattern in full. The landing zone is
opened one directory at a time without following links, and never written.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import unicodedata
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from pipeline.errors import DeliveryError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

CONF_CONTRACT = 1
RUN_PREFIX = "gw."
MAX_NAME_BYTES = 255
_PATTERNS = {
    "job_id": re.compile(r"job_[0-9a-z]{10,40}"),
    "batch_id": re.compile(r"bat_[0-9a-z]{10,40}"),
    "client": re.compile(r"[a-z][a-z0-9-]{1,30}"),
    "project": re.compile(r"[a-z][a-z0-9_-]{0,62}"),
}
_CONF_KEYS = {"contract", *_PATTERNS, "attempt"}


# What a person reads in the log of a run that they have started by hand.
BY_HAND = (
    "This run was started by hand, so it is for no job and nothing is loaded. Deliveries are loaded"
    " by runs that the gateway starts; to have a batch processed again, ask the gateway for a replay."
)


class ConfError(Exception):
    """The run's conf is not one that the gateway made for this DAG."""


@dataclass(frozen=True)
class Delivery:
    """One job's work on one sealed batch, and the three roots it touches."""

    job_id: str
    batch_id: str
    client: str
    project: str
    attempt: int
    landing: Path
    staged: Path
    curated: Path

    def __post_init__(self) -> None:
        for name, pattern in _PATTERNS.items():
            if not pattern.fullmatch(getattr(self, name)):
                msg = f"{name} is not a valid id"
                raise ConfError(msg)

    @property
    def landed(self) -> tuple[str, ...]:
        """Directories from the landing root down to the batch."""
        return (self.client, self.project, self.batch_id)

    @property
    def staged_dir(self) -> Path:
        """Where this job keeps what it unpacks and writes."""
        return self.staged.joinpath(*self.landed, self.job_id)

    @property
    def curated_dir(self) -> Path:
        """Where the project's tables lie."""
        return self.curated / self.client / self.project


def read_conf(
    conf: Any, *, client: str, project: str, run_id: str, roots: Mapping[str, str]
) -> Delivery:
    """Accept a run's conf only if the gateway could have made it for this client and project.

    Parameters
    ----------
    conf
        ``dag_run.conf`` as it came.
    client, project
        What the registry says of this DAG; conf is never trusted to choose.
    run_id
        Must be ``gw.<job_id>``.
    roots
        ``INGEST_LANDING_DIR``, ``INGEST_STAGED_DIR`` and ``INGEST_CURATED_DIR``.

    Raises
    ------
    ConfError
        Saying what is wrong.
    """
    if not run_id.startswith(RUN_PREFIX):
        raise ConfError(BY_HAND)
    if not isinstance(conf, dict) or set(conf) != _CONF_KEYS:
        msg = "conf must hold contract, job_id, batch_id, client, project, attempt and nothing else"
        raise ConfError(msg)
    if type(conf["contract"]) is not int or conf["contract"] != CONF_CONTRACT:
        msg = "conf is of another contract version"
        raise ConfError(msg)
    if type(conf["attempt"]) is not int or conf["attempt"] < 1:
        msg = "attempt must be a whole number from 1"
        raise ConfError(msg)
    if not all(isinstance(conf[name], str) for name in _PATTERNS):
        msg = "ids must be texts"
        raise ConfError(msg)
    if (conf["client"], conf["project"]) != (client, project):
        msg = "conf names another client or project than this DAG's"
        raise ConfError(msg)
    if run_id != f"{RUN_PREFIX}{conf['job_id']}":
        msg = "the run's id does not belong to its job"
        raise ConfError(msg)
    return Delivery(
        **{name: conf[name] for name in _PATTERNS},
        attempt=conf["attempt"],
        landing=Path(roots["INGEST_LANDING_DIR"]),
        staged=Path(roots["INGEST_STAGED_DIR"]),
        curated=Path(roots["INGEST_CURATED_DIR"]),
    )


def is_safe_name(name: object) -> bool:
    """Tell whether a landed file can have this name."""
    return (
        isinstance(name, str)
        and 0 < len(name.encode("utf-8", "replace")) <= MAX_NAME_BYTES
        and name[0] not in ".-"
        and not set(name) & set("/\\")
        and all(unicodedata.category(c)[0] != "C" for c in name)
    )


@contextmanager
def open_landed(delivery: Delivery, *names: str) -> Iterator[BinaryIO]:
    """Open a landed file for reading; no component below the landing root may be a link.

    Raises
    ------
    DeliveryError
        ``missing-file`` if it is not there, or is no regular file.
    """
    if not all(is_safe_name(name) for name in names):
        raise DeliveryError("missing-file", "the manifest names a file that cannot exist")
    try:
        fd = _walk(delivery.landing, (*delivery.landed, *names))
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise _missing(names[-1]) from error
    except OSError as error:
        if error.errno == errno.ELOOP:  # O_NOFOLLOW met a symbolic link
            raise _missing(names[-1]) from error
        raise
    with os.fdopen(fd, "rb", buffering=0) as raw:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise _missing(names[-1])
        yield raw


def _missing(name: str) -> DeliveryError:
    return DeliveryError("missing-file", f"{name} is not in the landing zone")


def _walk(root: Path, names: tuple[str, ...]) -> int:
    held = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for name in names[:-1]:
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
            inner = os.open(name, flags, dir_fd=held)
            os.close(held)
            held = inner
        return os.open(names[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=held)
    finally:
        os.close(held)

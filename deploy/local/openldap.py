"""Where OpenLDAP's server is found, or how it is brought in without installing it.

An installed ``slapd`` is used where there is one. Otherwise Debian's packages are
downloaded and unpacked below ``.run/``: no root needed, and no system service started.
"""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass, field
from pathlib import Path

from deploy.local import debian, programs
from deploy.local.programs import RUN_DIR, StackError

UNPACKED = RUN_DIR / "openldap"
# slapd runs without these; they only serve its maintainer scripts and unused backends.
UNNEEDED = ("libperl", "libodbc", "libterm-", "liblocale-", "libsasl2-modules")


@dataclass(frozen=True)
class Software:
    """Programs and files of one OpenLDAP server."""

    slapd: Path
    slapadd: Path
    schema_dir: Path
    modules_dir: Path
    environment: dict[str, str] = field(default_factory=dict)


def find() -> Software:
    """Find an installed or unpacked server.

    Raises
    ------
    StackError
        There is none.
    """
    for root in (Path("/"), UNPACKED):
        if (root / "usr/sbin/slapd").exists() and (root / "etc/ldap/schema").is_dir():
            return _below(root)
    message = "OpenLDAP is missing: there is no /usr/sbin/slapd; `make up` brings it in"
    raise StackError(message)


def ensure() -> Software:
    """Find a server, downloading it first where there is none.

    Raises
    ------
    StackError
        It cannot be downloaded, or does not run on this machine.
    """
    try:
        return find()
    except StackError:
        _unpack()
    software = find()
    failure = "OpenLDAP was downloaded but does not run"
    programs.run([software.slapd, "-VV"], failure, env=software.environment)
    return software


def _below(root: Path) -> Software:
    libraries = [root / "usr/lib" / f"{platform.machine()}-linux-gnu", root / "usr/lib"]
    environment = {"PATH": os.defpath, "LC_ALL": "C.UTF-8"}
    if root != Path("/"):
        environment["LD_LIBRARY_PATH"] = ":".join(map(str, libraries))
    # slapadd is slapd under another name.
    slapadd = root / "usr/sbin/slapadd"
    return Software(
        root / "usr/sbin/slapd",
        slapadd,
        root / "etc/ldap/schema",
        root / "usr/lib/ldap",
        environment,
    )


def _unpack() -> None:
    debian.unpack("OpenLDAP", ["slapd"], UNPACKED, _is_wanted)


def _is_wanted(package: str) -> bool:
    is_ours = package == "slapd" or package.startswith("lib")
    return is_ours and not package.startswith(UNNEEDED)

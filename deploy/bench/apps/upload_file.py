"""What is written first where files are taken in with FastAPI: ``UploadFile`` and an ORM.

``/plain`` copies what came. ``/full`` promises what the gateway promises of a file: its SHA-256,
the file and its name on the disk, and a committed row.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from fastapi import FastAPI, UploadFile
from sqlalchemy import String, create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

CHUNK_BYTES = 1024**2
FILES_DIR = Path(os.environ["FILES_DIR"])
engine = create_engine(os.environ["DATABASE_URL"], pool_size=20)
app = FastAPI()


class Base(DeclarativeBase):
    """The tables."""


class File(Base):
    """One file received."""

    __tablename__ = "peer_files"

    id: Mapped[int] = mapped_column(primary_key=True)
    folder: Mapped[str] = mapped_column(String(100))
    name: Mapped[str] = mapped_column(String(255))
    size_bytes: Mapped[int]
    sha256: Mapped[str] = mapped_column(String(64))


Base.metadata.create_all(engine)


@app.post("/plain/{folder}")
async def plain(folder: str, file: UploadFile) -> dict[str, int]:
    """Copy the file to its place."""
    size_bytes = 0
    with _place(folder, file).open("wb") as target:
        while chunk := await file.read(CHUNK_BYTES):
            size_bytes += target.write(chunk)
    return {"size_bytes": size_bytes}


@app.post("/full/{folder}")
def full(folder: str, file: UploadFile) -> dict[str, str]:
    """Copy the file, hash it, make it durable, write it down."""
    place, digest, size_bytes = _place(folder, file), hashlib.sha256(), 0
    part = place.with_name(f".{place.name}")
    with part.open("wb") as target:
        while chunk := file.file.read(CHUNK_BYTES):
            digest.update(chunk)
            size_bytes += target.write(chunk)
        target.flush()
        os.fsync(target.fileno())
    part.rename(place)
    _sync(place.parent)
    sha256 = digest.hexdigest()
    with Session(engine) as session:
        session.add(File(folder=folder, name=place.name, size_bytes=size_bytes, sha256=sha256))
        session.commit()
    return {"sha256": sha256}


def _place(folder: str, file: UploadFile) -> Path:
    return FILES_DIR / folder / Path(file.filename or "").name


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""Sheets of Excel workbooks as rows of text.

A workbook is read as a whole, so how much it may unpack to is limited. A row's line is its number in
the sheet, as Excel shows it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

import fastexcel
import polars as pl

from pipeline import archive
from pipeline.budget import Budget
from pipeline.records import Rows

if TYPE_CHECKING:
    from collections.abc import Iterator

_OLE_MAGIC = b"\xd0\xcf\x11\xe0"
_ENCRYPTED = "EncryptedPackage".encode("utf-16-le")


class WorkbookError(Exception):
    """A workbook that cannot be read, in words for its sender."""


@dataclass(frozen=True)
class Sheet:
    """A sheet that has rows, its heading, and the row in which that stands."""

    name: str
    heading: list[str]


def is_workbook(name: str, file: BinaryIO, budget: Budget) -> bool:
    """Tell whether a zip is a workbook.

    Raises
    ------
    DeliveryError
        ``corrupt-archive`` or ``unsafe-archive``: its structure is judged first.
    """
    entries = archive.checked_entries(name, file, Budget(budget.caps))
    names = {entry.filename for entry in entries}
    return "[Content_Types].xml" in names and bool(names & {"xl/workbook.xml", "xl/workbook.bin"})


def sheets_of(name: str, file: BinaryIO, budget: Budget, limit: int) -> list[Sheet]:
    """Give the sheets of a workbook that can be seen and hold anything.

    Raises
    ------
    WorkbookError
        If it is damaged, protected or too large.
    DeliveryError
        ``unsafe-archive``.
    """
    book = _open(file, _checked_size(name, file, budget), limit)
    found = []
    for sheet_name in book.sheet_names:
        frame = _frame(book, sheet_name)
        if frame is not None and frame.height:
            found.append(Sheet(sheet_name, _heading(frame)[1]))
    return found


def rows_of(file: BinaryIO, sheet: str) -> Iterator[Rows]:
    """Give a sheet's rows after its heading; rows without any value are none."""
    file.seek(0)
    frame = _frame(fastexcel.read_excel(file.read()), sheet)
    if frame is None:
        return
    at, heading = _heading(frame)
    frame = frame.slice(at).select(
        *(pl.nth(i).alias(f"c{i}") for i in range(len(heading))),
        pl.int_range(at + 1, at + 1 + pl.len()).cast(pl.Int64).alias("_line"),
    )
    texts = pl.all().exclude("_line")
    frame = frame.with_columns(pl.when(texts != "").then(texts))
    yield Rows(frame.filter(pl.any_horizontal(texts.is_not_null())))


def _checked_size(name: str, file: BinaryIO, budget: Budget) -> int:
    file.seek(0)
    if file.read(len(_OLE_MAGIC)) == _OLE_MAGIC:
        return file.seek(0, 2)
    return sum(entry.file_size for entry in archive.checked_entries(name, file, budget))


def _open(file: BinaryIO, size: int, limit: int) -> fastexcel.ExcelReader:
    if size > limit:
        msg = f"a workbook may unpack to {limit >> 20} MiB; send what is larger as CSV or Parquet"
        raise WorkbookError(msg)
    file.seek(0)
    content = file.read()
    if content.startswith(_OLE_MAGIC) and _ENCRYPTED in content:
        raise WorkbookError("the workbook is protected by a password")
    try:
        return fastexcel.read_excel(content)
    except fastexcel.FastExcelError as error:
        raise WorkbookError("the workbook is damaged or cut short") from error


def _frame(book: fastexcel.ExcelReader, sheet_name: str) -> pl.DataFrame | None:
    """Read a sheet from its first row on, so that rows keep their numbers."""
    try:
        sheet = book.load_sheet(sheet_name, header_row=None, skip_rows=0, dtypes="string")
    except fastexcel.FastExcelError as error:
        msg = "the workbook is damaged or cut short"
        raise WorkbookError(msg) from error
    return sheet.to_polars() if sheet.width and sheet.visible == "visible" else None


def _heading(frame: pl.DataFrame) -> tuple[int, list[str]]:
    """Give the first row with any value, and the row after it; columns without a name end it."""
    filled = frame.select(pl.any_horizontal(pl.all().is_not_null())).to_series()
    at = filled.arg_max() or 0
    names = [(name or "").strip() for name in frame.row(at)]
    while names and not names[-1]:
        names.pop()
    return at + 1, names

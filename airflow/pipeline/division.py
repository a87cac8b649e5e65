"""A file of the delivery as the chunks in which tasks read it, or as a reason why it is not read."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pipeline import columnar, documents, matching, reading, sniff, text, workbook
from pipeline.cutting import Cut
from pipeline.matching import Match
from pipeline.staging import Chunk
from pipeline.text import Dialect

if TYPE_CHECKING:
    from pipeline.budget import Budget
    from pipeline.contract import Contract
    from pipeline.delivery import Delivery
    from pipeline.limits import Limits
    from pipeline.survey import Found

# In these, a line end is the same byte whatever stands in front of it.
_CUTTABLE = ("utf-8", "utf-8-sig", "cp1252", "latin-1")
_NO_DIALECT = Dialect("", "")


@dataclass(frozen=True)
class Divider:
    """Divides files by what they are and by what the contract knows."""

    delivery: Delivery
    contract: Contract
    limits: Limits
    budget: Budget

    def chunks_of(self, found: Found) -> list[Chunk]:
        """Give a file's chunks: one, without a table, if the file cannot be loaded.

        Raises
        ------
        DeliveryError
            ``unsafe-archive`` if a workbook's structure is not sound.
        """
        refused = _reason(found)
        if refused is not None:
            return [refused]
        match found.kind:
            case "json" | "ndjson":
                return self._documents(found)
            case "parquet":
                return self._columnar(found)
            case "excel":
                return self._workbook(found)
        return self._text(found)

    def _match(self, found: Found, heading: list[str]) -> Match:
        if len(heading) > self.limits.columns:
            # Lines of text are still counted, as if each had one field.
            counted_as = ("",) if found.kind == "csv" else ()
            return Match(None, counted_as, "too-many-columns", f"{len(heading)} columns")
        return matching.match(found.file, heading, self.contract, empty=False)

    def _text(self, found: Found) -> list[Chunk]:
        scan, cutter = found.intake.scan, found.intake.cutter
        dialect, heading = text.find_dialect(scan, self.contract)
        whole = _whole(found, self._match(found, heading), dialect)
        is_cuttable = dialect.encoding in _CUTTABLE and not dialect.bare_cr
        if whole.table is None or cutter is None or not is_cuttable:
            return [whole]
        return _cut(whole, cutter.cuts_for(dialect.delimiter))

    def _documents(self, found: Found) -> list[Chunk]:
        intake = found.intake
        if found.kind == "json" and intake.head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] != b"[":
            return [_refused(found, "wrong-type", "one JSON object, and no list of them")]
        if found.kind == "json" and not intake.tail.rstrip().endswith(b"]"):
            return [_refused(found, "unreadable-file", "the JSON array is cut short")]
        names = documents.names_in(text.decode_head(intake.scan), found.kind)
        if not names:
            return [_refused(found, "unreadable-file", "no JSON objects were found")]
        if len(names) > self.limits.columns:
            return [_whole(found, self._match(found, names), _NO_DIALECT)]
        match, names = matching.match_names(found.file, names, self.contract)
        encoding, broken = intake.scan.encoding()
        whole = _whole(found, match, Dialect(encoding, "", broken=broken))
        whole = replace(whole, keys=tuple(names))
        cuts = intake.cutter.cuts if intake.cutter is not None else []
        return [whole] if match.table is None else _cut(whole, cuts)

    def _columnar(self, found: Found) -> list[Chunk]:
        limits = self.limits
        try:
            with reading.open_file(self.delivery, found.source, found.name) as file:
                names, stretches = columnar.survey(file, limits.chunk_bytes, limits.chunk_rows)
        except columnar.ColumnarError as error:
            return [_refused(found, "unreadable-file", str(error))]
        match = self._match(found, names)
        whole = _whole(found, match, _NO_DIALECT)
        return [
            replace(
                whole,
                offset=each.offset,
                length=each.length,
                first_line=each.first_row,
                size_bytes=each.size_bytes,
                part=number,
                parts=len(stretches),
            )
            for number, each in enumerate(stretches, start=1)
        ] or [whole]

    def _workbook(self, found: Found) -> list[Chunk]:
        try:
            with reading.open_file(self.delivery, found.source, found.name) as file:
                sheets = workbook.sheets_of(
                    found.file, file, self.budget, self.limits.workbook_bytes
                )
        except workbook.WorkbookError as error:
            return [_refused(found, "unreadable-file", str(error))]
        if not sheets:
            return [_refused(found, "empty-file", None)]
        chunks = []
        for sheet in sheets:
            label = found.file if len(sheets) == 1 else f"{found.file}/{sheet.name}"
            chunk = _whole(
                found, self._match(replace(found, file=label), sheet.heading), _NO_DIALECT
            )
            chunks.append(replace(chunk, file=label, sheet=sheet.name))
        return chunks


def _reason(found: Found) -> Chunk | None:
    """Refuse what is seen to be no table without looking further."""
    intake = found.intake
    if not intake.size_bytes:
        return _refused(found, "empty-file", None)
    words = sniff.contradiction(found.called, found.kind, intake.head)
    if words is not None:
        return _refused(found, "wrong-type", words)
    if intake.cutter is not None and intake.cutter.long_line is not None:
        return _refused(found, "line-too-long", f"line {intake.cutter.long_line}")
    return None


def _whole(found: Found, match: Match, dialect: Dialect) -> Chunk:
    return Chunk(
        file=found.file,
        source=found.source,
        name=found.name,
        size_bytes=found.intake.size_bytes,
        table=match.table,
        heading=match.columns,
        dialect=dialect,
        refusal=match.refusal,
        refused_columns=match.refused_columns,
        kind=found.kind,
    )


def _refused(found: Found, rule: str, words: str | None) -> Chunk:
    return _whole(found, Match(None, (), rule, words), _NO_DIALECT)


def _cut(whole: Chunk, cuts: list[Cut]) -> list[Chunk]:
    """Cut a text; only its first chunk can begin with a byte order mark."""
    size = whole.size_bytes
    starts = [Cut(0, 1), *(cut for cut in cuts if cut.offset < size)]
    ends = [*(cut.offset for cut in starts[1:]), size]
    later = whole.dialect
    if later.encoding == "utf-8-sig":
        later = replace(later, encoding="utf-8")
    return [
        replace(
            whole,
            offset=start.offset,
            length=end - start.offset,
            first_line=start.line,
            size_bytes=end - start.offset,
            dialect=whole.dialect if start.offset == 0 else later,
            part=number,
            parts=len(starts),
        )
        for number, (start, end) in enumerate(zip(starts, ends, strict=True), start=1)
    ]

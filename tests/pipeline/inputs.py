"""One small table in every format and every archive in which it can be sent."""

from __future__ import annotations

import base64
import datetime as dt
import gzip
import io
import json
import tarfile
import zipfile
import zlib
from typing import Any

import polars as pl
import zstandard

GOOD = b"flight,carrier,delay\n1,AA,2.5\n2,UA,NA\n"
RECORDS = [{"flight": 1, "carrier": "AA", "delay": 2.5}, {"flight": 2, "carrier": "UA"}]

_TYPES = "http://schemas.openxmlformats.org/package/2006"
_SHEETS = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
_LINKS = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"


def zipped(entries: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def tarred(entries: dict[str, bytes], style: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=style) as archive:
        for name, content in entries.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def zstd(content: bytes) -> bytes:
    return zstandard.ZstdCompressor(write_checksum=True).compress(content)


def lines(records: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(record) + "\n" for record in records).encode()


def parquet(frame: pl.DataFrame, **options: Any) -> bytes:
    buffer = io.BytesIO()
    frame.write_parquet(buffer, use_pyarrow=True, **options)
    return buffer.getvalue()


def workbook(sheets: dict[str, list[list[Any]]]) -> bytes:
    """Write what Excel writes, as far as it matters: texts, numbers, truths and days."""
    names = list(sheets)
    listed = "".join(
        f'<sheet name="{name}" sheetId="{i}" r:id="r{i}"/>' for i, name in enumerate(names)
    )
    links = "".join(
        f'<Relationship Id="r{i}" Type="{_LINKS}/worksheet" Target="worksheets/s{i}.xml"/>'
        for i in range(len(names))
    )
    entries = {
        "[Content_Types].xml": f'<Types xmlns="{_TYPES}/content-types"/>',
        "_rels/.rels": f'<Relationships xmlns="{_TYPES}/relationships"><Relationship Id="r" '
        f'Type="{_LINKS}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
        "xl/workbook.xml": f'<workbook xmlns="{_SHEETS}" xmlns:r="{_LINKS}">'
        f"<sheets>{listed}</sheets></workbook>",
        "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{_TYPES}/relationships">{links}'
        f'<Relationship Id="st" Type="{_LINKS}/styles" Target="styles.xml"/></Relationships>',
        "xl/styles.xml": f'<styleSheet xmlns="{_SHEETS}"><cellXfs count="2"><xf numFmtId="0"/>'
        '<xf numFmtId="14"/></cellXfs></styleSheet>',
    }
    for i, rows in enumerate(sheets.values()):
        written = "".join(_row(number, row) for number, row in enumerate(rows, start=1))
        entries[f"xl/worksheets/s{i}.xml"] = (
            f'<worksheet xmlns="{_SHEETS}"><sheetData>{written}</sheetData></worksheet>'
        )
    return zipped({name: content.encode() for name, content in entries.items()})


def _row(number: int, row: list[Any]) -> str:
    cells = "".join(_cell(f"{'ABCDEFGH'[i]}{number}", value) for i, value in enumerate(row))
    return f'<row r="{number}">{cells}</row>'


def _cell(place: str, value: Any) -> str:
    match value:
        case None:
            return ""
        case bool():
            return f'<c r="{place}" t="b"><v>{int(value)}</v></c>'
        case dt.date():
            days = (value - dt.date(1899, 12, 30)).days
            return f'<c r="{place}" s="1"><v>{days}</v></c>'
        case str():
            return f'<c r="{place}" t="inlineStr"><is><t>{value}</t></is></c>'
    return f'<c r="{place}"><v>{value}</v></c>'


FLIGHTS = pl.DataFrame({"flight": [1, 2], "carrier": ["AA", "UA"], "delay": [2.5, None]})
SHEET = [["flight", "carrier", "delay"], [1, "AA", 2.5], [2, "UA", "NA"]]

# `SHEET` and an empty sheet as Excel 97 writes them, by xlwt 1.3; deflated. Libraries that are kept
# up read such files and write none.
_OLD_WORKBOOK = (
    "c-rk)O=uHA6#izDG)-vIq^3eElu)p0?M1zKX=8-8CqorP5kb=?YG_Q$noB%rwdN=Yo)j;IUc6Mj_=6tw=0T|FK@@~U"
    "k39(rJ+xWhd%K&aH9`ZmSlw@#H#2YEw=+BM&Ft*Hoe!609(9(n1_N-RV))Qhqf?Z8b|nOAHw-S?c{3%$!IpxrnH<^V"
    "!SlcyFZ+=FU518-?pGv%FO*JW5{ZdiI=YECEMrJ29z(x!Q|xKDM=6L78CRRgF_GIuJ`md%A`gk?rpSJ>EvZwOk0p8!"
    "T5)_*>z1}4NrflE`6QZsXvb@g<EyunY3o5;&m^;dXG52}1+yT}4X1NyJ((>bLN1)e4<ibEx7X^+sH5Lpy#nbMSL?lX"
    "^tUxPFa_hR;y^5-6$>tI@nR^OIe#I4sfYkRdRXPb;Kj*&VF~+Xky`1Tm{9<XC3QWM*2y%L&L#^K%kemg<17+!KX2W#"
    ")I+P5dO#LH3&|Aq&E>ExgAi@zOZUIMJ2E;FJ0qGY+1|~Uz)l`D3|wOdk%Q9Ws>)tr>=k)k?z%(DogyRjD3te%v|ELt"
    "X|cH>tv%Gw0m1v&uA1_0Di;@yKJ6-gjqRcG+;I7FWbQ+32Ho^hN)ey0Y4oW+b@vYAS<KFrwOxD`+40NP(X556u^ZN#"
    "t`*DhOEE0ctnuuqYE84|irH!n`-<ilU07zB?Uk^3cFZ<rv#*)0)nRMG_FHVzGwy1Q*&G!ES{oj-DQ$Tx*f?+Fx87dC"
    "R`a&Z8S2fM0|yQqIB?*=!G8cH2U+vj?v}3%^Qh>x{_8ALsyM$%{#hKu1YLRhEFDCSavg<+;%7TN%D$IcC&&I@$T&g0"
    ">lnwVjAOjv_@$%1s(qey6GI!fgc|L?(#SafaQ{C6LW20&"
)

FORMATS = {
    "a.csv": GOOD,
    "a.tsv": GOOD.replace(b",", b"\t"),
    "a.txt": GOOD,
    "a.json": json.dumps(RECORDS, indent=2).encode(),
    "a.ndjson": lines(RECORDS),
    "a.jsonl": lines(RECORDS),
    "a.parquet": parquet(FLIGHTS),
    "a.xlsx": workbook({"Flights": SHEET, "Empty": []}),
    "a.xls": zlib.decompress(base64.b85decode(_OLD_WORKBOOK)),
}
ARCHIVES = {
    "a.csv.gz": gzip.compress(GOOD),
    "a.csv.zst": zstd(GOOD),
    "a.zip": zipped({"a.csv": GOOD}),
    "a.tar": tarred({"a.csv": GOOD}),
    "a.tar.gz": gzip.compress(tarred({"a.csv": GOOD}, tarfile.GNU_FORMAT)),
    "a.tgz": gzip.compress(tarred({"./a.csv": GOOD}, tarfile.USTAR_FORMAT)),
    "a.tar.zst": zstd(tarred({"a.csv": GOOD})),
    "nested.zip": zipped({"b/inner.tar.gz": gzip.compress(tarred({"a.csv": GOOD}))}),
    "nested.tar": tarred({"inner.zip": zipped({"a.csv": GOOD})}),
    "many.zip": zipped({"a.csv.gz": gzip.compress(GOOD)}),
    "book.zip": zipped({"a.xlsx": workbook({"One": SHEET})}),
    "table.parquet.zst": zstd(parquet(FLIGHTS)),
}

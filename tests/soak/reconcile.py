"""What has to add up when all is over: what the clients saw, against what the house wrote down. Each law asserts."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from instar.config import effective
from instar.gate.mode import DATABASE, FOLDER
from instar.gate.store import Store
from instar.lifecycle.eventlog import EventLog
from instar.server import logs
from instar.server.lanes import EVALUATIONS, OTHERS
from instar.sessions import registry
from instar.sessions.clock import Clock
from instar.sessions.reaper.rows import BYTES_AT_MOST, backup
from soak.house import FOREIGN, LOG_BYTES, LOG_KEEP, PEERS, ROWS, SLOTS, House, Row

if TYPE_CHECKING:
    from soak.schedule import Sample

TEMPORARY = re.compile(r"\..*\.tmp|\.instar-.*|\..+\.[a-z0-9_]{8}")
NO_JUDGE = ("breakerOpen", "evidenceUnavailable", "rateLimit", "shed", "dbUnavailable")
GATE = effective({})["unjustifiedStopGate"]
GROWN_FILES, GROWN_MIB = 12, 30  # a few more connections to a database, of three files each, are no leak


def figures(house: House) -> dict[str, int]:
    """Check every law, and return what was counted."""
    nothing_is_torn_or_left(house)
    others_keep_their_own(house)
    return {**blocks(house), **verdicts(house), **parks(house), **wakes(house), **ends(house)}


def nothing_is_torn_or_left(house: House) -> None:
    """See that no hook failed, that all that was written is whole, and that nothing is there that is not wanted."""
    assert house.journal("fault") == []
    for place in (house.root / ".instar").rglob("*.json"):
        json.loads(place.read_bytes())
    for place in (house.root / ".instar").rglob("*.jsonl"):
        for line in place.read_bytes().splitlines():
            json.loads(line)
    left = [place for top in (house.root / ".instar", house.folder / "shared") for place in top.rglob(".*")
            if TEMPORARY.fullmatch(place.name)]  # fmt: skip
    assert not left, f"temporary files are left: {left}"
    house.run("instar-migrate", "--check")


def others_keep_their_own(house: House) -> None:
    """See that no key of others was lost."""
    config, settings = house.read(".instar/config.json"), house.read(".claude/settings.json")
    profiles = [house.read(f".instar/agents/{name}.json") for name in PEERS]
    records = [each.record for each in registry.sessions(house.root) if each.id in house.marked]
    marked = [each for each in builds(house) if each["startedAt"] in house.marked]
    assert len(records) + len(marked) == len(house.marked)
    for each in (config, config["monitoring"], settings, settings["hooks"]["Stop"][0], *profiles, *records, *marked):
        assert each.get("soak") == FOREIGN, each


def builds(house: House) -> list[Row]:
    """Return all builds that were begun, as they ended, or as they are."""
    history = sorted((house.project.state_path.parent / "history").glob("*.json"))
    copies = [json.loads(place.read_bytes()) for place in history]
    known = {copy["startedAt"] for copy in copies}
    return [*copies, *(each for each in [house.project.state] if each["startedAt"] not in known)]


def blocks(house: House) -> dict[str, int]:
    """See that every hold is counted in its build and in the audit, and was told while there was anybody to hear it."""
    heard = sum("build-stop-hook" in row["held"] for row in house.journal("stopped"))
    begun = sum(not row["exit"] for row in house.journal("bs", verb="init"))
    audited, known = len(house.project.events("stop.blocked")), builds(house)
    used = [each["reinforcementsUsed"] for each in known]
    assert audited == sum(used), f"{audited} holds in the audit, {used} in the builds"
    assert heard <= audited <= heard + unheard(house), f"{audited} holds in the audit, {heard} were heard"
    assert begun <= len(house.project.events("build.initialized")) == len(known)
    assert all(each["reinforcementsUsed"] <= each["protection"]["reinforcements"] for each in known)
    return {"blocks": audited, "builds": len(known)}


def unheard(house: House) -> int:
    """Return how many stops had no answer that anybody was left to hear."""
    return len(house.journal("stop")) - len(house.journal("stopped"))


def verdicts(house: House) -> dict[str, int]:
    """See that every judgement has its row, and every hold, but for what a server had in hand when it was killed."""
    store = Store.open(house.root / FOLDER / DATABASE, is_read_only=True)
    rows = store.events(None)
    store.close()
    judged = len((house.soak / "judged").read_text().splitlines())
    told = [row for row in rows if not row["short_circuit"] and row["invalid_kind"] not in NO_JUDGE]
    lost = GATE["concurrency"]["machine"] * len(house.server_deaths)
    assert len(told) <= judged <= len(told) + lost, f"{judged} were judged, {len(told)} rows tell of it"
    held = sum("stop-gate-router" in row["held"] for row in house.journal("stopped"))
    sent_on = Counter(row["session_id"] for row in rows if row["decision"] == "continue" and row["mode"] == "enforce")
    is_slow = (house.root / ".instar/logs/.told-stop-gate-router-server_slow").exists()  # then hooks did not wait
    most = held + unheard(house) + lost
    assert held <= sent_on.total(), f"{held} were held, {sent_on.total()} on record"
    assert sent_on.total() <= most or is_slow, f"{held} were held, {sent_on.total()} on record"
    assert max(sent_on.values(), default=0) <= GATE["continueCeiling"]
    return {"verdicts": len(told), "held by the gate": held, "rows of the gate": len(rows)}


def parks(house: House) -> dict[str, int]:
    """See that every end has its row, and its marker until it is taken up; and that nobody was parked at work."""
    rows, told = house.rows("reap-log"), house.journal("term")
    ended = {row["park"]: row for row in rows if row["type"] == "reaped"}
    without = Counter(row["session"] for row in told) - Counter(row["sessionId"] for row in ended.values())
    assert not without, f"these were told to end, and no row says so: {without}"
    by_hand = Counter(row["sessionId"] for row in ended.values() if row["reason"] == "manual-kill")
    at_work = Counter(row["session"] for row in told if row["at_work"])
    assert not at_work - by_hand, f"these were parked at work: {at_work - by_hand}"
    for row in ended.values():
        _is_asleep_or_went_on(house, row)
    assert not list((house.root / ".instar/state/lifecycle").glob("*.pending"))
    kinds = Counter(f"parks by {row['origin']}" for row in ended.values())
    mended, cut_off = sum(row["type"] == "recovered" for row in rows), sum(house.server_deaths)
    return {"parks": len(ended), **kinds, "mended": mended, "cut off with their server": cut_off}


def _is_asleep_or_went_on(house: House, row: Row) -> None:
    """See that what was parked is on record as that, or was taken up since."""
    session, record = row["sessionId"], house.project.record(row["sessionId"])
    is_last = (record.get("parked") or {}).get("id") == row["park"]
    assert is_last or house.journal("start", session=session, resumed=True), (row, record)
    if is_last and not record.get("identity"):
        marker = house.root / f".instar/state/lifecycle/{record['client']}-{session}.idle-reaped"
        assert row["park"] in marker.read_text(), f"{marker} does not tell of {row}"


def wakes(house: House) -> dict[str, int]:
    """See that every wake, message and refusal has its line, that none was made up, and that all told arrived once."""
    lines = EventLog(house.root, Clock(), keep=LOG_KEEP).tail(10**6)
    written = Counter((row["ev"], row.get("personality", ""), row.get("cause", "")) for row in lines)
    asked = [(words[2], answer) for words, answer in house.told if words[1] == "send"]
    wanted = Counter(
        ("send", name, "") if answer["mode"] == "live" else ("wake", name, answer["cause"]) for name, answer in asked
    )
    assert not wanted - written, f"no line tells of {wanted - written}"
    more = {key: count for key, count in (written - wanted).items() if key[0] == "wake"}
    failed = sum(answer["mode"] == "failed" for _, answer in asked)  # these have a line of how it was tried, too
    assert sum(more.values()) <= failed, f"nobody asked for {more}"
    for _, answer in asked:
        assert "number" not in answer or len(house.journal("prompt", n=answer["number"])) == 1, answer
    causes = Counter(f"wakes by {answer['cause']}" for _, answer in asked if answer["woke"])
    refused = sum(not answer["taskDelivered"] for _, answer in asked)
    return {"messages": len(asked), "wakes": causes.total(), **causes, "refused": refused, "lines": len(lines)}


def ends(house: House) -> dict[str, int]:
    """See that who lives has a pane, that who is said to run lives, and that what is written has its bounds."""
    living = {row["pid"]: row for row in house.journal("start") if house.is_client(row["pid"])}
    slots = house.tmux("list-panes", "-a", "-F", "#{pane_id}").split()
    panes = house.tmux("list-panes", "-a", "-F", "#{pane_dead} #{session_name}", where="peers").splitlines()
    awake = sorted(f"0 {PEERS[row['peer']]}-{row['peer']}" for row in living.values() if row["peer"])
    assert len(slots) == SLOTS >= sum(not row["peer"] for row in living.values())
    assert sorted(line for line in panes if line[0] == "0") == awake
    assert len(panes) <= len(PEERS)
    recorded = {each.record["agent"]["pid"] for each in registry.sessions(house.root) if each.state == "running"}
    assert recorded <= living.keys(), f"{recorded - living.keys()} are said to run"
    return {"alive at the end": len(living), **rotations(house)}


def rotations(house: House) -> dict[str, int]:
    """See that no log is larger than it may be, and that the full ones were put aside, with all that they held."""
    bounds = {"lifecycle.log": LOG_BYTES, Path(logs.PATH).name: logs.BYTES}
    places = list((house.root / ".instar/logs").iterdir())
    for place in places:
        bound = bounds.get(place.name.rstrip(".0123456789"), BYTES_AT_MOST)
        assert place.stat().st_size <= bound, place
    for place in (house.root / logs.PATH, *(house.root / f".instar/logs/{log}.jsonl" for log in ROWS)):
        put_aside = backup(place)
        assert put_aside.exists(), f"{place} was never full"
        assert put_aside.stat().st_size > place.stat().st_size
    return {"full logs": sum(place.name[-1].isdigit() for place in places)}


def trend(samples: list[Sample]) -> dict[str, str]:
    """See that the server holds at the end what it held at the beginning: files, threads, memory."""
    third = len(samples) // 3
    first, last = samples[:third], samples[-third:]
    assert third > 1, "too few looks at the server"
    assert len({each.pid for each in samples}) == 1, "it was to last"
    files = [min(each.files for each in part) for part in (first, last)]  # more are open while something is asked
    memory = [median(each.memory for each in part) / 2**20 for part in (first, last)]
    threads = [max(each.threads for each in part) for part in (first, last)]
    told = {"files": f"{files[0]} -> {files[1]}", "threads": f"{threads[0]} -> {threads[1]}",
            "MiB": f"{memory[0]:.1f} -> {memory[1]:.1f}", "looks at the server": str(len(samples))}  # fmt: skip
    assert files[1] <= files[0] + GROWN_FILES, told
    assert threads[1] <= EVALUATIONS + OTHERS, told
    assert memory[1] <= memory[0] + GROWN_MIB, told
    return told

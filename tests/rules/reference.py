"""What rules mean, written down a second time: slow, from the whole history, step by step, without anything of ours.

Time goes in steps of half a second. A history is a list: what happened at each step, or None.
"""

from __future__ import annotations

from typing import Any

STEP = 0.5
Happened = dict[str, Any]
"""{"kind": "object" | "crossing" | "detections" | "scores" | "text" | "anomaly" | "stream" | "profile", …}"""
Table = dict[str, Any]
"""a condition as TOML gives it"""

TRACKING, BOXES, WORDS, PICTURE, SOUND = "yard", "door", "words", "gate", "fan"
"""the pipelines: one that tracks, one that only detects, one that labels texts, one that labels pictures, one that
finds anomalies"""
SEES, LIVES = (TRACKING, BOXES), (TRACKING,)
ZONES = {TRACKING: ("lawn", "pond")}
STANDS_S = 75.0


def seconds(text: str) -> float:
    return float(text[:-3]) * 60 if text.endswith("min") else float(text[:-1])


class History:
    def __init__(self, happened: list[Happened | None], starts: float, offset: float) -> None:
        """`starts`: the wall clock at the first step; `offset`: of the time zone, seconds."""
        self.happened, self.starts, self.offset = happened, starts, offset

    def until(self, t: int) -> list[tuple[int, Happened]]:
        return [(at, one) for at, one in enumerate(self.happened[: t + 1]) if one is not None]

    def stream(self, pipe: str, t: int) -> str:
        said = [one["is"] for _, one in self.until(t) if one["kind"] == "stream" and one["of"] == pipe]
        return said[-1] if said else ""

    def clear(self, pipe: str, t: int) -> bool:
        return self.stream(pipe, t) in ("ok", "ended")


def any_of(given: Any) -> set[str]:
    many = {given} if isinstance(given, str) else set(given or ())
    return set() if "any" in many else many


def count(one: Table, pipe: str, t: int, history: History) -> int:
    """How many things of a pipeline count at a step."""
    labels, zone, loiters = (
        any_of(one.get("object", one.get("no"))),
        one.get("in") or one.get("loiters"),
        "loiters" in one,
    )
    if pipe == BOXES:
        seen = [e["labels"] for _, e in history.until(t) if e["kind"] == "detections" and e["of"] == pipe]
        return sum(not labels or label in labels for label in (seen[-1] if seen else []))
    there: dict[str, bool] = {}
    for at, e in history.until(t):
        if e["kind"] != "object" or e["of"] != pipe:
            continue
        zones = e["loiters"] if loiters else e["zones"]
        if e["phase"] == "end":
            stands = e["stationary"] and e["why"] == "the source has stopped"
            if not (stands and (t - at) * STEP < STANDS_S):
                there.pop(e["object"], None)
        elif (not labels or e["label"] in labels) and (zone is None or zone in zones):
            there[e["object"]] = True
        else:
            there.pop(e["object"], None)
    return len(there)


def things(one: Table, t: int, history: History) -> bool | None:
    zone = one.get("in") or one.get("loiters")
    pipes = [p for p in SEES if one.get("pipeline", p) == p and (zone is None or zone in ZONES.get(p, ()))]
    above, below = one.get("above"), 1 if "no" in one else one.get("below")
    low = above + 1 if above is not None else 0 if below is not None else 1

    def fits(n: int) -> bool:
        return n >= low and (below is None or n < below)

    known = sum(count(one, p, t, history) for p in pipes if history.clear(p, t))
    hidden = [p for p in pipes if not history.clear(p, t)]
    blind = [p for p in pipes if history.stream(p, t) != "ok"]
    # whatever may be there that nobody sees: none more, or any number more
    more = range(60) if blind else [0]
    answers = {fits(known + n) for n in more}
    if not hidden and not fits(known) and known < 50 and not any(fits(n) for n in range(known + 1)):
        # what has ended shows nothing new
        return False
    return answers.pop() if len(answers) == 1 else None


def raw(one: Table, t: int, history: History, on: dict[str, list[bool]]) -> bool | None:
    """A condition that lasts, at a step."""
    if "stream" in one:
        pipes = [one["pipeline"]] if "pipeline" in one else [TRACKING, BOXES, WORDS, PICTURE, SOUND]
        return any(history.stream(p, t) in any_of(one["stream"]) for p in pipes)
    if "rule" in one:
        return on[one["rule"]][t]
    if "anomaly" in one or "label" in one:
        pipe, kind = (SOUND, "anomaly") if "anomaly" in one else (PICTURE, "scores")
        said = [e for _, e in history.until(t) if e["kind"] == kind and e["of"] == pipe]
        if not said or not history.clear(pipe, t):
            return None
        if kind == "anomaly":
            return said[-1]["unusual"]  # type: ignore[no-any-return]
        return None if said[-1]["label"] == "unknown" else labelled(one, said[-1])
    return things(one, t, history)


def labelled(one: Table, e: Happened) -> bool:
    return e["label"] in any_of(one["label"]) and e["score"] >= one.get("score", 0)


def hits(one: Table, t: int, history: History) -> bool:
    """A condition that happens, at a step."""
    e = history.happened[t]
    if e is None:
        return False
    if "label" in one:
        return e["kind"] == "scores" and e["of"] == WORDS and labelled(one, e)
    if "text" in one:
        words = e.get("text", "").lower().split()
        return (
            e["kind"] in ("text", "scores") and e["of"] == WORDS and any(word in words for word in any_of(one["text"]))
        )
    labels = any_of(one.get("object"))
    if e["kind"] not in ("object", "crossing") or (labels and e["label"] not in labels):
        return False
    if "crosses" in one:
        return (
            e["kind"] == "crossing" and e["line"] == one["crosses"] and one.get("direction") in (None, e["direction"])
        )
    if e["kind"] != "object":
        return False
    if "leaves" in one:
        return one["leaves"] in e["left"] and not e["why"]
    before = [x for _, x in history.until(t - 1) if x["kind"] == "object" and x["object"] == e["object"]] if t else []
    there = bool(before) and before[-1]["phase"] != "end"
    return one["enters"] in e["entered"] and (there or e["phase"] == "new")


def leaf(one: Table, within: float, t: int, history: History, on: dict[str, list[bool]]) -> bool | None:
    happens = {"text", "enters", "leaves", "crosses"} & one.keys() or (
        "label" in one and one.get("pipeline") != PICTURE
    )
    if happens:
        # of texts for a moment; of pictures, where both are meant, while it lasts
        lasts = raw(one, t, history, on) if "label" in one and "pipeline" not in one else False
        span = max(1.0, within)
        fell = "label" in one and "pipeline" not in one and fallen(one, span, t, history, on)
        recent = any(hits(one, at, history) and (t - at) * STEP < span for at in range(t + 1)) or fell
        return True if recent else lasts
    now = raw(one, t, history, on)
    return True if now is not True and fallen(one, within, t, history, on) else now


def fallen(one: Table, within: float, t: int, history: History, on: dict[str, list[bool]]) -> bool:
    """It held until less than `within` ago."""
    for at in range(1, t + 1):
        if raw(one, at - 1, history, on) is True and raw(one, at, history, on) is not True and (t - at) * STEP < within:
            return True
    return False


def clock(one: Table, t: int, history: History) -> bool:
    wall = history.starts + t * STEP + history.offset
    minute, day = int(wall // 60) % 1440, (int(wall // 86400) + 3) % 7
    names = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
    days = {names.index(one["days"])} if "days" in one else set(range(7))
    first, last = ((int(x[:2]) * 60 + int(x[3:])) for x in one.get("between", "00:00-24:00").split("-"))
    if first < last:
        return day in days and first <= minute < last
    return (day in days and minute >= first) or ((day - 1) % 7 in days and minute < last)


def truth(one: Table, within: float, t: int, history: History, on: dict[str, list[bool]]) -> bool | None:
    within = seconds(one["within"]) if "within" in one else within
    rest = {key: value for key, value in one.items() if key not in ("for", "within")}
    if "for" in one:
        span = seconds(one["for"])
        now = truth(rest, within, t, history, on)
        if now is not True:
            return now
        run = 0
        while t - run - 1 >= 0 and truth(rest, within, t - run - 1, history, on) is True:
            run += 1
        if run * STEP >= span:
            return True
        # what was so for long enough before nobody could know may be so still
        before = t - run - 1
        while before >= 0 and truth(rest, within, before, history, on) is None:
            before -= 1
        if before < 0 or before == t - run - 1:
            return False
        return False if truth(one, within, before, history, on) is False else None
    parts: list[bool | None] = []
    if "between" in one or "days" in one:
        parts.append(clock(one, t, history))
    rest = {key: value for key, value in rest.items() if key not in ("between", "days")}
    if "all" in rest:
        parts += [truth(part, within, t, history, on) for part in rest["all"]]
    elif "any" in rest:
        some = [truth(part, within, t, history, on) for part in rest["any"]]
        parts.append(True if True in some else None if None in some else False)
    elif "not" in rest:
        inner = truth(rest["not"], within, t, history, on)
        parts.append(None if inner is None else not inner)
    elif rest:
        parts.append(leaf(rest, within, t, history, on))
    return False if False in parts else None if None in parts else True


def run(rules: list[Table], history: History) -> list[tuple[int, str, str]]:
    """(step, rule, "on" or "off") of all changes; a rule stands behind those that it waits for."""
    on: dict[str, list[bool]] = {rule["name"]: [] for rule in rules}
    changes: list[tuple[int, str, str]] = []
    last_on: dict[str, int] = {}
    for t in range(len(history.happened)):
        for rule in rules:
            name, when = rule["name"], rule["when"]
            whole = {"all": when if isinstance(when, list) else [when]}
            whole |= {key: rule[key] for key in ("for", "within", "between", "days") if key in rule}
            is_, was = truth(whole, 0.0, t, history, on), bool(on[name]) and on[name][-1]
            chosen = [e["rules"] for _, e in history.until(t) if e["kind"] == "profile"]
            now = was
            if chosen and chosen[-1] is not None and name not in chosen[-1]:
                now = False
            elif is_ is True and not was:
                rests = max(1.0, seconds(rule.get("cooldown", "1s")))
                now = name not in last_on or (t - last_on[name]) * STEP >= rests
            elif is_ is False:
                now = False
            if now and not was:
                last_on[name] = t
            if now != was:
                changes.append((t, name, "on" if now else "off"))
            on[name].append(now)
    return changes

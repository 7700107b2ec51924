"""Words in an agent's last message that make its stop worth a look. They trigger an evaluation and decide nothing.

Each detector looks at one sentence at a time: words far apart mean nothing together. Code, quoted lines and paths are
taken out before, and so are compounds that only look like it, as "auth token" or "context manager".
"""

from __future__ import annotations

TEXT_CHARACTERS = 8000
QUIET_CHARACTERS = 20

# Patterns are compiled only for a text that has one of the words they need: most have none.
NOISE = r"(?s)```.*?(?:```|\Z)|(?m:`[^`\n]*`|^[ \t]*>[^\n]*$)|(?<!\S)[^\s/]*/\S*"
COMPOUNDS = (
    r"\b(?:auth|access|api|csrf|refresh|bearer|id|jwt|session|design|lexer|security)[ -]tokens?\b"
    r"|\bcontext (?:managers?|processors?|providers?|menus?|variables?|objects?|switch\w*)\b"
    r"|\b(?:react|request|execution|ssl|app|django) contexts?\b"
    r"|\bsession (?:tokens?|cookies?|ids?|keys?|stores?|variables?|objects?|factory|maker|hijack\w*)\b"
)
SENTENCE = r"[.!?;\n]+"
WORDS = {
    "mentionsContext": ("context", "token"),
    "mentionsCompaction": ("compact",),
    "mentionsFreshSession": ("session", "chat", "conversation", "window", "context", "start"),
    "mentionsLaterSession": ("session", "chat", "conversation", "window", "tomorrow", "pick"),
    "mentionsBreakPoint": ("point", "boundary", "stopping", "break", "paus", "hand", "check"),
    "mentionsNaturalPause": ("natural pause", " here"),
    "mentionsClarityPause": ("clarity", "thread"),
}

CONTEXT = r"\b(?:context|tokens?)\b"
RUNS_OUT = (
    r"\b(?:stop|paus|sav(?:e|ing)|preserv|conserv|protect|limit|budget|full|fill|wrap|hand(?:ing)? (?:off|over)|exhaust"
    r"|runn?(?:ing)? (?:out|low))"
)
CONVERSATION = r"\b(?:context|conversation|session|history)\b"
POINT = r"(?:good|natural|clean|logical|sensible|safe|nice) (?:stopping|breaking|break|pausing|pause|hand-?off|check)"

# A detector fires where a sentence has all patterns of one of its rows.
DETECTORS = {
    "mentionsContext": ((CONTEXT, RUNS_OUT),),
    "mentionsCompaction": (
        (r"\b(?:auto-?)?compaction\b",),
        (r"\bcompact(?:ed|ing|s)?\b", CONVERSATION),
        (r"\b(?:get|gets|getting|am|is|being) (?:auto-?)?compacted\b",),
    ),
    "mentionsFreshSession": (
        (r"\b(?:fresh|new|clean|another)(?: \w+)? (?:session|chat|conversation|window|context)\b",),
        (r"\brestart(?:ing)? (?:the |this |our )?(?:session|chat|conversation)\b",),
        (r"\bstart(?:ing)? (?:over|fresh|afresh)\b",),
    ),
    "mentionsLaterSession": (
        (r"\b(?:later|next|future|separate|follow-?up|subsequent)(?: \w+)? (?:session|chat|conversation|window)\b",),
        (r"\btomorrow\b",),
        (r"\bpick(?:ing|ed)? (?:this |it |that |things |the work )?(?:back )?up\b",),
    ),
    "mentionsBreakPoint": (
        (rf"\b{POINT}[ -]?(?:point|place|spot)?\b",),
        (r"\b(?:stopping|breaking) point\b",),
        (r"\bslice boundary\b",),
    ),
    "mentionsNaturalPause": ((r"\bnatural pause\b",), (r"\b(?:paus(?:e|ing)|stop(?:ping)?) here\b",)),
    "mentionsClarityPause": ((r"\bpaus(?:e|ing) for clarity\b",), (r"\blos(?:e|ing) (?:the |my )?thread\b",)),
}


def detect(text: str) -> list[str]:
    """Return the names of the detectors that fire, in their order; `suspiciouslyQuiet` for next to no words at all."""
    text = text[-TEXT_CHARACTERS:]
    if len(text.strip()) <= QUIET_CHARACTERS:
        return ["suspiciouslyQuiet"]
    low = text.lower()
    likely = [name for name in DETECTORS if any(word in low for word in WORDS[name])]
    if not likely:
        return []
    import re  # not at the top: most stops have no use for it

    plain = re.sub(COMPOUNDS, " ", re.sub(NOISE, " ", low))
    sentences = [" ".join(sentence.split()) for sentence in re.split(SENTENCE, plain)]
    together = "\n".join(sentences)
    return [name for name in likely if any(fires(row, together, sentences) for row in DETECTORS[name])]


def fires(row: tuple[str, ...], together: str, sentences: list[str]) -> bool:
    """Say whether one of the sentences has all patterns of a row; most texts have not all of them anywhere."""
    import re

    if not all(re.search(pattern, together) for pattern in row):
        return False
    return len(row) == 1 or any(all(re.search(pattern, each) for pattern in row) for each in sentences)

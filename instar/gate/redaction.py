"""Taking secrets out of a text before it is stored, sent to a judge, or shown.

Each is replaced whole by its kind: `[redacted:token]`. Redact first and cut afterwards: half a secret looks like none.
The time taken grows with the length of the text alone, whatever it holds.
"""

from __future__ import annotations

import re
from typing import Final

# A block that does not end is a secret up to the end of the text.
_PRIVATE_KEY: Final = (
    r"(?P<keep>)-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----"
    r"(?:(?s:.*?)-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----|(?s:.*))"
)
_VALUE: Final = (
    r"(?P<keep>(?i:passw(?:or)?d|passphrase|pwd|secret|token|api[_-]?key|access[_-]?key|private[_-]?key)"
    r"\\{0,4}[\"']?[ \t]{0,8}(?::=|=>|[:=])[ \t]{0,8})"
    r"(?:\"(?:[^\"\\\n]|\\[^\n])*\\?\"?|'[^'\n]*'?|[^\s\"']\S*)"
)
_HOME: Final = (
    r"(?P<keep>)(?:(?<![\w.~-])(?:/(?:home|Users)/[^\s/\"'`:;,)]+|/root(?![\w.-]))"
    r"|(?i:\b[a-z]:\\Users\\)[^\s\\\"'`]+)"
)

# In the order in which they are taken out: what may enclose another comes before it. What a pattern keeps is no secret.
_SECRETS: Final[tuple[tuple[str, re.Pattern[str]], ...]] = tuple(
    (kind, re.compile(pattern))
    for kind, pattern in (
        ("private-key", _PRIVATE_KEY),
        ("login", r"(?P<keep>://)[^\s/]+@"),
        ("value", _VALUE),
        ("bearer", r"(?P<keep>(?i:\b(?:bearer|basic))[ \t]{1,8})[A-Za-z0-9._~+/=:-]{6,}"),
        ("signature", r"(?P<keep>(?i:\bsig=))[^\s&\"']+"),
        ("jwt", r"(?P<keep>)(?<![A-Za-z0-9_-])eyJ[A-Za-z0-9_-]{4,}\.[A-Za-z0-9_-]{4,}(?:\.[A-Za-z0-9_-]*)?"),
        ("token", r"(?P<keep>)(?:github_pat_|gh[opsur]_|glpat-|npm_|hf_|[rs]k_(?:live|test)_)[A-Za-z0-9_-]{10,}"),
        ("token", r"(?P<keep>)(?:sk-(?:ant|proj|svcacct|admin)-|(?<![A-Za-z0-9])sk-)[A-Za-z0-9_-]{12,}"),
        ("token", r"(?P<keep>)(?:xox[a-z]-[A-Za-z0-9-]{8,}|AIza[A-Za-z0-9_-]{20,}|(?:AKIA|ASIA)[A-Z0-9]{12,})"),
        ("token", r"(?P<keep>)(?<!\d)\d{8,12}:[A-Za-z0-9_-]{30,}"),
        ("e-mail", r"(?P<keep>)(?<![\w.%+-])[\w.%+-]+@(?:[\w-]+\.)+[^\W\d_]{2,}"),
        ("home", _HOME),
    )
)


def redacted(text: str) -> str:
    """Return a text without tokens, keys, passwords, e-mail addresses, and the names of home folders."""
    for kind, pattern in _SECRETS:
        text = pattern.sub(rf"\g<keep>[redacted:{kind}]", text)
    return text

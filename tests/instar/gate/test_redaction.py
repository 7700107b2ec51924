"""No part of a secret stays in a text, and no text takes long."""

from __future__ import annotations

import string
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instar.gate.redaction import redacted

BASE64URL = string.ascii_letters + string.digits + "-_"


def run(alphabet: str, low: int, high: int = 60) -> st.SearchStrategy[str]:
    return st.text(alphabet, min_size=low, max_size=high)


BODY = run(BASE64URL, 32)
PLAIN = run(string.ascii_letters + string.digits, 32)
# Strategies of (what is told, what must not be).
SECRETS: dict[str, st.SearchStrategy[tuple[str, str]]] = {
    "openai": BODY.map(lambda body: (f"sk-{body}", body)),
    "anthropic": BODY.map(lambda body: (f"sk-ant-admin-{body}", body)),
    "github": st.tuples(st.sampled_from(["ghp", "gho", "ghs", "ghu", "github_pat"]), PLAIN).map(
        lambda pair: (f"{pair[0]}_{pair[1]}", pair[1])
    ),
    "aws": run(string.ascii_uppercase + string.digits, 16, 16).map(lambda body: (f"AKIA{body}", body)),
    "slack": PLAIN.map(lambda body: (f"xoxb-{body}", body)),
    "google": run(BASE64URL, 35, 35).map(lambda body: (f"AIza{body}", body)),
    "telegram": st.tuples(run(string.digits, 8, 12), BODY).map(lambda pair: (":".join(pair), pair[1])),
    "jwt": st.tuples(BODY, BODY, BODY).map(lambda parts: (f"eyJ{'.'.join(parts)}", parts[2])),
    "bearer": BODY.map(lambda body: (f"Authorization: Bearer {body}", body)),
    "query": PLAIN.map(lambda body: (f"https://x.invalid/?a=1&sig={body}", body)),
    "login": PLAIN.map(lambda body: (f"postgres://me:{body}@db.invalid/x", body)),
    "block": PLAIN.map(
        lambda body: (f"-----BEGIN RSA PRIVATE KEY-----\n{body}\n-----END RSA PRIVATE KEY-----", body)
    ),
    "open block": PLAIN.map(lambda body: (f"-----BEGIN PRIVATE KEY-----\n{body}", body)),
    "value": st.tuples(
        st.sampled_from(
            ["password=", "PASSWORD: ", "db_token = ", '"token": "', "'secret': '", "API_KEY=", "api-key => "]
        ),
        PLAIN,
    ).map(lambda pair: ("".join(pair), pair[1])),
    "e-mail": run(string.ascii_lowercase, 10).map(lambda body: (f"{body}.x@mail.example.org", body)),
    "home": run(string.ascii_lowercase, 8).map(lambda body: (f"/home/{body}/.ssh", body)),
}  # fmt: skip
AROUND = st.text(string.printable + "é\u2028\x00", max_size=40)


@pytest.mark.parametrize("kind", SECRETS)
@given(data=st.data(), before=AROUND, after=AROUND)
def test_no_part_of_a_secret_survives(kind: str, data: st.DataObject, before: str, after: str) -> None:
    told, secret = data.draw(SECRETS[kind])

    left = redacted(f"{before} {told} {after}")

    outside = f"{before} {after} [redacted:private-key]"
    parts = {secret[index : index + 6] for index in range(len(secret) - 5)}
    assert not {part for part in parts if part in left and part not in outside}


@given(text=st.text(max_size=300))
def test_redacting_again_changes_nothing(text: str) -> None:
    assert redacted(redacted(text)) == redacted(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("password=hunter2 and on", "password=[redacted:value] and on"),
        ('{"token": "a b", "x": 1}', '{"token": [redacted:value], "x": 1}'),
        ('{\\"token\\": \\"a\\"}', '{\\"token\\": [redacted:value]'),
        ("mail me@example.org now", "mail [redacted:e-mail] now"),
        ("in /home/someone/x and /Users/me", "in [redacted:home]/x and [redacted:home]"),
        ("C:\\Users\\me\\x", "[redacted:home]\\x"),
        ("see /root/.ssh", "see [redacted:home]/.ssh"),
        ("bearer abcdef123", "bearer [redacted:bearer]"),
        ("-----BEGIN PGP PRIVATE KEY BLOCK-----x-----END PGP PRIVATE KEY BLOCK-----y", "[redacted:private-key]y"),
    ],
)  # fmt: skip
def test_the_kind_stands_for_the_secret(text: str, expected: str) -> None:
    assert redacted(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "task-management-of-all-things", "docs/home/plan.md", "the tokens are 5", "max_tokens=9", "@dataclass",
     "12:30", "a@b", "docs/plans/root.md", "commit 0123456789abcdef0123456789abcdef01234567", "nextjs.config.js"],
)  # fmt: skip
def test_what_is_no_secret_stays(text: str) -> None:
    assert redacted(text) == text


PIECES = (
    "a", "a.", "a@", "a@b.", "eyJ", "eyJaaaa.", "sk-", "-----BEGIN ", "-----BEGIN PRIVATE KEY-----", "-----END ",
    "password", 'password="', "token=\\", 'token"', "token ", "://", "://a", "1", "12345678:", "/home/", "Bearer ",
    "sig=", "AKIA", "xoxb-", "C:\\Users\\", "é", " ", "\n", "\\",
)  # fmt: skip


@pytest.mark.parametrize("piece", PIECES)
def test_the_time_grows_with_the_length_alone(piece: str) -> None:
    began = time.monotonic()
    redacted((piece * 200_000)[:200_000] + "!")

    assert time.monotonic() - began < 2

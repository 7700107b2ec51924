"""Who judges a stop: by rules, or by asking a program."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol

from instar.config import PATH
from instar.gate.clients import ClaudeCli, CodexCli, Command
from instar.gate.rules import Pointer
from instar.gate.settings import authority_settings
from instar.gate.verdict import Unusable, Verdict

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from instar.gate.evidence import Artifact, Evidence

# What a stop excuses itself with that no plan on disk leaves standing.
EXCUSES: Final = frozenset({"mentionsContext", "mentionsCompaction", "mentionsFreshSession", "mentionsLaterSession"})
SENTENCES: Final = 3
WORDS_READ: Final = 8000

_SENTENCE_ENDS: Final = re.compile(r"(?<=[.!?])[ \t]+|\n+")
_CODE: Final = re.compile(r"```[^`]*```|`[^`\n]*`")
_NO_ERROR: Final = re.compile(r"\b(?:no|without|zero|0) (?:\w+ )?(?:errors?|failures?)\b", re.IGNORECASE)
_QUESTION: Final = re.compile(
    r"[?\uFF1F\u061F]|\b(?:should i|shall i|do you want|would you|want me to|let me know|up to you"
    r"|please (?:confirm|decide|choose)|your (?:call|decision|choice))\b",
    re.IGNORECASE,
)
_MISSING: Final = re.compile(
    r"\b(?:need|needs|require|requires|missing|waiting|without|provide|lack|don't have|do not have)\b[^.!?\n]{0,80}"
    r"\b(?:credentials?|password|api key|access|(?:access|api|auth) token|secret|login|link|url|approval|permission"
    r"|account|input|answer|from you)\b",
    re.IGNORECASE,
)
_ERROR: Final = re.compile(
    r"\b(?:errors?|exception|traceback|fail(?:s|ed|ing|ure|ures)?|crash(?:es|ed)?|blocked|cannot|can't|unable to|denied"
    r"|timed out|broken|stuck)\b",
    re.IGNORECASE,
)
_COMPLETION: Final = re.compile(
    r"\b(?:all|everything|whole|entire|every|work|task|plan|feature|implementation|build)\b[^.!?\n]{0,80}"
    r"\b(?:done|complete|completed|finished|implemented|ready)\b"
    r"|\b(?:completed|finished|nothing (?:is )?left|nothing remains|no remaining)\b",
    re.IGNORECASE,
)


class Authority(Protocol):
    """A judge of stops. `is_offline`: it asks no model, and costs nothing."""

    @property
    def name(self) -> str:
        """What it is called in the configuration and in what is recorded."""

    @property
    def is_offline(self) -> bool:
        """Whether it judges by itself."""

    def judge(self, evidence: Evidence, stop_reason: str, signals: Collection[str], seconds: float) -> Verdict:
        """Return a valid verdict, within `seconds` and what it takes to end a program. Raise Unusable, nothing else."""


@dataclass(frozen=True)
class Rules:
    """Judges by a few words and by what the disk shows: the same answer every time, and no model asked."""

    name: ClassVar[str] = "rules"
    is_offline: ClassVar[bool] = True

    def judge(self, evidence: Evidence, stop_reason: str, signals: Collection[str], seconds: float) -> Verdict:  # noqa: ARG002 - it takes no time
        """Return "continue" where the excuse is the context and a plan is open, "allow" for anything like a reason."""
        words = _last_words(stop_reason)
        for rule, pattern in (
            ("U_LEGIT_DESIGN_QUESTION", _QUESTION),
            ("U_LEGIT_MISSING_INFO", _MISSING),
            ("U_LEGIT_ERROR", _ERROR),
            ("U_LEGIT_COMPLETION", _COMPLETION),
        ):
            if pattern.search(words):
                return Verdict("allow", rule, rationale="the last sentences say so")
        found = [plan for plan in evidence.older if plan.has_open_item]
        if not found or EXCUSES.isdisjoint(signals):
            return Verdict("escalate", "U_AMBIGUOUS_INSUFFICIENT_SIGNAL", rationale="no open plan, or no known excuse")
        return next((proven for plan in found if (proven := _by_progress(plan, evidence))), None) or Verdict(
            "continue", "U2_PLAN_FILE_NEXT_STEP_EXPLICIT", Pointer(found[0].path), "the plan has an open item"
        )


@dataclass(frozen=True)
class Missing:
    """Stands for a judge that the configuration does not make: each stop is let go, with the reason."""

    name: str
    reason: str
    is_offline: ClassVar[bool] = False

    def judge(self, evidence: Evidence, stop_reason: str, signals: Collection[str], seconds: float) -> Verdict:
        """Raise Unusable."""
        del evidence, stop_reason, signals, seconds
        raise Unusable("llmUnavailable", self.reason)


def authority(config: Mapping[str, Any], *, is_ours: bool = True) -> Authority:
    """Return the judge that a project's configuration names; the rules where it names none. Never raises.

    `is_ours` is whether the configuration is the owner's; one that comes with a repository may name no program.
    """
    settings = authority_settings(config)
    provider = settings.get("provider", Rules.name)
    path, model, command = (settings.get(key) for key in ("path", "model", "command"))
    if provider == Rules.name:
        return Rules()
    if not is_ours and (path or provider == Command.name):
        return Missing(
            str(provider)[:40], f"{PATH} is in git, where anybody may name a program: git rm --cached {PATH}"
        )
    if provider in (ClaudeCli.name, CodexCli.name):
        program = path if isinstance(path, str) and path else provider.removesuffix("-cli")
        asked = model if isinstance(model, str) else ""
        return ClaudeCli(program, asked) if provider == ClaudeCli.name else CodexCli(program, asked)
    if provider != Command.name:
        return Missing(str(provider)[:40], "unjustifiedStopGate.authority.provider names no authority that there is")
    if not isinstance(command, list) or not command or not all(isinstance(word, str) and word for word in command):
        return Missing(Command.name, "unjustifiedStopGate.authority.command is no list of words")
    return Command(tuple(command))


def _last_words(text: str) -> str:
    """Return the last sentences of what was said, without code and without what says that there is no error."""
    plain = _NO_ERROR.sub("", _CODE.sub("", text[-WORDS_READ:]))
    sentences = [sentence for each in _SENTENCE_ENDS.split(plain) if (sentence := each.strip())]
    return "\n".join(sentences[-SENTENCES:])


def _by_progress(plan: Artifact, evidence: Evidence) -> Verdict | None:
    """Return the verdict by a commit of the session that worked on a plan, if there is one."""
    working = [commit.sha for commit in evidence.session_commits if plan.path in commit.changed]
    if not plan.introducing or not working or working[0] == plan.introducing:
        return None
    pointer = Pointer(plan.path, plan.introducing, working[0])
    return Verdict("continue", "U1_DURABLE_ARTIFACT_CONTINUATION_SAFE", pointer, "a commit of the session touches it")

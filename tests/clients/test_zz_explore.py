from __future__ import annotations
import json, os, re, shlex
import pytest
from . import claude as claude_module
from .fake_model import Run, Say

@pytest.mark.parametrize("extra", [{"statusMessage": "note"}, {"async": True}, {"timeout": 5}, {"args": []}])
def test_explore(claude, fake_model, project, tmp_path, extra, tmux):
    path = project.root / ".claude/settings.json"
    s = json.loads(path.read_text())
    s["hooks"]["PreCompact"][0]["hooks"][0].update(extra)
    path.write_text(json.dumps(s))
    driven = claude(fake_model(), project=project.root)
    with driven.converse() as conversation:
        turns = [conversation.prompt(text) for text in ("hello", "are you there?", "/compact", "who are you?")]
    text = json.dumps(driven.model.requests[-1].body["messages"])
    print(extra, re.findall(r"Compacted[^<]*<", text))
    print([(h.event, h.outcome, h.stdout) for t in turns for h in t.hooks])
    tui = tmux.start(claude(fake_model(), project=project.root), *claude_module.NO_QUESTIONS)
    tui.prompt("go", until="done.")
    tui.prompt("/compact", until="ompact")
    tui.wait_until_idle()
    print(tui.scrollback())
    assert 0

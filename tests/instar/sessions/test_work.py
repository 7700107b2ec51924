"""What runs for a session is work, unless it is a helper that waits; what cannot be told is work."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clients.waiting import wait_until
from instar.sessions.machine.process import Process
from instar.sessions.machine.processes import Table, read_table
from instar.sessions.machine.programs import is_helper, names
from instar.sessions.machine.tmux import Tmux
from instar.sessions.machine.work import CpuMarks, Pace, Scope, agent_is_busy, cpu_marks, working
from stand_ins import BASH

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from stand_ins import Tmux as Server

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the stand-ins are told by /proc")

SESSION = f"the-session-of-{os.getpid()}"  # what other test processes start is not its work
RATE = 0.02
LONG_AFTER, LONG_BEFORE = 1e11, 1.0  # moments of a first prompt, in seconds since 1970
READS_LINES = 'while read -r line; do eval "$line"; done'
SPINS = "while :; do :; done"


class Agent:
    """A shell that stands where a client would, and starts what it is told."""

    def __init__(self, folder: Path, process: subprocess.Popen[bytes]) -> None:
        self.folder = folder
        self.shell = process
        self.count = 0

    def start(self, line: str) -> int:
        """Start a shell line in the background, under the given name, and return the id of its process."""
        self.count += 1
        note = self.folder / f"started-{self.count}"
        assert self.shell.stdin
        self.shell.stdin.write(f"{line} & echo $! >{note}.new; mv {note}.new {note}\n".encode())
        self.shell.stdin.flush()
        wait_until(note.exists, line)
        return int(note.read_text())

    def look(self) -> tuple[Table, Process]:
        table = read_table()
        agent = table.get(self.shell.pid)
        assert agent
        return table, agent

    def works(self, scope: Scope | None = None, before: CpuMarks | None = None, rate: float = RATE) -> dict[int, str]:
        """Return what counts as work by its process ids."""
        table, agent = self.look()
        return {
            each.process.pid: each.why for each in working(table, agent, scope or Scope(SESSION), Pace(rate, before))
        }

    def idle_marks(self) -> CpuMarks:
        """Return marks as if all below had used what it has used, for an hour."""
        marks = cpu_marks(*self.look())
        return CpuMarks(marks.at - 3600, marks.used)


@pytest.fixture
def start_agent(tmp_path: Path) -> Iterator[Callable[..., Agent]]:
    """Return what starts an agent; nothing of its group or its terminal is left in the end."""
    agents: list[Agent] = []

    def start(**env: str) -> Agent:
        process = subprocess.Popen(
            [BASH, "-c", READS_LINES], stdin=subprocess.PIPE, cwd=tmp_path, start_new_session=True,
            env={"PATH": os.environ["PATH"], **env},
        )  # fmt: skip
        agents.append(Agent(tmp_path, process))
        return agents[-1]

    yield start
    for agent in agents:
        with suppress(ProcessLookupError):
            os.killpg(agent.shell.pid, signal.SIGKILL)
        agent.shell.communicate()


@pytest.fixture
def agent(start_agent: Callable[..., Agent]) -> Agent:
    return start_agent()


def test_an_agent_alone_does_not_work(agent: Agent) -> None:
    assert agent.works() == {}


def test_a_tool_is_work_and_so_is_what_it_started(agent: Agent) -> None:
    tool = agent.start("bash -c 'sleep 600; :'")
    wait_until(lambda: len(agent.works(Scope(SESSION, None, LONG_BEFORE))) == 2, "the tool and its child")

    assert agent.works(Scope(SESSION, None, LONG_BEFORE))[tool] == "it runs below the client"


def test_a_flat_tool_is_no_less_work(agent: Agent) -> None:
    tool = agent.start("sleep 600")

    assert set(agent.works(Scope(SESSION, None, LONG_BEFORE), agent.idle_marks())) == {tool}


def test_a_zombie_is_no_work(agent: Agent) -> None:
    (agent.folder / "leaves.py").write_text("import os, signal\nos.fork() or os._exit(0)\nsignal.pause()")
    parent = agent.start(f"{sys.executable} -S leaves.py")
    wait_until(lambda: [each.is_zombie for each in read_table().below(parent)] == [True], "its child is a zombie")

    assert set(agent.works(Scope(SESSION, None, LONG_BEFORE))) == {parent}


# Helpers: what waits since before the first prompt, or goes by a known name.


def test_what_waits_since_before_the_first_prompt_is_no_work(agent: Agent) -> None:
    helper = agent.start("sleep 600")
    marks = agent.idle_marks()

    assert agent.works(Scope(SESSION, None, LONG_AFTER), marks) == {}
    assert agent.works(Scope(SESSION, None, None), marks) == {}
    assert set(agent.works(Scope(SESSION, None, LONG_BEFORE), marks)) == {helper}


def test_a_helper_at_first_sight_may_be_at_work(agent: Agent) -> None:
    helper = agent.start("sleep 600")
    _, old = agent.look()
    another = {helper: ("1", 0.0)}

    for before in (None, CpuMarks(0, {}), CpuMarks(0, {old.pid: (old.start, 0.0)}), CpuMarks(0, another)):
        assert "not seen for long enough" in agent.works(Scope(SESSION), before)[helper]


def test_a_moment_is_too_short_to_tell_a_waiting_helper(agent: Agent) -> None:
    helper = agent.start("sleep 600")
    marks = agent.idle_marks()
    now = agent.look()[0].taken_at

    assert set(agent.works(None, CpuMarks(now + 100, marks.used))) == {helper}
    assert set(agent.works(None, CpuMarks(now - 0.01, marks.used))) == {helper}


def test_a_busy_helper_is_work_until_it_waits(agent: Agent) -> None:
    helper = agent.start(f"bash -c {shlex.quote(SPINS)}")
    marks = cpu_marks(*agent.look())

    wait_until(lambda: "at work" in agent.works(None, marks).get(helper, ""), "it uses the processor")
    os.kill(helper, signal.SIGSTOP)
    assert agent.works(None, agent.idle_marks()) == {}


def test_the_child_of_a_helper_is_work_while_it_moves(agent: Agent) -> None:
    code = f"import subprocess, signal; subprocess.Popen(['bash', '-c', {SPINS!r}]); signal.pause()"
    helper = agent.start(f"{shlex.quote(sys.executable)} -S -c {shlex.quote(code)}")
    child = wait_until(lambda: read_table().below(helper), "its child")[0]
    before = Scope(SESSION, None, LONG_BEFORE, ("python*",))
    marks = cpu_marks(*agent.look())

    wait_until(lambda: set(agent.works(before, marks)) >= {child.pid}, "the child moves")
    os.kill(child.pid, signal.SIGSTOP)
    os.kill(helper, signal.SIGSTOP)
    assert agent.works(before, agent.idle_marks()) == {}
    assert set(agent.works(Scope(SESSION, None, LONG_BEFORE), agent.idle_marks())) == {helper, child.pid}


@pytest.mark.parametrize("name", ["bash", "codex", "claude", "-zsh"])
def test_a_shell_or_a_client_that_was_there_before_excuses_no_tool(agent: Agent, name: str) -> None:
    code = "read -r line <go; sleep 600; :"
    os.mkfifo(agent.folder / "go")
    wrapper = agent.start(f"exec -a {name} {BASH} -c {shlex.quote(code)}")
    wait_until(lambda: (found := read_table().get(wrapper)) and found.argv[0] == name, "it has its name")
    process = read_table().get(wrapper)
    assert process
    (agent.folder / "go").write_text("\n")
    tool = wait_until(lambda: read_table().below(wrapper), "the tool")[0]
    # As if the first prompt came between the two.
    table, me = agent.look()
    later = Process(**{**vars(tool), "created": process.created + 100})
    table = Table(table.taken_at, [later if each.pid == tool.pid else each for each in table])

    found = working(table, me, Scope(SESSION, None, process.created + 50), Pace(RATE, agent.idle_marks()))

    assert [each.process.pid for each in found] == [tool.pid]


def test_a_helper_goes_by_its_name_at_any_time(agent: Agent) -> None:
    helper = agent.start("exec -a mcp-server-git sleep 600")
    other = agent.start("exec -a my-watcher sleep 600")
    started = {"mcp-server-git", "my-watcher"}
    wait_until(lambda: started <= {each.argv[0] for each in read_table().below(agent.shell.pid) if each.argv}, "both")
    marks = agent.idle_marks()

    assert set(agent.works(Scope(SESSION, None, LONG_BEFORE), marks)) == {other}
    assert agent.works(Scope(SESSION, None, LONG_BEFORE, ("My-*",)), marks) == {}
    assert set(agent.works(Scope(SESSION, None, LONG_BEFORE), None)) == {helper, other}


def test_what_a_shell_below_a_helper_started_is_the_helpers(agent: Agent) -> None:
    helper = agent.start("exec -a mcp-server-git bash -c 'bash -c \"sleep 600; :\"; :'")
    wait_until(lambda: len(read_table().below(helper)) == 2, "the shell, and what it started")

    assert agent.works(Scope(SESSION, None, LONG_BEFORE), agent.idle_marks()) == {}


NAMES = [
    ("npx @playwright/mcp@latest --headless", True),
    ("npm exec @playwright/mcp@latest", True),
    ("npm exec -y -- @upstash/context7-mcp", True),
    ("node /usr/lib/node_modules/@playwright/mcp/cli.js --headless", True),
    ("node /home/me/.npm/_npx/1/node_modules/.bin/playwright-mcp", True),
    ("node --no-warnings --max-old-space-size=99 /x/mcp-server.mjs", True),
    ("node /x/mcp-stdio-entry.js", True),
    ("/usr/bin/python3.12 -u -m mcp_server_fetch", True),
    ("python /venv/bin/mcp-server-git --repository .", True),
    ("uvx mcp-server-time==1", True),
    ("uvx mcp-server-time", True),
    ("uv tool run mcp-server-time@1.0", True),
    ("GitHub-MCP-Server stdio", True),
    ("/opt/bin/caffeinate -i", True),
    ("python -m pytest tests/mcp/test_server.py", False),
    ("python tests/mcp/mcp_server_test.py", False),
    ("make -C mcp server", False),
    ("cargo build -p mcp --bin server", False),
    ("bash -c mcp-server", False),
    ("sh -c source /home/me/.claude/shell-snapshots/mcp-server.sh", False),
    ("node -r ./mcp-server.js build.js", False),
    ("node --import mcp-server build.js", False),
    ("python -c mcp_server", False),
    ("python -X mcp-server work.py", False),
    ("npx -p mcp-server tsc", False),
    ("npm run mcp-server", False),
    ("npm exec tsc mcp-server", False),
    ("vim mcp-server", False),
    ("git -C mcp-server fetch", False),
    ("node", False),
    ("npx", False),
    ("python -m", False),
    ("", False),
]


@pytest.mark.parametrize(("line", "is_one"), NAMES)
def test_a_name_stands_in_its_place_and_nowhere_else(line: str, is_one: bool) -> None:  # noqa: FBT001 - a column
    assert is_helper(line.split()) == is_one


def test_a_title_of_npm_is_read_as_a_command() -> None:
    assert names(["npm exec @playwright/mcp@latest --headless"]) == {"npm", "@playwright/mcp"}
    assert names(["/a b/mcp server"]) == {"mcp server"}


@pytest.mark.parametrize(
    "line", ["python -m pytest tests/mcp/test_server.py", "make -C mcp server", "cargo build -p mcp --bin server"]
)
def test_work_on_an_mcp_server_is_work(agent: Agent, tmp_path: Path, line: str) -> None:
    name, *arguments = line.split()
    program = tmp_path / name
    program.symlink_to(BASH)
    (tmp_path / "waits").write_text("read -r line <waits-for-ever")
    os.mkfifo(tmp_path / "waits-for-ever")
    work = agent.start(f"BASH_ENV=waits {program} -c : {' '.join(map(shlex.quote, arguments))}")

    assert set(agent.works(Scope(SESSION, None, LONG_BEFORE), agent.idle_marks())) == {work}


@given(st.lists(st.sampled_from(["mcp", "server", "mcp-server", "tests/mcp/server.py", "-m", "--", "npx"]), max_size=6))
def test_no_argument_makes_a_helper_of_a_program(arguments: Sequence[str]) -> None:
    for program in ("make", "cargo", "pytest", "bash", "git", "/usr/bin/vim"):
        assert names([program, *arguments]) == {program.rpartition("/")[2]}
        assert not is_helper([program, *arguments])


# Outside the tree: by the session's id, and by the terminal.

LEAVES = (
    "import os, signal\nos.fork() and os._exit(0)\nos.setsid()\nos.fork() and os._exit(0)\n"
    "open('daemon.new', 'w').write(str(os.getpid()))\nos.rename('daemon.new', 'daemon')\nsignal.pause()"
)


@pytest.mark.parametrize("variable", ["INSTAR_SESSION_ID", "CLAUDE_CODE_SESSION_ID", "CODEX_THREAD_ID"])
def test_a_daemon_of_the_session_is_work_wherever_it_went(agent: Agent, variable: str) -> None:
    (agent.folder / "leaves.py").write_text(LEAVES)
    agent.start(f"{variable}={SESSION} {sys.executable} -S leaves.py")
    wait_until((agent.folder / "daemon").exists, "the daemon")
    daemon = int((agent.folder / "daemon").read_text())
    try:
        wait_until(lambda: agent.works() == {daemon: "it was started by the session"}, "only the daemon is left")
        assert agent.works(Scope("another")) == {}
        assert agent.works(None, agent.idle_marks()) == {daemon: "it was started by the session"}
    finally:
        os.kill(daemon, signal.SIGKILL)


def test_an_agent_that_carries_its_own_session_is_not_its_work(start_agent: Callable[..., Agent]) -> None:
    assert start_agent(INSTAR_SESSION_ID=SESSION).works() == {}


def test_what_the_agent_runs_below_is_not_its_work(start_agent: Callable[..., Agent]) -> None:
    shell = start_agent(INSTAR_SESSION_ID=SESSION)
    agent = shell.start("exec sleep 600")
    table = read_table()
    process = table.get(agent)
    assert process

    assert {each.pid for each in table.carrying(SESSION)} == {shell.shell.pid, agent}
    assert working(table, process, Scope(SESSION), Pace(RATE, None)) == []


def test_who_looks_and_what_is_above_are_not_work(start_agent: Callable[..., Agent], tmp_path: Path) -> None:
    """The session asks for its own state, and carries its id down to who looks."""
    looker = tmp_path / "look.py"
    looker.write_text(
        "import os, sys\n"
        "from instar.sessions.machine.processes import read_table\n"
        "from instar.sessions.machine.work import Pace, Scope, working\n"
        "table = read_table()\n"
        f"found = working(table, table.get(int(sys.argv[1])), Scope({SESSION!r}, None, 1.0), Pace(0.02, None))\n"
        "open('seen.new', 'w').write(repr([each.process.argv for each in found]))\n"
        "os.rename('seen.new', 'seen')\n"
    )
    agent = start_agent(INSTAR_SESSION_ID=SESSION)
    agent.start(f"bash -c '{sys.executable} {looker} {agent.shell.pid}; :'")
    wait_until((tmp_path / "seen").exists, "it looked")

    assert (tmp_path / "seen").read_text() == "[]"


@pytest.fixture
def pane_agent(start_tmux: Callable[[str], Server], tmp_path: Path) -> Callable[[], tuple[Server, Scope]]:
    """Return what makes a pane with a shell with jobs, and where its session's work can be."""

    def make() -> tuple[Server, Scope]:
        server = start_tmux("server")
        server.ask("new-session", "-d", "-x", "80", "-y", "24", "-c", str(tmp_path), f"{BASH} --norc --noprofile -i")
        pane = Tmux(30).view(str(server.socket)).panes["%0"]
        return server, Scope(SESSION, pane, LONG_BEFORE)

    return make


def job(server: Server, tmp_path: Path, name: str, line: str) -> Process:
    """Run a line in the pane's shell; return the process whose id it writes down."""
    note = tmp_path / name
    server.ask("send-keys", "-t", "%0", f"{line.format(note=note)}", "Enter")
    wait_until(lambda: note.exists() and note.read_text().endswith("\n"), line)
    process = wait_until(lambda: read_table().get(int(note.read_text())), line)
    # What starts in the same hundredth of a second is not told apart.
    wait_until(lambda: time.clock_gettime(time.CLOCK_BOOTTIME) * 100 > int(process.start) + 1, "a later start")
    return process


def test_jobs_of_the_shell_count_from_when_the_agent_started(
    pane_agent: Callable[[], tuple[Server, Scope]], tmp_path: Path
) -> None:
    server, scope = pane_agent()
    older = job(server, tmp_path, "older", "sleep 600 & echo $! >{note}")
    agent = job(server, tmp_path, "agent", "sleep 601 & echo $! >{note}")
    newer = job(server, tmp_path, "newer", "sleep 602 & echo $! >{note}")
    assert older.terminal == agent.terminal == newer.terminal == (scope.pane.terminal if scope.pane else "")

    found = working(read_table(), agent, scope, Pace(RATE, None))

    assert [(each.process.pid, each.why) for each in found] == [(newer.pid, "it is on the terminal of the session")]


def test_two_panes_are_two_terminals(pane_agent: Callable[[], tuple[Server, Scope]], tmp_path: Path) -> None:
    server, scope = pane_agent()
    agent = job(server, tmp_path, "agent", "sleep 601 & echo $! >{note}")
    server.ask("split-window", "-d", "sleep 600")
    server.ask("new-window", "-d", "sleep 600")

    assert working(read_table(), agent, scope, Pace(RATE, None)) == []


# The agent itself, and the marks.


def test_an_agent_that_uses_the_processor_is_busy(agent: Agent) -> None:
    table, me = agent.look()
    assert agent_is_busy(table, me, Pace(RATE, None)) is None
    assert agent_is_busy(table, me, Pace(RATE, agent.idle_marks())) is False

    marks = cpu_marks(table, me)
    assert agent.shell.stdin
    agent.shell.stdin.write(f"{SPINS}\n".encode())
    agent.shell.stdin.flush()

    wait_until(lambda: agent_is_busy(*agent.look(), Pace(RATE, marks)), "the agent is busy")


def test_marks_survive_a_file(agent: Agent) -> None:
    agent.start("sleep 600")
    marks = cpu_marks(*agent.look())

    assert len(marks.used) == 2
    assert CpuMarks.from_json(json.loads(json.dumps(marks.as_json()))) == marks


@pytest.mark.parametrize(
    "value",
    [None, 7, [], {}, {"at": 1}, {"at": "x", "used": {}}, {"at": 1, "used": {"x": ["1", 1]}},
     {"at": 1, "used": {"1": 3}}, {"at": 1, "used": []}, {"at": 1, "used": {"1": ["1"]}}, {"at": None, "used": {}}],
)  # fmt: skip
def test_what_are_no_marks_is_none(value: Any) -> None:
    assert CpuMarks.from_json(value) is None


@given(
    rate=st.floats(0, 10), span=st.floats(-10, 1e5), used=st.floats(-10, 1e5), start=st.sampled_from(["1", "2"]),
    is_known=st.booleans(),
)  # fmt: skip
def test_only_a_long_look_at_the_same_process_tells_that_it_waits(
    rate: float,
    span: float,
    used: float,
    start: str,
    is_known: bool,  # noqa: FBT001 - a column
) -> None:
    process = Process(7, 1, "1", 0.0, "x", ("x",), 100.0 + used if is_known else None, 0, None, 0, is_zombie=False)
    moving = Pace(rate, CpuMarks(50.0, {7: (start, 100.0)})).is_moving(Table(50.0 + span, [process]), process)

    if moving is False:
        assert start == "1"
        assert is_known
        assert span > 0
        assert rate * span >= 0.02 - 1e-9
        assert used < rate * span + 1e-9

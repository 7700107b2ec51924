"""What `instar-peers` does with a peer: it is woken, told something, stopped, and shown.

With `--json` the whole result is printed, whatever came of it; the status is 1 where it failed.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from typing import TYPE_CHECKING, Any, Final

import click

from instar.cli import peer_views as views
from instar.cli.listing import printable
from instar.cli.options import json_option, project_option, refusals, warn
from instar.cli.patience import patience
from instar.cli.peer_words import fit, lifecycle, words_option
from instar.errors import InstarError
from instar.lifecycle import verbs
from instar.lifecycle.peers import Broken
from instar.names import RUNTIMES

if TYPE_CHECKING:
    from collections.abc import Callable

    from instar.lifecycle.orders import Want

Said = dict[str, Any]

_name: Final = click.argument("name")
_runtime: Final = click.option(
    "--runtime", type=click.Choice(RUNTIMES), default=None, help="In which of its clients, where it has several."
)
_topic: Final = click.option("--topic", default="", metavar="TOPIC", help="What it is about: one line.")
_task: Final = click.option(
    "--task", default="", metavar="TEXT", callback=words_option, help="What it is told; - reads it."
)


@click.command()
@_name
@_topic
@_task
@click.option("--resume", "want", flag_value="resume", help="Take its last session up again, or fail.")
@click.option("--fresh", "want", flag_value="fresh", help="Start it with an empty context.")
@_runtime
@project_option
@json_option
def wake(  # noqa: PLR0913 - an option each
    name: str, topic: str, task: str, folder: str | None, *, want: Want | None, runtime: str | None, as_json: bool
) -> None:
    """Have a peer live. One that lives already is left as it is, and told nothing: send tells it."""
    with refusals():
        life = lifecycle(folder)
        with patience(f"waking {fit(name)}"):
            said = life.wake(name, task, topic, want or "", runtime=runtime or "")
    _tell(said, lambda: views.print_woken(name, said), as_json=as_json)
    if task and not said["taskDelivered"]:
        warn(f"it lives, and was not told its task: instar-peers send {name} does that")


@click.command()
@_name
@click.argument("message", callback=words_option)
@_topic
@_runtime
@project_option
@json_option
def send(  # noqa: PLR0913 - an option each
    name: str, message: str, topic: str, runtime: str | None, folder: str | None, *, as_json: bool
) -> None:
    """Have a message reach a peer, and wake it for that if it sleeps; - reads the message from standard input."""
    with refusals():
        life = lifecycle(folder)
        with patience(f"telling {fit(name)}"):
            said = life.send(name, message, topic, runtime=runtime or "")
    _tell(said, lambda: views.print_sent(name, said), as_json=as_json)


@click.command()
@click.argument("name", required=False)
@click.option("--all", "is_all", is_flag=True, help="Every peer of the project; of a named one, all its clients.")
@_runtime
@project_option
@json_option
def stop(name: str | None, runtime: str | None, folder: str | None, *, is_all: bool, as_json: bool) -> None:
    """End a peer, in all its clients unless one is named, and leave it asleep whoever wakes it, until start."""
    if name is None and not is_all:
        raise click.UsageError("name a peer, or use --all")
    if is_all and runtime:
        raise click.UsageError("--all means all clients: use it without --runtime")
    with refusals():
        life = lifecycle(folder)
        names = [name] if name is not None else [peer.name for peer in life.peers.all() if not isinstance(peer, Broken)]
        done = []
        for each in names:
            with patience(f"ending {fit(each)}"):
                done.append(verbs.stop(each, life.edges, runtime=runtime or ""))
    if name is not None:
        _tell(done[0], lambda: click.echo(f"{name} is stopped: instar-peers start {name} undoes it"), as_json=as_json)
        return
    _tell_all(done, as_json=as_json)


@click.command()
@_name
@_runtime
@project_option
@json_option
def start(name: str, runtime: str | None, folder: str | None, *, as_json: bool) -> None:
    """Let a stopped peer be woken again. It is not woken by that."""
    with refusals():
        said = verbs.start(name, lifecycle(folder).edges, runtime=runtime or "")
    was = said["status"] == "DONE" and any(each.get("wasStopped") for each in said["runtimes"])
    words = f"{name} may be woken again" if was else f"{name} was not stopped"
    _tell(said, lambda: click.echo(words), as_json=as_json)


@click.command()
@_name
@_task
@_runtime
@project_option
@json_option
def new(name: str, task: str, runtime: str | None, folder: str | None, *, as_json: bool) -> None:
    """End a peer, whatever it is at, and start it with an empty context."""
    with refusals():
        life = lifecycle(folder)
        with patience(f"starting {fit(name)} clean"):
            said = verbs.new(name, life.edges, task=task, runtime=runtime or "")
    _tell(said, lambda: views.print_woken(name, said), as_json=as_json)


@click.command()
@_name
@_runtime
@project_option
@json_option
def refresh(name: str, runtime: str | None, folder: str | None, *, as_json: bool) -> None:
    """Have the next wake of a peer be a clean start. What lives goes on."""
    with refusals():
        said = verbs.refresh(name, lifecycle(folder).edges, runtime=runtime or "")
    _tell(said, lambda: click.echo(f"{name} starts with an empty context when it is woken next"), as_json=as_json)


@click.command()
@_name
@click.option("--print", "is_print", is_flag=True, help="Only tell the command that shows it.")
@_runtime
@project_option
@json_option
def attach(name: str, runtime: str | None, folder: str | None, *, is_print: bool, as_json: bool) -> None:
    """Show a peer in this terminal; one that sleeps is taken up where it left off, or this fails."""
    with refusals():
        life = lifecycle(folder)
        with patience(f"looking for {fit(name)}"):
            said = verbs.attach(name, life.edges, runtime=runtime or "")
        command = said["command"]
        if as_json or not command:
            _tell(said, lambda: None, as_json=as_json)
            if as_json:
                return
            raise InstarError(f"{name} lives, and not in a pane of ours: nothing can show it here")
        if said["status"] != "READY":
            warn(views.failure(said))
        if is_print or not (sys.stdin.isatty() and sys.stdout.isatty()):
            click.echo(printable(views.shell_words(command)))
            return
        _become(command)


@click.command("self-fresh")
@project_option
@json_option
def self_fresh(folder: str | None, *, as_json: bool) -> None:
    """Have the peer that calls this start with an empty context once its turn is over."""
    with refusals():
        life = lifecycle(folder)
        name = life.own_name()
        if name is None:
            raise InstarError("this does not run below a peer: instar-peers new NAME starts one clean")
        said = verbs.self_fresh(name, life.edges)
    _tell(said, lambda: click.echo(printable(f"{name} starts clean once its turn is over")), as_json=as_json)


COMMANDS: Final = (wake, send, stop, start, new, refresh, attach, self_fresh)


def _become(command: list[str]) -> None:
    """Become what shows the peer. Raise InstarError or OSError where that cannot be."""
    program = shutil.which(command[0])
    if program is None:
        raise InstarError(f"{command[0]} is not on PATH; it would be: {views.shell_words(command)}")
    if os.environ.get("TMUX", "").rpartition(",")[0].rpartition(",")[0] == command[command.index("-S") + 1]:
        # A terminal that shows a peer already goes over to the other: tmux shows nothing within itself.
        command = ["switch-client" if word == "attach-session" else word for word in command]
    os.execv(program, command)  # noqa: S606 - no shell is wanted


def _tell(said: Said, print_it: Callable[[], None], *, as_json: bool) -> None:
    """Tell what came of it. Where it failed, that is the end, with status 1."""
    has_failed = said["status"] == "FAILED"
    if as_json:
        click.echo(json.dumps(said, indent=2))
        if has_failed:
            raise click.exceptions.Exit(1)
    elif has_failed:
        raise click.ClickException(views.failure(said))
    else:
        print_it()


def _tell_all(done: list[Said], *, as_json: bool) -> None:
    """Tell what came of each peer; the status is 1 where one failed."""
    if as_json:
        click.echo(json.dumps(done, indent=2))
    elif not done:
        warn("there is no peer")
    for each in () if as_json else done:
        if each["status"] == "FAILED":
            warn(f"{each['name']}: {views.failure(each)}")
        else:
            click.echo(printable(f"{each['name']} is stopped"))
    raise click.exceptions.Exit(1 if any(each["status"] == "FAILED" for each in done) else 0)

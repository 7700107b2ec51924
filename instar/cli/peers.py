"""The command `instar-peers`."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from instar import __version__
from instar.cli import peer_log, peer_verbs
from instar.cli import peer_views as views
from instar.cli.options import json_option, project_option, refusals, respond, warn
from instar.cli.patience import patience
from instar.cli.peer_words import lifecycle, words_option
from instar.errors import InstarError
from instar.lifecycle import verbs
from instar.lifecycle.clients.adapters import adapter
from instar.lifecycle.clients.messages import unfit
from instar.lifecycle.peers import Broken, Peer
from instar.names import RUNTIMES, checked_name

if TYPE_CHECKING:
    from instar.lifecycle.lifecycle import Lifecycle
    from instar.names import Runtime

HOOKS: Final = ".instar/hooks"
LIVES: Final = ("alive", "dialog", "unknown")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="instar-peers")
def main() -> None:
    """Have named agents that a message wakes: fresh, or where they left off, by why their last session ended.

    A peer is a name, a client and a folder; it runs in tmux (tmux -L instar). The server looks after the peers where
    lifecycle.enabled is true in .instar/config.json; supervise does so without it.
    """


@main.command()
@click.argument("name")
@click.option("--runtime", "runtimes", type=click.Choice(RUNTIMES), multiple=True, required=True,
              help="The client it runs in; given twice, it may run in both.")  # fmt: skip
@click.option("--cwd", metavar="FOLDER", type=click.Path(exists=True, file_okay=False),
              help="The folder it works in. [default: the project]")  # fmt: skip
@click.option("--trust-folder", is_flag=True, help="Say yes where the client asks whether the folder is trusted.")
@click.option("--bypass-permissions", is_flag=True, help="Have the client ask for no permission, whatever it does.")
@click.option("--prompt", default="", metavar="TEXT", callback=words_option,
              help="What a fresh session is told first; - reads it.")  # fmt: skip
@click.option("--human", is_flag=True, help="A person talks to it: what was parked is always taken up again.")
@project_option
@json_option
def add(  # noqa: PLR0913 - an option each
    name: str, runtimes: tuple[Runtime, ...], cwd: str | None, folder: str | None, prompt: str, *, trust_folder: bool,
    bypass_permissions: bool, human: bool, as_json: bool,
) -> None:  # fmt: skip
    """Add a peer. It is not started by that: the first message does."""
    with refusals():
        life = lifecycle(folder)
        root = life.root
        for runtime in runtimes:
            if prompt and (why := unfit(runtime, prompt)):
                raise InstarError(f"the first prompt cannot be carried: {why}")
        peer = Peer(
            name, runtimes[0], Path(os.path.abspath(cwd)) if cwd else root,  # noqa: PTH100 - links stay as named
            trusts_folder=trust_folder, bypasses_permissions=bypass_permissions, initial_prompt=prompt, is_human=human,
            runtimes=tuple(dict.fromkeys(runtimes)),
        )  # fmt: skip
        managed = life.services.managed(checked_name(name))
        added = life.peers.add(peer)
    words = f"{added.name} is added: instar-peers send {added.name} MESSAGE wakes it"
    respond(views.profile_json(added), words, as_json=as_json)
    for runtime in added.runtimes:
        if not shutil.which(adapter(runtime).program):
            warn(f"{adapter(runtime).program} is not on PATH: it cannot be woken before it is")
    if not (root / HOOKS).is_dir():
        warn("the hooks are not set up here, and peers are known by them: instar-migrate")
    if managed:
        warn(f"it is only looked at: {managed.why}")


@main.command("list")
@project_option
@json_option
def list_(folder: str | None, *, as_json: bool) -> None:
    """List all peers: who lives, waits at a dialog, is parked, asleep, stopped, crashed or managed by others."""
    with refusals(), patience("looking at the peers"):
        found = lifecycle(folder).status()
    respond(found, lambda: views.print_list(found), as_json=as_json)
    if not found and not as_json:
        warn("there is no peer: instar-peers add")


@main.command()
@click.argument("name")
@project_option
@json_option
def show(name: str, folder: str | None, *, as_json: bool) -> None:
    """Show the profile of a peer, and how it is in each of its clients."""
    with refusals(), patience("looking at the peer"):
        life = lifecycle(folder)
        peer = life.peers.get(name)
        states = [verbs.status(each, life.edges) for each in verbs.in_all_clients(peer)]
    values = {"profile": views.profile_json(peer), "status": states}
    respond(values, lambda: views.print_peer(peer, states), as_json=as_json)


@main.command()
@click.argument("name")
@click.option("--force", is_flag=True, help="Also one that lives: its session goes on, as nobody's.")
@project_option
@json_option
def remove(name: str, folder: str | None, *, force: bool, as_json: bool) -> None:
    """Remove a peer, and what is remembered of it. Its conversations stay."""
    with refusals(), patience("looking at the peer"):
        life = lifecycle(folder)
        identities = _removable(life, name, force=force)
        life.peers.remove(name, force=force)
        for identity in identities:
            life.edges.marks.purge(identity)
        life.log.write("removed", personality=name, forced=force or None)
    respond({"status": "DONE", "name": name, "removed": True}, f"{name} is removed", as_json=as_json)


def _removable(life: Lifecycle, name: str, *, force: bool) -> list[str]:
    """Return the identities of a peer whose marks go with it. Raise InstarError where it lives, or others run it."""
    named = [each for each in life.peers.all() if each.name == name]
    found: list[dict[str, Any]] = [
        verbs.status(each, life.edges)
        for peer in named
        if not isinstance(peer, Broken)
        for each in verbs.in_all_clients(peer)
    ]
    for each in found:
        if each["state"] in LIVES and not force:
            raise InstarError(f"{name} {views.in_words(each)}: end it first, with instar-peers stop {name}")
    return [each["identity"] for each in found if each["state"] != "managed"]


for _command in (*peer_verbs.COMMANDS, *peer_log.COMMANDS):
    main.add_command(_command)


if __name__ == "__main__":
    main()

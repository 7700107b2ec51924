"""The command `instar-server`."""

from __future__ import annotations

import sys

import click

from instar import __version__
from instar.cli.listing import printable
from instar.cli.options import json_option, project_option, refusals, respond
from instar.project import open_root
from instar.server import logs, service
from instar.server.endpoint import Taken

port_option = click.option(
    "--port", type=click.IntRange(0, 65535), help="Where to listen on the loopback; 0 is any free one [default: that "
    "of the configuration, else 0].",
)  # fmt: skip


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="instar-server")
def main() -> None:
    """Run the local server of a project: what the stop gate asks, and where the session reaper runs.

    One runs for a project, on the loopback alone, and asks everyone for the token in .instar/server-data.
    """


@main.command()
@project_option
@port_option
def run(folder: str | None, port: int | None) -> None:
    """Serve in the foreground until SIGTERM or Ctrl-C; beside another server, end at once with status 0."""
    from instar.server.process import run as serve  # noqa: PLC0415 - only the server pays for what serves

    with refusals():
        root = open_root(folder)
        try:
            serve(root, port)
        except Taken as taken:
            click.echo(str(taken), err=True)


@main.command()
@project_option
@port_option
@json_option
def start(folder: str | None, port: int | None, *, as_json: bool) -> None:
    """Start the server, and return when it answers; one that runs already is left alone."""
    with refusals():
        now, is_new = service.start(open_root(folder), port)
    word = "started" if is_new else "already running"
    respond({**now.as_json(), "started": is_new}, lambda: _tell(now, word), as_json=as_json)


@main.command()
@project_option
@click.option("--grace", type=click.FloatRange(0), default=service.STOP_S, show_default=True, metavar="SECONDS",
              help="For how long the server may finish what it does before it is killed.")  # fmt: skip
@json_option
def stop(folder: str | None, grace: float, *, as_json: bool) -> None:
    """End the server, and return when it has ended."""
    with refusals():
        ending = service.stop(open_root(folder), grace)
    words = f"stopped: process {ending.pid} has ended"
    if not ending.was_running:
        words = "no server is running"
    elif ending.was_killed:
        words = f"killed: process {ending.pid} did not end within {grace:g} s of being asked to"
    values = {"wasRunning": ending.was_running, "pid": ending.pid, "killed": ending.was_killed}
    respond(values, words, as_json=as_json)


@main.command()
@project_option
@json_option
def status(folder: str | None, *, as_json: bool) -> None:
    """Show whether the server runs, and how it is; the status is 1 when it does not answer."""
    with refusals():
        now = service.status(open_root(folder))
    respond(now.as_json(), lambda: _tell(now), as_json=as_json)
    sys.exit(0 if now.state == "running" else 1)


@main.command("logs")
@project_option
@click.option("-n", "--lines", "count", type=click.IntRange(0), default=50, show_default=True, help="How many lines.")
@click.option("-f", "--follow", is_flag=True, help="Go on with each line that is written, until Ctrl-C.")
def logs_(folder: str | None, count: int, *, follow: bool) -> None:
    """Show the newest lines of the server's log."""
    with refusals():
        root = open_root(folder)
        try:
            for line in logs.follow(root, count) if follow else logs.tail(root, count):
                click.echo(line)
        except KeyboardInterrupt:
            return


def _tell(now: service.Status, word: str = "") -> None:
    if word:
        click.echo(word)
    rows = {"state": now.state, "project": now.project}
    if now.pid:
        rows |= {"address": f"127.0.0.1:{now.port}", "process": str(now.pid)}
    rows |= {key: str(value) for key, value in now.health.items() if key not in {"project", "uptime"}}
    for key, value in rows.items():
        click.echo(f"{key:<24} {printable(value)}")


if __name__ == "__main__":
    main()

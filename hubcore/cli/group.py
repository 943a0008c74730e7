"""`main`, the click group: finds commands lazily, prints errors for people, sets exit codes."""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import os
import signal
import sys
import traceback
import warnings
from types import FrameType
from typing import Any

import click

from hubcore.cli.echo import echo, echo_error
from hubcore.errors import HubcoreError, nearest_hint
from hubcore.text import LINES, printable
from hubcore.version import VERSION

COMMANDS = (
    "list",
    "info",
    "extract",
    "merge",
    "diff",
    "stats",
    "plot",
    "view",
    "units",
    "probe",
    "fetch",
    "verify",
    "convert",
    "export",
    "manifest",
    "pretrain",
    "cache",
    "registry",
    "plugin",
    "doctor",
    "docs",
)
"""The built-in commands, in the order of `--help`; each is `command` in the module of its name beside this one."""

_ENDING = [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
"""Signals that end a process: a person's, a scheduler's, a closed terminal's."""


class LazyGroup(click.Group):
    """A click group whose built-in commands are modules imported on use, and whose others come from plugins."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """The built-in commands, then the plugins'."""
        self._add_plugin_commands()
        return [*COMMANDS, *sorted(name for name in self.commands if name not in COMMANDS)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of this name; plugins are asked only if it is not built in, so that none can replace one."""
        if cmd_name in COMMANDS:
            command = importlib.import_module(f"hubcore.cli.{cmd_name}").command
            if not isinstance(command, click.Command):
                raise TypeError(f"hubcore.cli.{cmd_name}.command is not a click command")
            return _with_debug(command)
        self._add_plugin_commands()
        found = super().get_command(ctx, cmd_name)
        return found and _with_debug(found)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that a line begins with; for one that is not there, the error names the nearest."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            hint = nearest_hint(args[0], self.list_commands(ctx), "")
            if not hint:
                raise
            raise click.UsageError(f"No such command {args[0]!r}. {hint}", ctx) from error

    def main(self, *arguments: Any, **options: Any) -> Any:
        """Runs the command line; standard streams that were closed before it started lead nowhere."""
        _open_streams()
        before = {number: signal.getsignal(number) for number in _ENDING}
        ours = [number for number, handler in before.items() if handler in (signal.SIG_DFL, signal.default_int_handler)]
        for number in ours:
            signal.signal(number, _interrupt)
        try:
            return super().main(*arguments, **options)
        finally:
            for number in ours:
                if signal.getsignal(number) is _interrupt:
                    signal.signal(number, before[number])

    def invoke(self, ctx: click.Context) -> Any:
        """Runs a command; an error that hubcore raised on purpose becomes one line and exit code 2."""
        handler = _EchoHandler()
        logger = logging.getLogger("hubcore")
        logger.addHandler(handler)
        propagates, logger.propagate = logger.propagate, False
        try:
            with warnings.catch_warnings():
                warnings.showwarning = _echo_warning
                return super().invoke(ctx)
        except HubcoreError as error:
            if ctx.params.get("debug"):
                echo(traceback.format_exc(), err=True, nl=False)
            echo_error(f"hubcore: error: {error}")
            ctx.exit(2)
        except KeyboardInterrupt as error:
            echo("hubcore: interrupted", err=True)
            ctx.exit(128 + (error.args or (signal.SIGINT,))[0])
        except click.ClickException as error:  # click prints it, with names in it that a shell's * may have found
            text = error.format_message()
            if text == printable(text, keep=LINES):
                raise
            raise click.UsageError(printable(text, keep=LINES), getattr(error, "ctx", None)) from error
        finally:
            logger.propagate = propagates
            logger.removeHandler(handler)

    def _add_plugin_commands(self) -> None:
        from hubcore.hooks import current_hooks

        self.commands.update(current_hooks().commands(COMMANDS))


def _open_streams() -> None:
    """Opens standard streams that are closed, or the next files opened would get their numbers, and what is printed.

    What the others cannot encode is written out, as the name of a file may be.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            stream = open(os.devnull, "w" if number else "r")  # noqa: SIM115 - open as long as the process
            setattr(sys, name, stream)
            if stream.fileno() == number:  # the lowest free number, so mostly its own
                os.set_inheritable(number, True)
        elif number and isinstance(getattr(sys, name), io.TextIOWrapper):
            getattr(sys, name).reconfigure(errors="backslashreplace")


def _interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - signal's signature
    """The first signal is a KeyboardInterrupt, so that no half-written file stays; a second one ends the process at once."""
    for other in _ENDING:
        if signal.getsignal(other) is _interrupt:
            signal.signal(other, lambda number, _: os._exit(128 + number))
    raise KeyboardInterrupt(number)


def leave_signals() -> None:
    """Lets a command handle the signals that end a process itself."""
    for number in _ENDING[1:]:
        if signal.getsignal(number) is _interrupt:
            signal.signal(number, signal.SIG_DFL)


def _with_debug(command: click.Command) -> click.Command:
    """The command with `--debug`, so that it may be added at the end of a line that just failed."""
    if not any("--debug" in parameter.opts for parameter in command.params):
        command.params.append(
            click.Option(
                ["--debug"], is_flag=True, expose_value=False, callback=_set_debug, help="Show the traceback of an error."
            )
        )
    return command


def _set_debug(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:  # noqa: ARG001 - click's signature
    if value:
        ctx.find_root().params["debug"] = True


class _EchoHandler(logging.Handler):
    """Log records as lines on standard error, where no progress bar is broken by them."""

    def emit(self, record: logging.LogRecord) -> None:
        _echo(f"hubcore: {record.getMessage()}")


def _echo(text: str) -> None:
    # Only a run that shows a bar has imported tqdm; its lock keeps the bar below what is printed.
    tqdm = sys.modules.get("tqdm")
    with tqdm.tqdm.external_write_mode(file=sys.stderr) if tqdm is not None else contextlib.nullcontext():
        echo_error(text)


def _echo_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """A Python warning as one line; the file and the line of code that Python adds say nothing to who types commands."""
    _echo(f"hubcore: warning: {message}")


_EXAMPLE = """\b
Example:
  hubcore list
  hubcore info fbank
  hubcore extract recordings/ --upstream fbank --out features/"""


@click.group(cls=LazyGroup, epilog=_EXAMPLE, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, prog_name="hubcore", message="%(prog)s %(version)s")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def main(debug: bool) -> None:
    """Self-supervised speech upstreams by name: find them, fetch them, extract their features, pre-train them."""

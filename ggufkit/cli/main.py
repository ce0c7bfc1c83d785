"""The door: the group of commands, and the only place where errors become words and exit codes."""

from __future__ import annotations

import difflib
import importlib
import os
import signal
import sys
import traceback
from types import FrameType
from typing import Any, NoReturn

import click

from ggufkit import __version__
from ggufkit.cli.config import by_parameter, name_variables, read_config
from ggufkit.cli.render import print_error
from ggufkit.errors import GgufkitError, NetworkError, NoSpaceError, printable

ISSUES_URL = "https://github.com/ggufkit/ggufkit/issues"

COMMANDS = {
    "quants": "List the quants of a repo on the hubs.",
    "pull": "Get a quant from ModelScope or Hugging Face.",
    "verify": "Check files against what the hub published.",
    "merge": "Make one file of a model's shards.",
    "split": "Cut a file into shards.",
    "inspect": "Show what is in a GGUF.",
    "fit": "Say whether a model fits this machine.",
    "machine": "Show what this machine has for models.",
    "ollama-import": "Make an Ollama model without a second copy.",
    "lmstudio-import": "Put a model where LM Studio looks.",
    "serve-config": "Write how llama.cpp is to serve a model.",
    "bench": "Ask models five questions; time and check them.",
    "serve": "Be a hub for the machines on your LAN.",
    "manifest": "Make, show and check frozen sets of files.",
    "doctor": "Say what is wrong with this set-up.",
}
"""Every command with the first line of its help: listing them imports none."""

HELP_FLAGS = ["-h", "--help"]
EPILOG = """\b
Exit codes:
  0 done, fits, verified      6 bytes are not what was published
  1 unexpected                7 not a sound GGUF
  2 wrong arguments           8 no room on disk or in memory
  3 not found, ambiguous      9 target exists
  4 no access               10 another program failed
  5 network, try again     130 interrupted
After 5 the same command may work; after 8 and 130 it goes on where it stopped.
"""


class CommandGroup(click.Group):
    """A group that imports a command's module only when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return the command, or None."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"ggufkit.cli.{cmd_name.replace('-', '_')}")
        command = module.command
        assert isinstance(command, click.Command)
        name_variables(command)
        command.context_settings.setdefault("help_option_names", HELP_FLAGS)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Name the nearest command when there is none of that name."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], COMMANDS, n=1)
            mean = f" Did you mean {near[0]}?" if near else ""
            ctx.fail(f"There is no command {printable(args[0])}.{mean}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands from the table."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


class Door:
    """What a run decides on its way in, and needs when it ends with an error."""

    def __init__(self) -> None:
        self.color = _color("auto")


@click.group(
    cls=CommandGroup,
    epilog=EPILOG,
    context_settings={"help_option_names": HELP_FLAGS, "auto_envvar_prefix": "GGUFKIT"},
)
@click.option(
    "--color",
    type=click.Choice(["auto", "always", "never"]),
    default="auto",
    show_default=True,
    help="When to colour what is printed.",
)
@click.version_option(__version__, "--version", prog_name="ggufkit", message="%(prog)s %(version)s")
@click.pass_context
def cli(ctx: click.Context, color: str) -> None:
    """Big split GGUF models, from the hub to the runtime.

    \b
    Examples:
      ggufkit pull unsloth/DeepSeek-R1-GGUF --quant UD-IQ2_XXS
      ggufkit merge
      ggufkit ollama-import
      ggufkit fit --ram 256G

    MODEL may be left out: then it is the model in the current folder, or the one pulled last.
    """
    ctx.color = ctx.find_object(Door).color = _color(color)  # type: ignore[union-attr]  # run() made it
    ctx.default_map = _default_map(ctx)


def _default_map(ctx: click.Context) -> dict[str, dict[str, Any]]:
    """Return the config file's table for the command that is run."""
    name, tables = ctx.invoked_subcommand, read_config(COMMANDS)
    command = cli.get_command(ctx, name) if name in tables else None
    if name is None or command is None:
        return {}
    return {name: by_parameter(command, tables[name])}


def _color(choice: str) -> bool | None:
    """Return True or False when colour is decided, None when each stream decides for itself."""
    if choice != "auto":
        return choice == "always"
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return True if os.environ.get("FORCE_COLOR") else None


def main() -> NoReturn:
    """Run the command line and exit with its code."""
    signal.signal(signal.SIGTERM, _terminate)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a redirected Windows stream is often cp936
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run the command line with `arguments` and return the exit code."""
    door = Door()
    try:
        result = cli.main(arguments, prog_name="ggufkit", standalone_mode=False, obj=door)
        return result if isinstance(result, int) else 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        print_error("interrupted", hint="the same command goes on from here", color=door.color)
        return 130
    except GgufkitError as error:
        return _report(error, door)
    except BrokenPipeError:
        return _quiet_pipe()
    except OSError as error:
        return _report(_from_os_error(error), door)
    except Exception as error:  # noqa: BLE001 - the door: what nobody expected is said as such
        return _report_bug(error, door)


def _report(error: GgufkitError, door: Door) -> int:
    if os.environ.get("GGUFKIT_DEBUG"):
        traceback.print_exception(error)
    print_error(error.message, hint=error.hint, color=door.color)
    return error.exit_code


def _report_bug(error: Exception, door: Door) -> int:
    if os.environ.get("GGUFKIT_DEBUG"):
        traceback.print_exception(error)
    python = ".".join(map(str, sys.version_info[:3]))
    print_error(
        f"unexpected {type(error).__name__}: {error}",
        hint=f"set GGUFKIT_DEBUG=1 to see where, and tell us: {ISSUES_URL} "
        f"(ggufkit {__version__}, Python {python}, {sys.platform})",
        color=door.color,
    )
    return 1


def _from_os_error(error: OSError) -> GgufkitError:
    """Say an OS error that no room foresaw in the words of an expected one."""
    import errno

    where = f"{error.filename}: " if error.filename else ""
    text = f"{where}{(error.strerror or str(error)).lower()}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpaceError(text, hint="make room; the same command goes on from here")
    if isinstance(error, ConnectionError | TimeoutError):
        return NetworkError(text)
    failure = GgufkitError(text)
    failure.exit_code = 4 if isinstance(error, PermissionError) else 1
    return failure


def _quiet_pipe() -> int:
    """Leave quietly when whoever read our output has gone."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains at exit
    return 0


def _terminate(signum: int, frame: FrameType | None) -> Any:
    raise KeyboardInterrupt

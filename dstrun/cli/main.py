"""The command line: verbs; anything else is a list of Hydra overrides and runs. Imports torch only inside a run.

Exit codes: 0 done, 1 a run failed, 2 bad usage or configuration, 3 nothing matched, 75 a run is being run elsewhere,
130 interrupted.
"""

from __future__ import annotations

import errno
import io
import logging
import os
import shlex
import sys
import traceback
from collections.abc import Sequence
from contextlib import redirect_stderr
from importlib import import_module
from typing import TYPE_CHECKING

from dstrun.cli import line
from dstrun.cli.start import check_kinds, check_single, hydra_here, of_file, read, run_one, silence_allocator, sweep
from dstrun.system.lazy import announce
from dstrun.system.output import outlast, reopen
from dstrun.system.progress import say
from dstrun.system.safe import log_to_stderr
from dstrun.system.trouble import FULL, ConfigError, sentence, why

if TYPE_CHECKING:
    import argparse

NO_HOME = os.devnull
"""The home of a user who has none: nothing can be written below it, as in one that is read-only."""

USAGE = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG)
"""What is wrong with a path that the user has given."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code. Here alone errors become sentences."""
    words = list(sys.argv[1:] if argv is None else argv)
    asked = line.read(words)
    (reopen if asked.verb else outlast)()
    settle()
    try:
        return obey(asked)
    except ConfigError as error:
        return refuse(str(error), 2)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of a verb's pipe has seen enough; a run never ends here (output.outlast)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        message = users_trouble(error)
        usage = isinstance(error, OSError) and error.errno in USAGE
        return report(error) if message is None else refuse(message, 2 if usage else 1)


def users_trouble(error: Exception) -> str | None:
    """Return what is wrong with the user's files or machine; ``None`` where it is a fault of ours."""
    if isinstance(error, OSError) and error.errno is not None and error.errno not in FULL:
        where = " and ".join(str(name) for name in (error.filename, error.filename2) if name is not None)
        return f"{where}{': ' if where else ''}{why(error)}"
    return sentence(error)


def settle() -> None:
    """Make output and environment such that nothing fails of them: letters that cannot be shown, no home, no name.

    From here on, whatever loads PyTorch, whichever the verb, says so.
    """
    log_to_stderr()
    announce()
    silence_allocator()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace" if stream is sys.stdout else "backslashreplace")
    if not os.environ.get("HOME") or not os.environ.get("USER"):
        try:
            import pwd

            pwd.getpwuid(os.getuid())
        except (ImportError, KeyError):
            os.environ.setdefault("HOME", NO_HOME)
            os.environ.setdefault("USER", f"user{os.getuid() if hasattr(os, 'getuid') else ''}")


def refuse(sentence: str, code: int) -> int:
    """Print what is wrong in one line; returns the exit code."""
    say(f"dstrun: {' '.join(sentence.split())}")
    return code


def report(error: BaseException) -> int:
    """Show where a fault happened; where it is none of code of a user's own, say where to tell us."""
    say("".join(traceback.format_exception(error)).rstrip())
    from dstrun.config.trust import users_frame

    if frame := users_frame(error):
        return refuse(f"{frame.filename} line {frame.lineno}: {type(error).__name__}: {error}", 1)
    from importlib.metadata import PackageNotFoundError, metadata

    from dstrun import __version__

    try:
        urls = dict(line.split(", ", 1) for line in metadata("dstrun").get_all("Project-URL") or ())
    except PackageNotFoundError:
        urls = {}
    where = f"at {urls['Issues']}" if "Issues" in urls else "to its authors"
    say(f"dstrun: this is a bug in dstrun {__version__}: please report it with the lines above {where}")
    return 1


def obey(asked: line.Line) -> int:
    """Do what a command line says.

    Raises:
        ConfigError: it cannot be obeyed.
    """
    if any(word in ("-sc", "--shell-completion") for word in asked.words):
        from dstrun.cli.complete import complete

        return complete([*([asked.verb] if asked.verb else []), *asked.words])
    if asked.wants == "version":
        from dstrun import __version__

        print(f"dstrun {__version__}")
        return 0
    if asked.verb:
        words = [*(asked.topics[:1] if asked.verb == "bench" else ()), "--help"] if asked.wants else asked.words
        code = import_module(f"dstrun.cli.verb.{asked.verb}").main(words)
        sys.stdout.flush()  # here, where it is known what it means if nobody reads it
        return code
    if asked.wants or not asked.words:
        from dstrun.cli.help import of

        print(of(asked.topics, asked.strict, asked.words))
        return 0
    return train(asked.words)


def train(words: list[str]) -> int:
    """Run one configuration, or a sweep; check all of it before anything starts."""
    from dstrun.cli import flags
    from dstrun.config.composition import compose, is_sweep

    found = flags.of_run(words)
    check_kinds(found.overrides)
    shows = found.cfg or found.info or found.hydra_help
    if not (found.overrides or found.config_name is not None or found.run or shows):
        return nothing(found.multirun)
    name, directories = of_file(found)
    found.overrides = read(found.overrides)
    of_sweep = name != "config" and is_sweep(found.overrides, directories, name)
    if of_sweep and found.run:
        raise ConfigError(f"--run makes no sense with -cn {name}, which is a sweep: select runs of it, such as seed=0")
    swept = of_sweep or found.multirun
    if shows:
        return show(found, name, directories, swept)
    if swept:
        return sweep(found.overrides, directories, name)
    check_single(found.overrides)
    return run_one(compose(found.overrides, directories, name))


def nothing(swept: bool) -> int:
    """Print how to sweep, after a bare ``-m``; returns the exit code.

    Raises:
        ConfigError: other flags stand alone, of which only ``--run`` trains the defaults.
    """
    from dstrun.cli.help import SWEEPS

    if not swept:
        raise ConfigError(
            "nothing says what to train: set something, such as model=resnet56, or use --run for all defaults"
        )
    say(SWEEPS.rstrip())
    return 2


def show(found: argparse.Namespace, name: str, directories: Sequence[str], swept: bool) -> int:
    """Print what is composed (``--cfg``), how (``--info``), or Hydra's own help; start nothing.

    Raises:
        ConfigError: it cannot be composed.
    """
    from omegaconf import OmegaConf

    from dstrun.config.composition import checked, compose_runs, hydra_open, of_hydra, sweep_words
    from dstrun.config.diagnose import FAULTS, diagnose
    from dstrun.config.override import parse, quoted, with_protocol, without_nulls

    with hydra_open(directories):
        runs = sweep_words(found.overrides, name) if swept else [found.overrides]
        if found.cfg and found.cfg != "hydra" and (len(runs) > 1 or found.resolve):
            for made in compose_runs(runs, name, of_hydra(found.overrides)):
                whole = OmegaConf.create(made.config)
                part = OmegaConf.select(whole, found.package) if found.package else whole
                if found.package and part is None:
                    raise ConfigError(f"--package {found.package} is not part of the configuration")
                if len(runs) > 1:
                    print("---\n#", shlex.join(made.command))
                if found.package:
                    print(f"# @package {found.package}")
                print(OmegaConf.to_yaml(part) if OmegaConf.is_config(part) else f"{part}\n", end="")
            return 0
        words = [with_protocol(parse(without_nulls(runs[0])))]
        checked(words[0], name)
        words[0] = [quoted(override) for override in parse(words[0])]
        logging.root.handlers.clear()  # Hydra prints besides
        try:
            if found.hydra_help:
                from hydra._internal.utils import get_args_parser

                parser = get_args_parser()
                hydra_here().hydra_help(name, parser, parser.parse_args([]))
                return 0
            if found.info:
                hydra_here().show_info(found.info, name, words[0])
                return 0
            try:
                with redirect_stderr(io.StringIO()):
                    hydra_here().show_cfg(name, words[0], found.cfg, found.package, False)
            except SystemExit:
                raise ConfigError(f"--package {found.package} is not part of the configuration") from None
        except FAULTS as error:
            raise diagnose(words[0], name, error) from error
    return 0

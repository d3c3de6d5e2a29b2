"""The command line. Importing it loads no heavy library; each command imports what it needs."""

import logging
import os
import sys

INTERRUPTED = 130
"""Exit code after Ctrl-C."""


def main() -> None:
    """Run the command line. An error is printed as one line on stderr, or as a traceback with --debug."""
    from d3po.cli.app import app
    from d3po.errors import D3POError, StorageError
    from d3po.escaping import terminal_line

    debug = "--debug" in sys.argv
    if not debug:
        _keep_noise_out()
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    try:
        app(arguments, prog_name="d3po")
    except D3POError as error:
        if debug:
            raise
        if not error.said_elsewhere:
            print(f"error: {terminal_line(str(error))}", file=sys.stderr)
        sys.exit(error.exit_code)
    except SystemExit as end:
        if end.code == INTERRUPTED:
            print("interrupted; run the same command again to continue", file=sys.stderr)
        raise
    except Exception as error:
        if debug:
            raise
        refused = StorageError.of(error)
        said = str(refused or f"{type(error).__name__}: {error} (--debug shows where)")
        print(f"error: {terminal_line(said)}", file=sys.stderr)
        sys.exit(refused.exit_code if refused else 1)


def _keep_noise_out() -> None:
    """Silence warnings that other packages log when they are imported. They are about kernels and packages that d3po does not need."""
    for package in ("TRANSFORMERS", "DIFFUSERS"):
        os.environ.setdefault(f"{package}_VERBOSITY", "error")
    logging.getLogger().setLevel(logging.ERROR)
    logging.getLogger("d3po").setLevel(logging.WARNING)

"""The ``zsic-index`` command line.

Only click and modules without heavy imports are imported here; each command imports what it needs,
so that ``--help`` answers at once.
"""

from __future__ import annotations

import logging
import warnings
from typing import Any

import click

from zsic_index import __version__
from zsic_index.cli.bench import bench
from zsic_index.cli.build import build, import_
from zsic_index.cli.demo import demo_command
from zsic_index.cli.evaluate import calibrate, evaluate
from zsic_index.cli.help import GroupedGroup
from zsic_index.cli.labels import labels
from zsic_index.cli.library import export, search, show, status, undo
from zsic_index.cli.onnx import onnx
from zsic_index.cli.query import query_command
from zsic_index.cli.review import review
from zsic_index.cli.serve import serve
from zsic_index.cli.stores import db, info, list_, rm, verify
from zsic_index.cli.tagging import tag, watch
from zsic_index.errors import ZsicError


class _Group(GroupedGroup):
    """A group whose commands print errors in one line, or with a traceback with ``--verbose``."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.exceptions.Exit, click.Abort, click.ClickException, BrokenPipeError):
            raise
        except Exception as error:
            if ctx.meta.get("zsic.verbose"):
                raise
            message = " ".join(str(error).split())
            if not isinstance(error, ZsicError):
                message = (
                    f"unexpected {type(error).__name__}: {message}; "
                    "run again with --verbose for the traceback, and please report it"
                )
            raise click.ClickException(message) from error


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="zsic-index")
def main() -> None:
    """Classify images against a large, fixed set of labels, exactly.

    Label embeddings are computed once and kept; the results are the probabilities of
    transformers' zero-shot image classification pipeline.

    Exit codes: 0 done, 1 failed, 2 wrong usage, 3 done but some inputs were refused.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    logger = logging.getLogger("zsic_index")
    logger.handlers[:] = [handler]
    logger.propagate = False
    # Pillow warns about odd metadata, and about large images, which are limited here anyway.
    warnings.filterwarnings("ignore", module="PIL")


main.add_commands("Labels and indexes", build, import_, labels, list_, info, rm)
main.add_commands("Classification", query_command, demo_command)
main.add_commands("Photo libraries", tag, watch, review, search, show, status, export, undo)
main.add_commands("Service", serve)
main.add_commands("Calibration and measurement", calibrate, evaluate, bench)
main.add_commands("Store", verify, onnx, db)

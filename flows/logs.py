"""Logs: one line of `key=value` per event on a terminal, JSON lines in a pipe; always on standard error."""

from __future__ import annotations

import logging
from typing import TextIO

import structlog


def set_up(stream: TextIO, level: int = logging.INFO) -> None:
    """Send all logs to a stream.

    Parameters
    ----------
    stream
        Usually standard error: standard output belongs to results.
    level
        Least level that is written.
    """
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer() if stream.isatty() else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(stream),
        cache_logger_on_first_use=False,
    )

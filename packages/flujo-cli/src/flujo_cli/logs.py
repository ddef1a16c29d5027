"""Keeps secrets out of what a pipeline's code logs under the command line."""

from __future__ import annotations

import logging

from flujo.core import SecretsFilter

__all__ = ["clean_logs"]

_FILTER = SecretsFilter()


class _CleanRecords:
    """Makes log records without secrets, for handlers too that are only there later."""

    def __init__(self, make: type[logging.LogRecord]) -> None:
        self._make = make

    def __call__(self, *facts: object, **more: object) -> logging.LogRecord:
        record = self._make(*facts, **more)  # type: ignore[arg-type]
        _FILTER.filter(record)
        return record


def clean_logs() -> None:
    """Clean every record from now on; its `extra` comes after it is made, and is cleaned by the handlers there are."""
    make = logging.getLogRecordFactory()
    if not isinstance(make, _CleanRecords):
        logging.setLogRecordFactory(_CleanRecords(make))  # type: ignore[arg-type]
    named = logging.root.manager.loggerDict.values()
    loggers = [logging.root, *(one for one in named if isinstance(one, logging.Logger))]
    handlers = {handler for logger in loggers for handler in logger.handlers}
    for handler in [*handlers, *([] if logging.lastResort is None else [logging.lastResort])]:
        handler.addFilter(_FILTER)

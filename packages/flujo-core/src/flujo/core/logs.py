"""Secrets out of log records, for whoever sets up logging. Flujo installs it nowhere but in its command line."""

from __future__ import annotations

import logging

from .foreign import attempt, text_of
from .scrubbing import MASK, scrub

_PLAIN = vars(logging.makeLogRecord({})).keys() - {"msg", "exc_text", "stack_info"}
"""What every record has, and what holds no text of the program's."""


class SecretsFilter(logging.Filter):
    """Takes secrets of a known form out of log records: their message, arguments, exception, stack and `extra`.

    Put it on handlers: what a logger filters is only what is logged by that very logger.

        handler.addFilter(SecretsFilter())

    A record is changed where it stands, so handlers after this one see it without secrets too. Its exception is kept
    as text, since the exception itself still holds what it was raised with.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Clean a record; it is always let through."""
        said, error = attempt(record.getMessage)
        if error is not None:  # what does not fit its arguments is logged as it is, not by `logging`'s own complaint
            said = f"{record.msg} {record.args} ({text_of(error)})"
        record.msg, record.args = said, None
        if record.exc_info and not record.exc_text:
            record.exc_text = logging.Formatter().formatException(record.exc_info)
        record.exc_info = None
        vars(record).update({name: _shown(name, value) for name, value in vars(record).items() if name not in _PLAIN})
        return True


def _shown(name: str, value: object) -> object:
    """A value as it may be seen; it stays what it is where neither its text nor its repr tells a secret."""
    if scrub(f"{name}='x'") != f"{name}='x'":
        return MASK
    if isinstance(value, dict):
        return {key: _shown(str(key), one) for key, one in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_shown(name, one) for one in value]
    text = value if isinstance(value, str) else attempt("{0} {0!r}".format, value)[0] or ""
    return value if scrub(text) == text else scrub(text)

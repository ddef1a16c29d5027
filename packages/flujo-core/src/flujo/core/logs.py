"""Secrets out of log records, for whoever sets up logging. Flujo installs it nowhere but in its command line."""

from __future__ import annotations

import logging
from itertools import repeat

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
            said = attempt("{0.msg} {0.args}".format, record)[0] or attempt("{0.msg}".format, record)[0]
            said = f"{said} ({text_of(error)})"
        record.msg, record.args = said, None
        if record.exc_info and not record.exc_text:
            record.exc_text = attempt(logging.Formatter().formatException, record.exc_info)[0]
        record.exc_info = None
        seen = {name: attempt(shown_as, name, one) for name, one in vars(record).items() if name not in _PLAIN}
        # What cannot be looked at, as a container that holds itself, may hold anything: it is not shown.
        vars(record).update({name: shown if fault is None else MASK for name, (shown, fault) in seen.items()})
        return True


def shown_as(name: object, value: object) -> object:
    """The value of a name as it may be seen; it stays what it is where neither its text nor its repr tells a secret.

    Args:
        name: Its name, which may say that the value is secret.
        value: Anything; containers are copied.

    Raises:
        Exception: Whatever a repr raises; RecursionError of a container that holds itself.
    """
    if scrub(f"{name}='x'") != f"{name}='x'":
        return MASK
    if isinstance(value, dict):
        return {_clean(key): shown_as(key, one) for key, one in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        is_pair = isinstance(value, (list, tuple)) and len(value) == 2 and isinstance(value[0], (str, bytes))
        names = [name, *value][:2] if is_pair else repeat(name)  # a pair may be a header and its value
        return [*map(shown_as, names, value)]
    return _clean(value)


def _clean(value: object) -> object:
    text = value if isinstance(value, str) else f"{value} {value!r}"
    return value if scrub(text) == text else scrub(text)

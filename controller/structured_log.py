"""The log, one event per line: as text for people, or as JSON with object and node in fields of their own.

Who logs says what an event is about by `extra=about(node=..., object=...)`; text has it in its words already.
"""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime

_TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
#: Fields that a record may have beside its words.
_FIELDS = ("node", "object")
#: What people have had done.
WRITES = "signalbox.writes"
#: What loggers are called by whose level may be changed: others' log what isn't ours to tell.
_PACKAGES = ("controller", "flows", "topology", "signalbox")


def about(*, node: str = "", object: str = "") -> dict[str, str]:
    """What an event is about, for `extra`."""
    return {name: value for name, value in (("node", node), ("object", object)) if value}


class OneLine(logging.Formatter):
    """Text whose every event is one line, whatever is in its words."""

    def __init__(self) -> None:
        super().__init__(_TEXT)

    def format(self, record: logging.LogRecord) -> str:
        """A record as a line; a traceback is part of it."""
        return super().format(record).replace("\r", "\\r").replace("\n", "\\n")


class Json(logging.Formatter):
    """An object of JSON for each event: time (UTC), level, logger, message, and what it is about."""

    def format(self, record: logging.LogRecord) -> str:
        """A record as a line."""
        row = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        row |= {name: getattr(record, name) for name in _FIELDS if getattr(record, name, "")}
        if record.exc_info:
            row["exception"] = self.formatException(record.exc_info)
        return json.dumps(row, ensure_ascii=False)


def begin(level: str, form: str) -> None:
    """Log to standard error from now on; `form` is text or json."""
    handler = logging.StreamHandler()
    handler.setFormatter(Json() if form == "json" else OneLine())
    logging.basicConfig(level=level.upper(), handlers=[handler])


# Levels, while it runs ------------------------------------------------------------------------------------------------


def is_ours(logger: str) -> bool:
    """Whether a logger's level may be changed: all (empty), a package of ours, or a part of one that there is.

    What people have had done is always logged.
    """
    if logger == WRITES:
        return False
    return logger in ("", *_PACKAGES) or (
        logger.partition(".")[0] in _PACKAGES and logger in logging.root.manager.loggerDict
    )


def level(logger: str) -> str:
    """From which level on a logger's lines are written."""
    return logging.getLevelName(logging.getLogger(logger or None).getEffectiveLevel())


def set_level(logger: str, level: str) -> None:
    """Have a logger's lines written from a level on; empty: from that of the logger above it on."""
    logging.getLogger(logger or None).setLevel(level or logging.NOTSET)

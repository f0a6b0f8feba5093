"""Each event is one line, and JSON has node and object in fields."""

from __future__ import annotations

import json
import logging
import sys

from controller.structured_log import Json, OneLine, about


def record(message: str, *arguments: object, **extra: str) -> logging.LogRecord:
    made = logging.getLogger("controller.app").makeRecord(
        "controller.app", logging.WARNING, "app.py", 1, message, arguments, None, extra=extra
    )
    made.created = 0.5
    return made


def test_json_has_what_an_event_is_about_in_fields() -> None:
    line = Json().format(record("node %s drifted", "n1", **about(node="n1", object="Pod default/a")))
    assert json.loads(line) == {
        "time": "1970-01-01T00:00:00.500+00:00",
        "level": "warning",
        "logger": "controller.app",
        "message": "node n1 drifted",
        "node": "n1",
        "object": "Pod default/a",
    }


def test_an_event_is_one_line_whatever_its_words() -> None:
    for formatter in (Json(), OneLine()):
        assert len(formatter.format(record("a\nb\r\nERROR forged")).splitlines()) == 1


def test_a_traceback_is_part_of_its_line() -> None:
    made = record("it failed")
    try:
        raise ValueError("why")
    except ValueError:
        made.exc_info = sys.exc_info()
    assert "ValueError: why" in json.loads(Json().format(made))["exception"]
    made.exc_text = None
    line = OneLine().format(made)
    assert "ValueError: why" in line and len(line.splitlines()) == 1

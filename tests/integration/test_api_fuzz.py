"""The admin API, asked at random by its own description: no answer is a fault of the server, each is as described."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from policing import policed
from requests.adapters import HTTPAdapter
from schemathesis import GenerationMode
from schemathesis.schemas import BaseSchema
from schemathesis.specs.openapi.checks import positive_data_acceptance
from test_attribution import STICKY
from test_trace_agreement import DOCUMENTS
from urllib3.connection import HTTPConnection
from urllib3.connectionpool import HTTPConnectionPool

from deploy.lab.cluster import Lab

#: Questions by each route and mode. Every route of a description is asked, also what comes to be there later.
QUESTIONS = 30
#: Of those that have something done, which takes its time.
ORDERS = 5
#: Parameters that aren't said, because answers would take long or never end.
UNSAID = ("watch", "load", "rate")
#: What parameters are asked with: without it hardly a question would be of something that there is.
REAL = {
    "from": ["red/near", "node/node-1", "10.244.1.1", "red/far"],
    "to": ["red/far", "node/node-2", "192.0.2.1", "red/svc/sticky", "fd00::1"],
    "protocol": ["TCP", "udp", "ICMP", "SCTP"],
    "namespace": ["red", "blue", "none"],
    "name": ["node-1", "node-2", "near", "far", "sticky"],
    "pod": ["red/near", "red/none"],
    "service": ["red/sticky"],
    "table": ["Route", "3", "99"],
    "labelSelector": ["app=web", "app in (web, db),!x", "a=b=c"],
    "fieldSelector": ["name=near", "status!=Ready", "pods!=0", "none=1"],
}
#: What orders are given with, which are few: all of it is there, so that some of them are carried out.
ORDERED = {"from": ["red/near"], "to": ["red/far", "node/node-2"], "protocol": ["ICMP"], "name": ["node-1", "node-2"]}


class _Connection(HTTPConnection):
    """HTTP to the Unix socket of a path."""

    def __init__(self, path: str) -> None:
        super().__init__("controller")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(30.0)
        self.sock.connect(self._path)


class _Adapter(HTTPAdapter):
    def __init__(self, path: Path) -> None:
        self._path = str(path)
        super().__init__()

    def get_connection_with_tls_context(self, *_: Any, **__: Any) -> HTTPConnectionPool:
        pool = HTTPConnectionPool("controller", maxsize=1)
        pool._new_conn = lambda: _Connection(self._path)
        return pool


@pytest.fixture(scope="module")
def lab(policy_lab: Lab) -> Lab:
    return policy_lab


@pytest.fixture
def session(lab: Lab) -> Iterator[requests.Session]:
    with requests.Session() as made:
        made.trust_env = False  # No proxy of the environment.
        made.mount("http://", _Adapter(lab.layout.api_of(lab.controllers[0])))
        level = made.get("http://controller/v1/log-level").json()
        yield made
        # What is asked at random may have been done.
        for node in lab.nodes:
            assert made.post(f"http://controller/v1/nodes/{node}/undrain").status_code == 200
        assert made.put("http://controller/v1/log-level", json=level).status_code == 200


def bounded(description: dict[str, Any]) -> dict[str, Any]:
    """The same without what would take long."""
    for operation in [each for path in description["paths"].values() for each in path.values()]:
        said = operation.get("parameters", ())
        operation["parameters"] = [each for each in said if each["name"] not in UNSAID]
    return description


def narrowed(description: dict[str, Any]) -> dict[str, Any]:
    """The same, to be asked with words that mean something here."""
    operations = [(method, each) for path in description["paths"].values() for method, each in path.items()]
    for method, operation in operations:
        is_order = method == "post"
        unsaid = ("endpoint", "port") if is_order else ()
        said = [each for each in operation["parameters"] if each["name"] not in unsaid]
        operation["parameters"] = said
        for parameter in said:
            if words := (ORDERED if is_order else REAL).get(parameter["name"]):
                parameter["schema"] = {"type": "string", "enum": words}
    capture = description["components"]["schemas"]["Request"]
    capture["properties"] = {"pod": {"const": "red/near"}, "duration": {"const": 1}}
    capture["required"] = ["pod", "duration"]
    return description


def ask(operation: Any, mode: GenerationMode, session: requests.Session, statuses: dict[str, set[int]]) -> None:
    """Some questions that are as the description wants them, or that aren't."""

    is_order = mode.is_positive and operation.method == "post"

    @settings(
        max_examples=ORDERS if is_order else QUESTIONS,
        deadline=None,
        # The same in every run: what is found is found by whoever changes something.
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def question(case: schemathesis.Case) -> None:
        response = case.call("http://controller", session=session)
        statuses.setdefault(operation.label, set()).add(response.status_code)
        # What makes no sense is refused, also where it is formally right.
        case.validate_response(response, excluded_checks=[positive_data_acceptance])

    question()


def operations(description: dict[str, Any]) -> Iterator[Any]:
    schema: BaseSchema = schemathesis.openapi.from_dict(description)
    return (found.ok() for found in schema.get_all_operations())


def can_be_wrong(operation: dict[str, Any]) -> bool:
    """Whether there is something to be said in a wrong way. A path's words are names: any is right in form."""
    said = operation.get("parameters", [])
    return "requestBody" in operation or (bool(said) and all(each["in"] == "query" for each in said))


def test_whatever_is_asked_there_is_an_answer_as_described(lab: Lab, session: requests.Session) -> None:
    with policed(lab, *DOCUMENTS, STICKY):
        lab.wait_for_sync()
        described = bounded(session.get("http://controller/v1/openapi.json").json())
        statuses: dict[str, set[int]] = {}
        for operation in operations(described):
            if can_be_wrong(operation.definition.raw):
                ask(operation, GenerationMode.NEGATIVE, session, statuses)
        for operation in operations(narrowed(described)):
            ask(operation, GenerationMode.POSITIVE, session, statuses)
        # That questions were understood, and not all refused, of every route.
        answered = {label for label, found in statuses.items() if any(status < 300 for status in found)}
        assert statuses.keys() - answered == set(), statuses
        assert lab.ask("status")["healthy"]

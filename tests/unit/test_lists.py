"""Lists by pages: whatever the limit, the pages are the list; what comes and goes meanwhile changes nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_sync import node, started

from controller import lists
from controller.api import serve
from controller.app import Controller
from controller.kinds import kinds
from controller.lists import STRIDE, Choice, Condition, Field, Key, Kind, ListError, Place, Row
from topology.metadata import labels_of
from topology.model import Pod, Service
from topology.selectors import parse, selects

TEXT = {"type": "string"}


def kind_of(table: dict[str, int]) -> Kind:
    """Each key has as many rows as the table says."""

    def rows(keys: Sequence[Key], counted: Any) -> Iterator[Row]:
        for (name,) in keys:
            for index in range(table.get(name, 0)):
                yield {"name": name, "part": str(index), "odd": index % 2 == 1, "tags": [name[:1], str(index)]}

    fields = tuple(Field(name, "", TEXT) for name in ("name", "part", "odd", "tags"))
    identity = ("name", "part")
    keys = lambda: sorted((name,) for name in table)  # noqa: E731
    return Kind(name="things", about="", fields=fields, identity=identity, by=1, keys=keys, rows=rows)


def page(kind: Kind, choice: Choice, limit: int, start: Place | None) -> lists.Page:
    return next(each for each in lists.page(kind, choice, limit, start, None) if each is not None)


tables = st.dictionaries(st.text("abc", min_size=1, max_size=3), st.integers(0, 5), max_size=12)


@given(tables, st.integers(1, 9), st.sampled_from(["", "odd=true", "part!=0", "tags=a", "name=b,part=1"]))
def test_pages_of_any_size_are_the_list(table: dict[str, int], limit: int, wanted: str) -> None:
    kind = kind_of(table)
    choice = Choice(conditions=lists.conditions(kind, wanted))
    whole = page(kind, choice, 0, None).rows
    assert whole == [row for row in kind.rows(kind.keys(), None) if choice.holds(row)]
    found, start = [], None
    while True:
        part = page(kind, choice, limit, start)
        assert len(part.rows) == limit or part.next is None
        found += part.rows
        if part.next is None:
            break
        start = lists.place_of(kind, lists.token(part.next))
    assert found == whole


@given(tables, tables, st.integers(1, 4))
def test_what_is_there_all_the_while_is_told_once(before: dict[str, int], after: dict[str, int], limit: int) -> None:
    table = dict(before)
    kind = kind_of(table)
    found, start = [], None
    while (part := page(kind, Choice(), limit, start)).next is not None:
        found += part.rows
        table.clear()
        table.update(after)
        start = part.next
    told = [kind.identify(row) for row in found + part.rows]
    assert len(told) == len(set(told))
    lasting = {(name, str(index)) for name in before for index in range(min(before[name], after.get(name, 0)))}
    assert lasting <= set(told) or start is None


def test_a_long_list_lets_others_have_their_turn() -> None:
    kind = kind_of({f"x{number}": 1 for number in range(10 * STRIDE)})
    steps = list(lists.page(kind, Choice(), 0, None, None))
    assert steps.count(None) == 10
    assert len(list(lists.page(kind, Choice(), STRIDE // 2, None, None))) == 1


@pytest.mark.parametrize(
    "text", ["x", "e30", "W10", "W1siYSJdXQ", "W1siYSIsImIiXSwxXQ", "W1sxXSwxXQ", "ä", "W1siYSJdLC0xXQ"]
)
def test_a_place_that_no_answer_had_is_refused(text: str) -> None:
    with pytest.raises(ListError, match="continue is what an answer of things had"):
        lists.place_of(kind_of({"a": 1}), text)


def test_fields_that_there_aren_t_are_refused_with_those_that_there_are() -> None:
    with pytest.raises(ListError, match="things have no field 'colour'; their fields are name, part, odd, tags"):
        lists.conditions(kind_of({}), "colour=red")
    with pytest.raises(ListError, match="expected FIELD=VALUE or FIELD!=VALUE, not 'name'"):
        lists.conditions(kind_of({}), "name")
    assert lists.conditions(kind_of({}), "name==a,part!=b") == (
        Condition("name", "a", True),
        Condition("part", "b", False),
    )


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("", True),
        ("app=web", True),
        ("app==web,tier!=db", True),
        ("app in (db, web),tier notin (db)", True),
        ("app,!gone", True),
        ("app=db", False),
        ("tier", False),
        ("!app", False),
        ("empty=", True),
        ("example.com/role=a", True),
    ],
)
def test_label_selectors_are_kubectl_s(text: str, holds: bool) -> None:
    labels = labels_of({"app": "web", "empty": "", "example.com/role": "a"})
    assert selects(parse(text), labels) is holds


@pytest.mark.parametrize("text", ["=a", "a=b=c", "a in b", "a in (b", "a b", ",", "a=b,", "a=!", "!"])
def test_a_selector_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected KEY=VALUE"):
        parse(text)


# The API -------------------------------------------------------------------------------------------------------------


def pod(number: int, namespace: str = "default", app: str = "web") -> Pod:
    return Pod(namespace=namespace, name=f"p{number}", node="n1", labels=labels_of({"app": app}))


async def ask(controller: Controller, directory: Path, *paths: str) -> list[tuple[int, Any]]:
    runner = await serve(controller, directory / "api.sock")
    answers = []
    try:
        async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(directory / "api.sock"))) as session:
            for path in paths:
                async with session.get(f"http://x{path}") as response:
                    answers.append((response.status, await response.json()))
    finally:
        await runner.cleanup()
    return answers


@pytest.fixture
def controller() -> Controller:
    made = started(node(1))
    services = [Service(namespace="shop", name="db"), Service(namespace="default", name="web")]
    made.change([pod(1), pod(2, app="db"), pod(3, "shop"), *services], (), ())
    return made


async def test_lists_are_narrowed_and_paged(controller: Controller, tmp_path: Path) -> None:
    first, other, shop, labelled, node_s, none = await ask(
        controller,
        tmp_path,
        "/v1/pods?limit=2",
        "/v1/pods?limit=2&continue=" + lists.token((("default", "p2"), 1)),
        "/v1/pods?namespace=shop",
        "/v1/pods?labelSelector=app%21%3Ddb",
        "/v1/pods?fieldSelector=node%3Dn1,name%21%3Dp1",
        "/v1/pods?fieldSelector=node%3Dn2",
    )
    assert [row["name"] for row in first[1]["items"]] == ["p1", "p2"]
    assert first[1]["continue"] == lists.token((("default", "p2"), 1)) and first[1]["remaining"] == 1
    assert [row["name"] for row in other[1]["items"]] == ["p3"] and other[1].keys() == {"items"}
    assert [row["name"] for row in shop[1]["items"]] == ["p3"]
    assert [row["name"] for row in labelled[1]["items"]] == ["p1", "p3"]
    assert [row["name"] for row in node_s[1]["items"]] == ["p2", "p3"]
    assert none == (200, {"items": []})


async def test_single_objects_are_their_rows(controller: Controller, tmp_path: Path) -> None:
    one, whole, service, *missing = await ask(
        controller,
        tmp_path,
        "/v1/pods/default/p1",
        "/v1/pods",
        "/v1/services/shop/db",
        "/v1/nodes/n7",
        "/v1/pods/default/p9",
        "/v1/services/shop/web",
    )
    assert one[0] == 200 and one[1] in whole[1]["items"] and service[1]["name"] == "db"
    assert missing == [
        (404, {"error": "no node 'n7'"}),
        (404, {"error": "no pod 'default/p9'"}),
        (404, {"error": "no Service 'shop/web'"}),
    ]


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/v1/pods?limit=0", "limit is a number from 1 to 1000000, not '0'"),
        ("/v1/pods?limit=x", "limit is a number from 1"),
        ("/v1/pods?limit=1&limit=2", "limit is given twice"),
        ("/v1/pods?continue=x", "continue is what an answer of pods had"),
        ("/v1/nodes?namespace=a", "no parameter 'namespace' of GET /v1/nodes; the parameters are limit, continue"),
        ("/v1/status?x=1", "no parameter 'x' of GET /v1/status; there are no parameters"),
        ("/v1/pods?labelSelector=a%3D%3D%3D", "labelSelector: expected KEY=VALUE"),
        ("/v1/pods?fieldSelector=colour%3Dred", "pods have no field 'colour'"),
        ("/v1/services?counters=2", "counters is 1 or 0, not '2'"),
        ("/v1/path?from=a", "say 'to': [NAMESPACE/]POD or node/NAME"),
        ("/v1/policy-check?from=a&to=b&family=5", "family is 0, 4 or 6, not '5'"),
    ],
)
async def test_a_question_that_makes_no_sense_is_told_what_does(
    controller: Controller, tmp_path: Path, path: str, said: str
) -> None:
    ((status, answer),) = await ask(controller, tmp_path, path)
    assert status == 400 and said in answer["error"]


async def test_a_page_of_many_pods_makes_its_own_rows_only(
    controller: Controller, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = kinds(controller)["pods"]
    controller.change([pod(number) for number in range(1000)], (), ())
    made = []
    monkeypatch.setattr(controller.compiler, "place_of", lambda pod: made.append(pod) or "nowhere")
    found = next(each for each in lists.page(there, Choice(), 10, None, None) if each is not None)
    assert len(found.rows) == 10 and found.remaining == 991 and len(made) == 11

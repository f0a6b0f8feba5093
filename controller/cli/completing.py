"""What a shell may complete: kinds, and the names of what there is, asked of the controller that the words so far mean.

Nothing is said where there is no answer: who presses Tab wants no error across the line.
"""

from __future__ import annotations

from collections.abc import Iterable

import click
from click.shell_completion import CompletionItem

from controller.cli.kinds import BY_WORD, KINDS, Kind, title
from controller.cli.questions import controller_meant

#: Seconds that a person waits at most, and names that are offered.
_PATIENCE = 2.0
_OFFERED = 500


def objects(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """`KIND NAME...` and `KIND/NAME...`: a kind, then the names of its objects."""
    given = context.params.get("words") or ()
    before, slash, begun = incomplete.rpartition("/")
    if slash:
        kind = BY_WORD.get(before)
        return _items((f"{before}/{name}" for name in _names(context, kind)), f"{before}/{begun}")
    if not given:
        return _items((kind.name for kind in KINDS), incomplete) or _items(BY_WORD, incomplete)
    return _items(_names(context, BY_WORD.get(given[0])), incomplete)


def nodes(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of nodes."""
    return _items(_names(context, BY_WORD["nodes"]), incomplete)


def _names(context: click.Context, kind: Kind | None) -> list[str]:
    from controller.cli import client

    if kind is None:
        return []
    query = {"limit": str(_OFFERED)}
    if kind.namespaced and not context.params.get("all_namespaces"):
        query["namespace"] = context.params.get("namespace") or "default"
    try:
        with context:
            where = controller_meant(context.params.get("socket_path"), context.params.get("lab"))
        rows = client.ask(where, [kind.asked], query, timeout=_PATIENCE)["items"]
    except click.ClickException:
        return []
    return list(dict.fromkeys(title(row) for row in rows if kind.has(row)))


def _items(words: Iterable[str], begun: str) -> list[CompletionItem]:
    return [CompletionItem(word) for word in words if word.startswith(begun)]

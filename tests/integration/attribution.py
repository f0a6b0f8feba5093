"""Whose are a lab's flows? Asked of what the switches hold, as `signalbox flows` asks."""

from __future__ import annotations

from deploy.lab.cluster import Lab


def orphans(lab: Lab) -> list[str]:
    """Flows of any switch that are nobody's, or can't be said in words."""
    return [
        f"{node}: {row['table']}: {row['ofctl'] or row['words']}"
        for node in lab.nodes
        for row in lab.ask("nodes", node, "flows")["items"]
        if not row["object"] or not row["decoded"]
    ]


def owners(lab: Lab) -> set[str]:
    """Whose flows there are."""
    return {row["object"] for node in lab.nodes for row in lab.ask("nodes", node, "flows")["items"]}

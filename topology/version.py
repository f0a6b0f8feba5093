"""Which version of Signalbox this is: the controller and the nodes' agents tell it of themselves."""

from __future__ import annotations

from functools import cache
from importlib import metadata


@cache
def version() -> str:
    """As it was installed; out of a checkout that isn't installed nobody knows."""
    try:
        return metadata.version("signalbox-sdn")
    except metadata.PackageNotFoundError:
        return "unknown"

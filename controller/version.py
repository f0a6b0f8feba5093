"""Which version of Signalbox this is."""

from __future__ import annotations

from importlib import metadata


def version() -> str:
    """As it was installed; out of a checkout that isn't installed nobody knows."""
    try:
        return metadata.version("signalbox-sdn")
    except metadata.PackageNotFoundError:
        return "unknown"

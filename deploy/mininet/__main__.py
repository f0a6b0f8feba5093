"""Prints where the file for `mn --custom` is."""

from __future__ import annotations

from pathlib import Path

print(Path(__file__).with_name("custom.py"))

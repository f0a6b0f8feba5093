"""Why there is no trace."""

from __future__ import annotations


class TraceError(ValueError):
    """The question makes no sense, or the model has no answer; the text says why."""


class NotYetError(TraceError):
    """Something isn't there that may be in a moment: a pod's port, a switch. No packet was sent."""


class NotMasterError(TraceError):
    """Another controller writes to a switch that a live trace wants to tap. No packet was sent."""

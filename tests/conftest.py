"""What all tests have in common."""

from hypothesis import settings

# How long one example takes is the machine's business, and what else runs there.
settings.register_profile("signalbox", deadline=None)
settings.load_profile("signalbox")

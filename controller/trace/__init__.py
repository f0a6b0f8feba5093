"""Where a packet goes, node by node and table by table. `result` says what a trace is, `model` makes one of what is
compiled, without any switch being asked.
"""

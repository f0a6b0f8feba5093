"""Where a packet goes, node by node and table by table. `result` says what a trace is, `first_packet` makes the packet
of a question, `model` walks it through what is compiled, without any switch being asked, and `live` sends it.
"""

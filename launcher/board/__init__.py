"""Boards: MicroPython and CircuitPython behind their raw REPL, over a serial line, a PTY, WebREPL or an agent.

* `contract`: what a transport must offer, the states of a board, what is known about it
* `raw_repl`: the protocol, sans-I/O
* `session`: `Board`, one board that we hold: run code, interrupt, reset, come back after the cable did
* `files`: `BoardFiles`, the files on it
* `ports`: which boards are plugged in here, and who holds them
* `reach`: from an address to a `Board`
"""

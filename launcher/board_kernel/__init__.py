"""The kernel for boards: a Jupyter kernel of our own, without ipykernel, that runs cells on MicroPython.

* `kernel`, `requests`: Jupyter's messages, one shell request at a time (protocol 5.4)
* `cells`, `source`: a cell taken apart into magics and code; code made ready for the board
* `held`: the boards that a notebook holds, and what is known about each;  `running`: one run of code, with its output
* `records`: marked lines in a board's output: displays, results, questions (sans-I/O)
* `tracebacks`, `completion`, `inspection`, `completeness`, `history`: what their names say
* `numbers`, `chart`: live plots of printed numbers
* `magics`: everything that begins with a percent sign
* `local_python`: the child process of `%%local`
"""

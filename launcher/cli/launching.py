"""`farkernel launch`: argument parsing only; the work is done by `launcher.launch`."""

from __future__ import annotations

from .arguments import Parser


def run(arguments: list[str]) -> int:
    parser = Parser("launch", "Run a kernel in the foreground, for front ends that start kernels by argv.")
    parser.add_argument("entry", metavar="ENTRY", help="a menu entry, or a target")
    parser.add_argument(
        "-f",
        "--connection-file",
        metavar="FILE",
        required=True,
        help="the connection file that the front end wrote",
    )
    given = parser.parse_args(arguments)
    from ..launch import launch

    return launch(given.entry, given.connection_file)

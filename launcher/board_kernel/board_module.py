"""Shows pictures, tables and more in the notebook.  This module runs on the board, as `farkernel`.

Written for MicroPython and CircuitPython with 16 KB of memory: no json, no base64, no typing needed.  It also runs
in the child process of `%%local`.  What it prints is read by `records`.
"""


def display(value: object, mime: str = "", id: str = "-", update: bool = False) -> None:
    """Show a value: text, bytes of a picture, or an object with `_repr_html_` and the like.

    `mime` says what it is: "text/html", "image/png", "image/svg+xml", "application/json" …  With an `id` (a word of
    your own) it can be changed by `update`.
    """
    if not mime:
        mime, value = guess(value)  # type: ignore[no-untyped-call]
    elif mime.endswith("json") and not isinstance(value, (str, bytes)):
        import json

        value = json.dumps(value)
    print("\x1efk:" + ("update" if update else "display"), mime, id, end=" ")
    _payload(value)  # type: ignore[no-untyped-call]
    print()


def update(id: str, value: object, mime: str = "") -> None:
    """Change what was shown as `id`."""
    display(value, mime, id, True)


def clear(wait: bool = False) -> None:
    """Remove the cell's output; with `wait` when the next comes."""
    print("\x1efk:clear" + (" wait" if wait else ""))


def html(text: str) -> None:
    """Show HTML."""
    display(text, "text/html")


def show_file(path: str, mime: str = "") -> None:
    """Show a picture that is a file on the board, in small pieces: it need not fit into memory."""
    from binascii import b2a_base64

    kinds = {"png": "image/png", "jpg": "image/jpeg", "svg": "image/svg+xml", "html": "text/html"}
    mime = mime or kinds.get(path.rsplit(".", maxsplit=1)[-1].lower(), "text/plain")
    print("\x1efk:display", mime, "-", end=" 64:")
    with open(path, "rb") as file:
        while True:
            piece = file.read(96)
            if not piece:
                break
            print(str(b2a_base64(piece), "ascii").strip(), end="")
    print()


def password(prompt: str = "") -> str:
    """As input(), but what is typed is not shown."""
    try:
        import builtins

        ask = builtins._fk_ask  # type: ignore[attr-defined]
    except (ImportError, AttributeError):
        ask = _plain_input
    return ask(prompt, "password")  # type: ignore[no-any-return]


def _plain_input(prompt: str, kind: str) -> str:
    return input(prompt)


def guess(value):  # type: ignore[no-untyped-def]
    """What it is, and its content as that."""
    for name, mime in (
        ("html", "text/html"),
        ("svg", "image/svg+xml"),
        ("png", "image/png"),
        ("jpeg", "image/jpeg"),
        ("json", "application/json"),
        ("markdown", "text/markdown"),
    ):
        method = getattr(value, "_repr_" + name + "_", None)
        if method is not None:
            return mime, method()
    if isinstance(value, (bytes, bytearray)):
        # A string is a value like any other; bytes that are plainly a picture are not.
        if value[:4] == b"\x89PNG":
            return "image/png", value
        if value[:2] == b"\xff\xd8":
            return "image/jpeg", value
    return "text/plain", value if isinstance(value, str) else repr(value)


def _payload(value):  # type: ignore[no-untyped-def]
    if isinstance(value, str):
        print(repr(value), end="")
        return
    try:
        from binascii import b2a_base64
    except ImportError:
        print(repr(bytes(value)), end="")
        return
    print("64:", end="")
    for start in range(0, len(value), 96):
        print(str(b2a_base64(value[start : start + 96]), "ascii").strip(), end="")

"""What the ssh program calls when it has a question (SSH_ASKPASS, ssh(1)), and the keeper's end of it.

Run as a program of its own, it hands the question over a socket in the keeper's private directory and prints the
answer; nothing is ever read off a terminal.
"""

import json
import os
import socket
import sys

SOCKET = "FARKERNEL_ASKPASS"


def main() -> int:
    """1: nobody answered; ssh then goes on as after Ctrl-D."""
    question = {"text": " ".join(sys.argv[1:]), "kind": os.environ.get("SSH_ASKPASS_PROMPT", "")}
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as plug:
        plug.connect(os.environ[SOCKET])
        plug.sendall(json.dumps(question).encode() + b"\n")
        data = b""
        while not data.endswith(b"\n"):
            piece = plug.recv(65536)
            if not piece:
                return 1
            data += piece
    print(json.loads(data))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What a scan found, as menu entries."""

from __future__ import annotations

from typing import Any

import pytest

from farkernel.kernelspecs.offers import NoKernelInIt, NoSuchOffer, Offer, offers, pick


def environment(path: str, kind: str = "venv", kernel: bool = True, **more: Any) -> dict[str, Any]:
    name = path.rpartition("/")[2]
    row = {"kind": kind, "language": "python", "name": name, "version": "3.12.4", "path": path}
    return {**row, "program": f"{path}/bin/python3", "kernel": kernel, **more}


R = {
    "argv": ["/usr/bin/R", "-e", "IRkernel::main()", "{connection_file}"],
    "language": "R",
    "version": "4.2.2",
}
FOUND = {
    "kernelspecs": [
        {"name": "python3", "display_name": "Python 3", "language": "python", "path": "/usr/share/jupyter/kernels/python3"},
        {"name": "own", "display_name": "", "language": "python", "path": "/e/own/share/jupyter/kernels/own"},
    ],
    "environments": [
        environment("/e/own"),  # its kernelspec says it
        environment("/e/one"),
        environment("/f/one"),
        environment("/c/envs/Torch 2", "conda"),
        environment("/c/envs/empty", "conda", kernel=False),
        {**environment("/usr", "system"), "name": "R", **R},
        "nonsense",
    ],
}  # fmt: skip


def test_each_kind() -> None:
    assert offers(FOUND) == [
        Offer("python3", "Python 3", "python", "/usr/share/jupyter/kernels/python3", {"kernel": "python3"}),
        Offer("own", "own", "python", "/e/own/share/jupyter/kernels/own", {"kernel": "own"}),
        Offer("one", "Python 3.12 (one)", "python", "/e/one", {"python": "/e/one/bin/python3"}),
        Offer("one-2", "Python 3.12 (one)", "python", "/f/one", {"python": "/f/one/bin/python3"}),
        Offer("torch-2", "Python 3.12 (Torch 2)", "python", "/c/envs/Torch 2", {"conda": "/c/envs/Torch 2"}),
        Offer("r", "R 4.2 (R)", "R", "/usr", {"argv": R["argv"]}),
    ]
    assert offers({}) == offers({"kernelspecs": None, "environments": 7}) == []


@pytest.mark.parametrize(
    ("wanted", "settings"),
    [
        ("python3", {"kernel": "python3"}),
        ("torch-2", {"conda": "/c/envs/Torch 2"}),
        ("/c/envs/Torch 2/", {"conda": "/c/envs/Torch 2"}),
        ("/f/one/bin/python3", {"python": "/f/one/bin/python3"}),
        ("/e/own", {"python": "/e/own/bin/python3"}),
        ("r", {"argv": R["argv"]}),
    ],
)
def test_by_name_and_by_path(wanted: str, settings: dict[str, Any]) -> None:
    assert pick("here", FOUND, wanted).settings == settings


def test_what_is_not_there() -> None:
    with pytest.raises(NoSuchOffer, match=r"There are: .*torch-2; did you mean 'torch-2'\?") as caught:
        pick("here", FOUND, "torch2")
    assert "--no-scan" in caught.value.advice
    with pytest.raises(NoSuchOffer, match="None was found at all"):
        pick("here", {}, "x")
    with pytest.raises(NoKernelInIt, match=r"/c/envs/empty/bin/python3 -m pip install ipykernel"):
        pick("here", FOUND, "empty")


def test_a_lying_far_end() -> None:
    found = {
        "kernelspecs": [{"name": "x", "display_name": "\x1b[31mred\n", "language": "python", "path": "/p"}]
    }
    assert offers(found)[0].display_name == "red"
    (offer,) = offers({"environments": [environment("/e/\x1b[2J$(x)/../..")]})
    assert offer.name == "kernel"

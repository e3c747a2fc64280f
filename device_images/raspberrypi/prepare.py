"""The script on a card that makes the kernels' environment at the first start, without a network."""

from __future__ import annotations

import json
import shlex

from .card import Kernel

_SCRIPT = """\
#!/bin/sh
# Made by `farkernel image raspberrypi`: an environment for kernels, and a kernelspec for every user of this machine.
# It may be run again; what went wrong stands in /var/log/farkernel-prepare.log.
set -u
umask 022
exec >>/var/log/farkernel-prepare.log 2>&1
here=$(cd "$(dirname "$0")" && pwd) || exit 1
environment={directory}
kernels=/usr/local/share/jupyter/kernels
name={name}

[ -e "$environment/ready" ] && exit 0
echo "$(date): making $environment"
if ! "$environment/bin/python" -c ''; then
    rm -rf "$environment"
    mkdir -p "$environment" || exit 1
    # Debian's Python may be without ensurepip; pip can be run out of its own wheel.
    if ! python3 -m venv --system-site-packages "$environment"; then
        python3 -m venv --system-site-packages --without-pip "$environment" || exit 1
    fi
fi
pip() {{
    if "$environment/bin/python" -m pip --version >/dev/null 2>&1; then
        "$environment/bin/python" -m pip "$@"
    else
        wheel=$(ls "$here"/wheels/pip-*.whl 2>/dev/null | tail -n 1)
        [ -n "$wheel" ] || {{ echo "there is no pip here, and no pip-*.whl among the wheels"; return 1; }}
        "$environment/bin/python" "$wheel/pip" "$@"
    fi
}}
if [ -d "$here/wheels" ]; then
    pip install --no-index --find-links "$here/wheels" --disable-pip-version-check --no-cache-dir {packages} || exit 1
else
    pip install --disable-pip-version-check --no-cache-dir {packages} || exit 1
fi
mkdir -p "$kernels/$name" || exit 1
cat >"$kernels/$name/kernel.json.new" <<'FARKERNEL_END' || exit 1
{spec}
FARKERNEL_END
mv "$kernels/$name/kernel.json.new" "$kernels/$name/kernel.json" || exit 1
touch "$environment/ready"
echo "$(date): $environment is ready"
"""


def prepare_script(kernel: Kernel) -> str:
    spec = {
        "argv": [f"{kernel.directory}/bin/python", "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        "display_name": kernel.display_name,
        "language": "python",
        "metadata": {"debugger": True},
    }
    return _SCRIPT.format(
        directory=shlex.quote(kernel.directory),
        name=shlex.quote(kernel.name),
        packages=" ".join(shlex.quote(each) for each in kernel.packages),
        spec=json.dumps(spec, indent=1),  # ASCII, so no line of it can be the end mark
    )

# Sourced by the commands beside it: goes to the repository's root and sees to it that .venv has what they need.

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
root=$PWD
python=$root/.venv/bin/python

_new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

_find_python() {
    local candidate
    for candidate in python3 python3.14 python3.13 python3.12 python3.11; do
        if _new_enough "$candidate"; then
            command -v "$candidate"
            return
        fi
    done
    echo "Farkernel needs Python 3.11 or newer, and none was found on PATH. Install one and try again." >&2
    return 1
}

# What the installed environment was made from: the same pyproject.toml and the same place need no second look.
_fingerprint() {
    "$python" - "$1" <<'PYTHON'
import hashlib, pathlib, sys
print(hashlib.sha256(pathlib.Path("pyproject.toml").read_bytes()
      + f"\0{pathlib.Path.cwd()}\0{sys.version}\0{sys.argv[1]}".encode()).hexdigest())
PYTHON
}

# environment EXTRAS: make .venv and install this tree with these extras, once for each pyproject.toml.
environment() {
    local extras=$1 stamp want base
    if command -v flock >/dev/null; then
        exec 9>"$root/.venv.lock"
        flock 9
    fi
    if ! _new_enough "$python"; then
        base=$(_find_python) || return 1
        echo "Making .venv with $base" >&2
        "$base" -m venv --clear "$root/.venv" || return 1
    fi
    stamp=$root/.venv/.farkernel-${extras//[^a-z]/-}
    want=$(_fingerprint "$extras") || return 1
    if [ "$(cat "$stamp" 2>/dev/null)" != "$want" ]; then
        echo "Installing farkernel[$extras] into .venv (once for each pyproject.toml)" >&2
        "$python" -m pip install --quiet --disable-pip-version-check --editable "$root[$extras]" || return 1
        printf '%s\n' "$want" >"$stamp.new" && mv "$stamp.new" "$stamp" || return 1
    fi
    exec 9>&-
    PATH=$root/.venv/bin:$PATH
}

# The Debian packages that the tests need: installed where we may, named where we may not.
debian_packages() {
    local name missing=()
    command -v dpkg-query >/dev/null || return 0
    while read -r name; do
        case $name in '' | '#'*) continue ;; esac
        dpkg-query -W -f='${Status}\n' "$name" 2>/dev/null | grep -q 'install ok installed' || missing+=("$name")
    done <"$root/scripts/debian-packages.txt"
    [ ${#missing[@]} -eq 0 ] && return 0
    if [ "$(id -u)" -ne 0 ]; then
        echo "These Debian packages are missing: ${missing[*]}. Install them: sudo apt-get install ${missing[*]}" >&2
        return 1
    fi
    echo "Installing Debian packages: ${missing[*]}" >&2
    apt-get update -qq >&2 &&
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2
}

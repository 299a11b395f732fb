#!/usr/bin/env bash
# All checks and all tests, from nothing: needs Python (3.11 or newer) with pip, and git. Arguments go to tox.
set -euo pipefail
cd "$(dirname "$0")/.."

# What Qt and a virtual display need and no Python package brings.
packages=(xvfb xauth libxcb-cursor0 libxcb-icccm4 libxcb-keysyms1 libxcb-shape0 libxcb-render-util0 libxcb-image0
    libxcb-xinerama0 libegl1 libgl1 libxkbcommon-x11-0 libdbus-1-3 libfontconfig1 libglib2.0-0)
if [[ " $* " == *" -e lint "* ]]; then
    : # looks at the code only
elif command -v dpkg-query >/dev/null; then
    missing=()
    for package in "${packages[@]}"; do
        # Debian 13 and Ubuntu 24.04 put t64 behind the names of some.
        state=$(dpkg-query -W -f='${Status}\n' "$package" "${package}t64" 2>/dev/null || true)
        [[ $state == *"install ok installed"* ]] || missing+=("$package")
    done
    if [ ${#missing[@]} -gt 0 ]; then
        install="apt-get install -y --no-install-recommends ${missing[*]}"
        if [ "$(id -u)" -ne 0 ]; then
            echo "The viewer tests need system libraries. As an administrator: apt-get update && $install" >&2
            exit 1
        fi
        export DEBIAN_FRONTEND=noninteractive
        apt-get update -qq
        for package in "${missing[@]}"; do
            apt-get install -y --no-install-recommends "$package" >/dev/null ||
                apt-get install -y --no-install-recommends "${package}t64" >/dev/null
        done
    fi
elif ! command -v xvfb-run >/dev/null; then
    echo "The viewer tests need xvfb-run and these libraries: ${packages[*]}" >&2
    exit 1
fi

# --target works where Debian forbids pip to touch the system, and where there is no venv module.
python3 -m pip install --quiet --disable-pip-version-check --upgrade --target .tools uv
export PATH="$PWD/.tools/bin:$PATH"
exec uvx --quiet --with tox-uv tox run "$@"

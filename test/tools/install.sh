#!/usr/bin/env bash
# Installs what the Makefile asks for, when it is not there yet, through the ordinary package clients.
#   install.sh debian COMMAND=PACKAGE...   Debian packages whose command (or library NAME.so.N, or file /PATTERN) is
#                                          missing (needs root)
#   install.sh kernel DIR                  vmlinuz and fuse.ko of Debian's kernel in DIR; nothing is installed
#   install.sh python DIR REQUIREMENTS     a virtual environment in DIR with the pinned packages
#   install.sh go DIR MODULE@VERSION       a Go program in DIR/bin
#   install.sh node DIR                    the packages of DIR/package-lock.json in DIR/node_modules
set -euo pipefail

present() {
    case $1 in
        *.so.*) [[ $(ldconfig -p) == *"$1"* ]] ;;
        /*) compgen -G "$1" >/dev/null ;;
        *) command -v "$1" >/dev/null ;;
    esac
}

debian() {
    local missing=()
    local pair
    for pair in "$@"; do
        present "${pair%%=*}" || missing+=("${pair#*=}")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    echo "installing ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

kernel() {
    local dir=$1 package work
    # Unlike apt-get install, apt-get download takes just what the lists of packages say: they must be of today.
    apt-get update -qq
    package=$(apt-cache depends linux-image-amd64 | sed -n 's/^ *Depends: \(linux-image-.*\)/\1/p')
    [ -n "$package" ] || { echo "install.sh: linux-image-amd64 names no kernel; is this a Debian for amd64?" >&2; exit 1; }
    echo "unpacking $package"
    work=$(mktemp -d)
    trap "rm -rf '$work'" EXIT
    # As this user: the one that apt downloads as cannot write there.
    (cd "$work" && apt-get download -qq -o APT::Sandbox::User=root "$package")
    mkdir -p "$dir"
    dpkg-deb --fsys-tarfile "$work"/*.deb |
        tar -x -C "$dir" --wildcards --transform 's|.*/||;s|^vmlinuz-.*|vmlinuz|' './boot/vmlinuz-*' '*/fs/fuse/fuse.ko'
}

python() {
    local dir=$1 requirements=$2
    # Debian packs the venv module apart from python3: install it where it is missing, then try again.
    python3 -m venv "$dir" >/dev/null 2>&1 || { debian "no-such-command-venv=python3-venv"; python3 -m venv "$dir"; }
    "$dir/bin/python" -m pip install --quiet --disable-pip-version-check -r "$requirements"
}

go() {
    mkdir -p "$1/bin"
    GOBIN=$(realpath "$1/bin") command go install "$2"
}

node() {
    npm ci --prefix "$1" --no-audit --no-fund --loglevel=error
    # npm packs files without their mode; a binary that is shipped as a plain file must become runnable.
    find "$1/node_modules" -path '*/dist/bin/*' -type f -exec chmod +x {} +
}

"$@"

#!/usr/bin/env bash
# Runs a command whose temporary files all lie in one fresh directory, and cleans up behind it whatever happens:
# FUSE mounts left below that directory are unmounted, the directory is removed. A mount left behind by a command that
# succeeded is a leak and fails the run: tests must clean up themselves.
set -uo pipefail

# A short path: Unix sockets of the tests live below it, and their paths end at 107 bytes.
TMPDIR=$(mktemp -d /tmp/azb.XXXXXX)
export TMPDIR
# Servers that tests start run as users of their own, and have to get to their directories.
chmod 711 "$TMPDIR"

mounts_left() {
    # Field 5 of mountinfo is the mount point; deepest first, so that a bind on a mount goes before it.
    awk -v dir="$TMPDIR/" 'index($5, dir) == 1 {print $5}' /proc/self/mountinfo | sort -r
}

cleanup() {
    local status=$? left point
    trap - EXIT INT TERM HUP
    if [ -n "${child:-}" ]; then
        # The whole group: cargo's tests, and the mounts that they started.
        kill -TERM -- "-$child" 2>/dev/null
        sleep 2
        kill -KILL -- "-$child" 2>/dev/null
    fi
    left=$(mounts_left)
    while IFS= read -r point; do
        [ -z "$point" ] || timeout 10 umount -l "$(printf '%b' "${point//\\/\\0}")"
    done <<<"$left"
    rm -rf --one-file-system "$TMPDIR"
    if [ -n "$left" ] && [ "$status" -eq 0 ]; then
        printf 'contained.sh: these mounts were left behind:\n%s\n' "$left" >&2
        status=1
    fi
    exit "$status"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# Job control gives the command a process group of its own.
set -m
"$@" &
child=$!
wait "$child"
status=$?
child=
exit "$status"

#!/usr/bin/env bash
# Ends what up.sh started, and says what is left when something is. Logs and keys stay until the next up.sh.
set -euo pipefail
here=$(dirname "$(realpath "$0")")
source "$here/place.sh"
state=$E2E_DIR/state
[ -e "$state/cgroup" ] || exit 0
if [ -e "$state/unshare" ]; then
    outer=$(cat "$state/unshare")
    node=$(cat "$state/pid" 2>/dev/null || true)
    # The node's process 1 ends with unshare, and all others of its namespaces, with their mounts and interfaces, with it.
    if grep -qs '^unshare$' "/proc/$outer/comm"; then kill -KILL "$outer"; fi
    for _ in $(seq 100); do
        kill -0 "$outer" 2>/dev/null || { [ -n "$node" ] && kill -0 "$node" 2>/dev/null; } || break
        sleep 0.1
    done
    if [ -n "$node" ] && kill -0 "$node" 2>/dev/null; then echo "left: process $node of the node" >&2; exit 1; fi
    rm -f "$state/unshare" "$state/pid" "$state/ready"
fi
"$here/cgroups.sh" remove "$(cat "$state/cgroup")"
rm -f "$state/cgroup"

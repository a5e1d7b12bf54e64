#!/usr/bin/env bash
# Starts a Kubernetes of one node in namespaces of its own, and returns when the node is Ready. Root only.
#   test/e2e/build.sh and images.sh come first (make e2e-tools); test/e2e/lab runs commands in it; test/e2e/down.sh ends it.
set -euo pipefail
here=$(dirname "$(realpath "$0")")
source "$here/place.sh"
state=$E2E_DIR/state
if [ -e "$state/pid" ] && kill -0 "$(cat "$state/pid")" 2>/dev/null; then
    echo "a cluster is up in $E2E_DIR; test/e2e/down.sh ends it" >&2
    exit 1
fi
rm -rf "$state"
mkdir -p "$state/log"
echo "$E2E_CGROUP" >"$state/cgroup"

# The node mounts its own over these; on this side they stay as they are.
mkdir -p /var/lib/{kubelet,containerd,cni} /var/log/{pods,containers} /etc/{cni,kubernetes}
"$here/cgroups.sh" make "$E2E_CGROUP"

# node.sh is process 1 of the namespaces: with unshare it dies, and everything in them with it.
setsid unshare --mount --net --pid --uts --ipc --fork --kill-child \
    bash "$here/node.sh" >"$state/log/node" 2>&1 </dev/null &
outer=$!
echo "$outer" >"$state/unshare"
for _ in $(seq 50); do
    inner=$(cat "/proc/$outer/task/$outer/children" 2>/dev/null || true)
    [ -z "$inner" ] || break
    sleep 0.1
done
echo "${inner// /}" >"$state/pid"

# Seconds. 15 are usual on two idle cores; a machine that compiles beside it takes far longer.
limit=$((SECONDS + 180))
until [ -e "$state/ready" ]; do
    if ! kill -0 "$outer" 2>/dev/null || [ "$SECONDS" -gt "$limit" ]; then
        echo "the node did not come up; its log ends:" >&2
        tail -n 20 "$state/log/node" >&2
        "$here/down.sh"
        exit 1
    fi
    sleep 0.2
done
echo "the cluster is up after $SECONDS s; test/e2e/lab kubectl get pods -A"

#!/usr/bin/env bash
# Makes or removes the cgroup under which all pods of the cluster run: one folder in each controller's tree of cgroup v1,
# or in the one tree of v2.
set -euo pipefail
name=$2

roots() {
    if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
        echo /sys/fs/cgroup
    else
        awk '$9 == "cgroup" || $9 == "cgroup2" || $8 == "cgroup" || $8 == "cgroup2" {print $5}' /proc/self/mountinfo | sort -u
    fi
}

make() {
    local root file controller
    for root in $(roots); do
        mkdir -p "$root/$name"
        # v1: a new cpuset is empty, and nothing can enter it before it has processors.
        for file in cpuset.cpus cpuset.mems; do
            if [ -e "$root/$file" ] && [ -z "$(cat "$root/$name/$file")" ]; then cat "$root/$file" >"$root/$name/$file"; fi
        done
        if [ "$root" = /sys/fs/cgroup ] && [ -e "$root/cgroup.subtree_control" ]; then
            for controller in $(cat "$root/cgroup.controllers"); do
                echo "+$controller" >"$root/cgroup.subtree_control" || true
                echo "+$controller" >"$root/$name/cgroup.subtree_control" || true
            done
        fi
    done
}

remove() {
    local root left=0
    for root in $(roots); do
        # Processes that were killed take a moment to leave.
        for _ in $(seq 50); do
            [ -d "$root/$name" ] || break
            find "$root/$name" -depth -type d -exec rmdir {} + 2>/dev/null || sleep 0.1
        done
        [ ! -d "$root/$name" ] || { echo "left: $root/$name" >&2; left=1; }
    done
    return $left
}

"$1"

# Sourced by the scripts beside it: where programs, images and the state of the cluster are. Nothing is in the source tree
# but what is in git. Two clusters side by side need a place and a cgroup each.
repository=$(dirname "$(dirname "$(dirname "$(realpath "${BASH_SOURCE[0]}")")")")
export E2E_DIR=$(realpath -m "${E2E_DIR:-${CARGO_TARGET_DIR:-$repository/target}/e2e}")
export E2E_CGROUP=${E2E_CGROUP:-azblob-e2e}

#!/usr/bin/env bash
# Makes the images that the cluster runs, from files of this machine and without a registry: $E2E_DIR/images/*.tar.
#   images.sh base      what Kubernetes and the test pods need
#   images.sh driver    the driver, as the last stage of the Dockerfile; the binary is that of `make static`
set -euo pipefail
source "$(dirname "$(realpath "$0")")/place.sh"
bin=$E2E_DIR/bin
images=$E2E_DIR/images
mkdir -p "$images"

# PROGRAM MODULE [FOLDER]: under the name and version that the chart expects, which is that of the module.
sidecar() {
    local version
    version=$(cd "$repository/test/e2e/${3:-.}" && go list -m -f '{{.Version}}' "github.com/kubernetes-csi/$2")
    "$bin/mkimage" -o "$images/$1.tar" -name "localhost/sig-storage/$1:$version" -entrypoint "/$1" "$bin/$1=/$1"
}

# The tools of test pods: Debian's own bash and coreutils, busybox for the rest.
tools() {
    local programs=() links=() file applet
    while read -r file; do
        if [ -f "$file" ] && [ ! -L "$file" ] && [ -x "$file" ]; then programs+=("$file=/usr/bin/${file##*/}"); fi
    done < <(dpkg -L bash coreutils | grep -E '^(/usr)?/s?bin/[^/]+$')
    for applet in $(busybox --list | grep -vx busybox); do
        [[ " ${programs[*]} " == *"=/usr/bin/$applet "* ]] || links+=(-link "/usr/bin/$applet=busybox")
    done
    "$bin/mkimage" -o "$images/tools.tar" -name localhost/tools:e2e -link /bin=usr/bin "${links[@]}" \
        "$(command -v busybox)=/usr/bin/busybox" "${programs[@]}"
}

base() {
    "$bin/mkimage" -o "$images/pause.tar" -name localhost/pause:e2e -entrypoint /pause "$bin/pause=/pause"
    tools
    sidecar csi-provisioner external-provisioner/v5
    sidecar csi-resizer external-resizer/v2
    sidecar csi-snapshotter external-snapshotter/v8 sidecars
    sidecar snapshot-controller external-snapshotter/v8 sidecars
}

driver() {
    "$bin/mkimage" -o "$images/azblob-csi.tar" -name localhost/azblob-csi:e2e -entrypoint /azblob-csi \
        -env SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt \
        "$2=/azblob-csi" /etc/ssl/certs/ca-certificates.crt=/etc/ssl/certs/ca-certificates.crt
}

"$1" "$@"

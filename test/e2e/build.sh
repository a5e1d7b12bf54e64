#!/usr/bin/env bash
# Builds the programs of the test cluster into the folder it is given: Kubernetes, its CSI sidecars, mkimage.
# From empty caches about 20 minutes on two cores, 1 GB of modules and 4 GB of build cache; afterwards seconds.
set -euo pipefail
here=$(dirname "$(realpath "$0")")
out=$(realpath -m "$1")
mkdir -p "$out"
export CGO_ENABLED=0 GOFLAGS="${GOFLAGS:-} -mod=readonly -buildvcs=false"

# Without a version stamp everything says v0.0.0-master, and helm refuses to install there.
version=$(cd "$here" && go list -m -f '{{.Version}}' k8s.io/kubernetes)
stamp="-s -w -X k8s.io/component-base/version.gitVersion=$version -X k8s.io/client-go/pkg/version.gitVersion=$version"

cd "$here"
for name in mkimage pause hyperkube; do
    go build -ldflags "$stamp" -o "$out/$name" "./$name"
done
# One binary for all components, which goes by the name it is called with: linking is most of the cost.
for name in etcd kubectl kubelet kube-apiserver kube-controller-manager kube-proxy kube-scheduler; do
    ln -sf hyperkube "$out/$name"
done
for package in external-provisioner/v5/cmd/csi-provisioner external-resizer/v2/cmd/csi-resizer; do
    go build -ldflags "-s -w" -o "$out/${package##*/}" "github.com/kubernetes-csi/$package"
done

# What was made for a later Kubernetes than the cluster's, and does not compile beside it: a module of its own.
cd "$here/sidecars"
snapshotter=github.com/kubernetes-csi/external-snapshotter
for name in csi-snapshotter snapshot-controller; do
    go build -ldflags "-s -w" -o "$out/$name" "$snapshotter/v8/cmd/$name"
done
# The snapshot API is not part of Kubernetes: its definitions come with the client's module.
rm -rf "$out/crd"
mkdir "$out/crd"
cp "$(go list -m -f '{{.Dir}}' $snapshotter/client/v8)"/config/crd/snapshot.storage.k8s.io_*.yaml "$out/crd/"
chmod -R u+w "$out/crd"

#!/usr/bin/env bash
# Process 1 of the node: up.sh runs it in new mount, network, PID, UTS and IPC namespaces. It lays out the node and starts
# everything: address 10.243.0.1, pods 10.244.0.0/24, services 10.96.0.0/16, API server on 127.0.0.1:6443 in here. There is
# no DNS, no default storage class, no signing of certificates.
set -euo pipefail
here=$(dirname "$(realpath "$0")")
bin=$E2E_DIR/bin
state=$E2E_DIR/state
export PATH=$bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

node=node1
node_ip=10.243.0.1
pod_net=10.244.0.0/24
service_net=10.96.0.0/16
service_ip=10.96.0.1 # the first of service_net is the API server's

# --- mounts
# The kubelet and drivers hand mounts to each other (mount propagation), so
# the node's tree is shared; the new namespace has already cut it off from
# the machine's.
mount --make-rprivate /
mount --make-rshared /
mount -t proc proc /proc
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/lock
for d in /var/lib/kubelet /var/lib/containerd /var/lib/cni /var/log/pods /var/log/containers /etc/cni /etc/kubernetes; do
    mkdir -p "$state/root$d"
    mount --bind "$state/root$d" "$d"
    # A peer group of its own: or each mount below would appear a second time
    # under $state, and whoever counts a volume's mounts would count wrong.
    mount --make-private "$d"
    mount --make-shared "$d"
done
# Kernel settings that the kubelet insists on belong to the whole machine: show
# it what it wants to see, and leave them.
for s in vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 kernel/panic_on_oops=1 \
    kernel/keys/root_maxkeys=1000000 kernel/keys/root_maxbytes=25000000; do
    [ -e "/proc/sys/${s%=*}" ] || continue
    mkdir -p "$state/sys"
    f=$state/sys/$(basename "${s%=*}")
    echo "${s#*=}" >"$f"
    mount --bind "$f" "/proc/sys/${s%=*}"
done

# --- network
hostname "$node"
ip link set lo up
ip link add node0 type bridge
ip addr add "$node_ip/24" dev node0
ip link set node0 up
ip route add default dev node0
echo 1 >/proc/sys/net/ipv4/ip_forward
# All sysfs mounts of a network namespace share what the first of them says: without this one, which can be written, it would be
# that of a sandbox, which cannot, and the driver could not set the read-ahead of its mounts.
mkdir -p "$state/sysfs"
mount -t sysfs sysfs "$state/sysfs"
mkdir -p /etc/cni/net.d
cat >/etc/cni/net.d/10-bridge.conflist <<EOF
{"cniVersion": "0.4.0", "name": "pods", "plugins": [
  {"type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true,
   "ipam": {"type": "host-local", "ranges": [[{"subnet": "$pod_net"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
EOF

# --- keys
pki=$state/pki
mkdir -p "$pki"
umask 077
openssl req -x509 -newkey rsa:2048 -nodes -days 3650 -subj /CN=e2e-ca \
    -keyout "$pki/ca.key" -out "$pki/ca.crt" 2>/dev/null
certificate() { # NAME SUBJECT EXTENSIONS
    openssl req -newkey rsa:2048 -nodes -subj "$2" -keyout "$pki/$1.key" -out "$pki/$1.csr" 2>/dev/null
    openssl x509 -req -in "$pki/$1.csr" -CA "$pki/ca.crt" -CAkey "$pki/ca.key" -CAcreateserial -days 3650 \
        -extfile <(printf '%s\n' "$3") -out "$pki/$1.crt" 2>/dev/null
}
certificate apiserver /CN=kube-apiserver \
    "subjectAltName=DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local,IP:127.0.0.1,IP:$node_ip,IP:$service_ip"
certificate kubelet-client /O=system:masters/CN=apiserver-kubelet-client extendedKeyUsage=clientAuth
openssl genrsa -out "$pki/sa.key" 2048 2>/dev/null
openssl rsa -in "$pki/sa.key" -pubout -out "$pki/sa.pub" 2>/dev/null

user() { # FILE USER GROUP
    local token
    token=$(openssl rand -hex 16)
    echo "$token,$2,$2,\"$3\"" >>"$pki/tokens.csv"
    cat >"$pki/$1.conf" <<EOF
apiVersion: v1
kind: Config
clusters: [{name: lab, cluster: {server: "https://127.0.0.1:6443", certificate-authority: "$pki/ca.crt"}}]
users: [{name: $1, user: {token: $token}}]
contexts: [{name: lab, context: {cluster: lab, user: $1}}]
current-context: lab
EOF
}
user admin admin system:masters
user kube-controller-manager system:kube-controller-manager system:none
user kube-scheduler system:kube-scheduler system:none
user kube-proxy system:kube-proxy system:none
user kubelet "system:node:$node" system:nodes
umask 022

# --- processes
mkdir -p "$state/process"
start() { # NAME COMMAND...
    local name=$1
    shift
    "$@" >"$state/log/$name" 2>&1 </dev/null &
    echo "$!" >"$state/process/$name.pid" # as restart finds it
    printf '%q ' "$@" >"$state/process/$name"
    echo "$(date +%T) $name"
}
wait_for() { # SECONDS COMMAND...
    local limit=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$limit" ] || { echo "waited in vain for: $*"; exit 1; }
        sleep 0.2
    done
}

start etcd etcd --name=lab --data-dir="$state/etcd" --unsafe-no-fsync --log-level=warn \
    --listen-client-urls=http://127.0.0.1:2379 --advertise-client-urls=http://127.0.0.1:2379 \
    --listen-peer-urls=http://127.0.0.1:2380 --initial-advertise-peer-urls=http://127.0.0.1:2380 \
    --initial-cluster=lab=http://127.0.0.1:2380

start kube-apiserver kube-apiserver --etcd-servers=http://127.0.0.1:2379 \
    --bind-address=0.0.0.0 --secure-port=6443 --advertise-address="$node_ip" \
    --tls-cert-file="$pki/apiserver.crt" --tls-private-key-file="$pki/apiserver.key" --client-ca-file="$pki/ca.crt" \
    --kubelet-client-certificate="$pki/kubelet-client.crt" --kubelet-client-key="$pki/kubelet-client.key" \
    --kubelet-preferred-address-types=InternalIP \
    --requestheader-client-ca-file="$pki/ca.crt" --requestheader-allowed-names=none \
    --token-auth-file="$pki/tokens.csv" --anonymous-auth=false \
    --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction --allow-privileged=true \
    --service-account-issuer=https://kubernetes.default.svc \
    --service-account-key-file="$pki/sa.pub" --service-account-signing-key-file="$pki/sa.key" \
    --service-cluster-ip-range="$service_net" --profiling=false \
    --audit-policy-file="$here/audit.yaml" --audit-log-path="$state/log/audit"

cat >"$state/containerd.toml" <<EOF
version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:e2e"
  restrict_oom_score_adj = true # to lower it takes CAP_SYS_RESOURCE
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "/etc/cni/net.d"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
EOF
start containerd containerd --config "$state/containerd.toml"

wait_for 60 ctr version
for tar in "$E2E_DIR"/images/*.tar; do
    ctr -n k8s.io images import "$tar"
done

export KUBECONFIG=$pki/admin.conf
wait_for 120 kubectl get --raw /readyz
echo "$(date +%T) the API server is ready"

start kube-controller-manager kube-controller-manager --kubeconfig="$pki/kube-controller-manager.conf" \
    --authentication-kubeconfig="$pki/kube-controller-manager.conf" --authorization-kubeconfig="$pki/kube-controller-manager.conf" \
    --service-account-private-key-file="$pki/sa.key" --root-ca-file="$pki/ca.crt" --use-service-account-credentials \
    --bind-address=127.0.0.1 --leader-elect=false --profiling=false

start kube-scheduler kube-scheduler --kubeconfig="$pki/kube-scheduler.conf" \
    --authentication-kubeconfig="$pki/kube-scheduler.conf" --authorization-kubeconfig="$pki/kube-scheduler.conf" \
    --bind-address=127.0.0.1 --leader-elect=false --profiling=false

cat >"$state/kubelet.yaml" <<EOF
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
cgroupDriver: cgroupfs
cgroupRoot: /$E2E_CGROUP
failCgroupV1: false
failSwapOn: false
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: "$pki/ca.crt"}}
authorization: {mode: Webhook}
readOnlyPort: 0
oomScoreAdj: 0
resolvConf: ""
imageGCHighThresholdPercent: 100
evictionHard: {memory.available: 50Mi, nodefs.available: "0%", nodefs.inodesFree: "0%", imagefs.available: "0%", imagefs.inodesFree: "0%"}
EOF
start kubelet kubelet --config="$state/kubelet.yaml" --kubeconfig="$pki/kubelet.conf" \
    --hostname-override="$node" --node-ip="$node_ip"

cat >"$state/kube-proxy.yaml" <<EOF
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: iptables
hostnameOverride: $node
clusterCIDR: $pod_net
clientConnection: {kubeconfig: "$pki/kube-proxy.conf"}
conntrack: {maxPerCore: 0, min: 0}
EOF
start kube-proxy kube-proxy --config="$state/kube-proxy.yaml"

wait_for 120 kubectl wait --for=condition=Ready "node/$node" --timeout=5s
wait_for 60 kubectl -n default get serviceaccount default
echo "$(date +%T) Ready"
touch "$state/ready"

# Reap what is left to process 1; when something of the node dies, say so.
while :; do
    wait -n || echo "$(date +%T) a process ended with $?"
    jobs -r | grep -q . || { sleep 1; }
done

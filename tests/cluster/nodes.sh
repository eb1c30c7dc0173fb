# Nodes of the cluster, for `cluster` to source: each has a network namespace with an address on the cluster's bridge, a containerd, a
# kubelet and a kube-proxy. What runs in one is in cgroups of its name, by which it is found and ended. Seen to work with cgroup v1.
HIERARCHIES="cpu cpuacct cpuset memory devices freezer blkio pids systemd unified"

nodes() { # COUNT
  inside ip route add unreachable 10.244.0.0/15   # of pods: what is not there is nowhere
  inside sysctl -qw net.ipv4.ip_forward=1
  start controllers kube-controller-manager --kubeconfig="$KUBECONFIG" --authentication-kubeconfig= --authorization-kubeconfig= \
    --bind-address=127.0.0.1 --cert-dir="$RUN/controllers" --service-account-private-key-file="$RUN/pki/sa.key" \
    --root-ca-file="$RUN/certs/apiserver.crt" --use-service-account-credentials=true --leader-elect=false \
    --horizontal-pod-autoscaler-sync-period=5s
  start scheduler kube-scheduler --kubeconfig="$KUBECONFIG" --authentication-kubeconfig= --authorization-kubeconfig= \
    --bind-address=127.0.0.1 --cert-dir="$RUN/scheduler" --leader-elect=false
  local number
  for number in $(seq "$1"); do attach "node$number" "10.245.0.1$number"; done
  attach modalities 10.245.0.101
  for number in $(seq "$1"); do node "$number"; done
  for number in $(seq "$1"); do kubectl wait --for=condition=Ready "node/node$number" --timeout=120s; done
  await 60 kubectl get serviceaccount default
  kubectl apply -f "$HERE/node/dns.yaml" >/dev/null
  kubectl -n kube-system rollout status daemonset/coredns --timeout=120s
}

attach() { # NAME ADDRESS: a namespace with this address on the bridge, and routes to the pods of each node
  ip netns add "$NS-$1"
  inside ip link add "$1" type veth peer name eth0 netns "$NS-$1"
  inside ip link set "$1" master cluster0 up
  within "$1" ip link set lo up
  within "$1" ip addr add "$2/24" dev eth0
  within "$1" ip link set eth0 up
  within "$1" ip route add unreachable 10.244.0.0/15
  local number
  for number in 1 2; do [ "$1" = "node$number" ] || within "$1" ip route add "10.244.$number.0/24" via "10.245.0.1$number"; done
  if [[ $1 = node* ]]; then
    within "$1" sysctl -qw net.ipv4.ip_forward=1
    within "$1" ip route add 10.96.0.0/16 dev eth0   # services: kube-proxy leads each elsewhere before it gets there
    inside ip route add "10.244.${1#node}.0/24" via "$2"
  fi
}
within() { local name=$1; shift; nsenter --net="/run/netns/$NS-$name" "$@"; }

node() { # NUMBER
  local number=$1 name=node$1 cgroup=$NS-node$1 folder=$RUN/node$1 hierarchy file
  mkdir -p "$folder/cni"
  for hierarchy in $HIERARCHIES; do [ ! -d /sys/fs/cgroup/$hierarchy ] || mkdir -p "/sys/fs/cgroup/$hierarchy/$cgroup/runtime"; done
  for file in cpus mems; do
    cat /sys/fs/cgroup/cpuset/cpuset.$file >"/sys/fs/cgroup/cpuset/$cgroup/cpuset.$file"
  done
  for file in containerd.toml kubelet.yaml network.conflist; do
    sed "s#@NODE@#$folder#g; s#@HERE@#$HERE#g; s#@NAME@#$cgroup#g; s#@NUMBER@#$number#g" "$HERE/node/$file" >"$folder/$file"
  done
  mv "$folder/network.conflist" "$folder/cni/"
  start_in "$name" containerd containerd -c "$folder/containerd.toml"
  await 30 ctr_of "$number" version
  load_into "$number" "$CLUSTER"/images/{pause,coredns}.tar
  start_in "$name" kubelet kubelet --config="$folder/kubelet.yaml" --kubeconfig="$KUBECONFIG" --root-dir="$folder/kubelet" \
    --cert-dir="$folder/pki" --hostname-override="$name" --node-ip="10.245.0.1$number"
  start_in "$name" kubeproxy kube-proxy --kubeconfig="$KUBECONFIG" --hostname-override="$name" --proxy-mode=iptables \
    --cluster-cidr=10.244.0.0/16 --conntrack-max-per-core=0 --conntrack-tcp-timeout-established=0s \
    --conntrack-tcp-timeout-close-wait=0s --iptables-localhost-nodeports=false
  await 60 kubectl get "node/$name"
}
start_in() { # NODE NAME COMMAND…: in the node's network and cgroup, which its children inherit
  local node=$1 name=$2; shift 2
  nohup nsenter --net="/run/netns/$NS-$node" bash -c 'echo $$ >"$0"; exec "$@"' \
    "/sys/fs/cgroup/pids/$NS-$node/runtime/cgroup.procs" "$@" >"$RUN/$node-$name.log" 2>&1 </dev/null &
}
ctr_of() { local number=$1; shift; CONTAINERD_ADDRESS=$RUN/node$number/containerd.sock ctr -n k8s.io "$@"; }
load() { # IMAGE.tar…, into all nodes at once
  local node jobs=()
  for node in "$RUN"/node?; do load_into "${node##*node}" "$@" & jobs+=($!); done
  for node in "${jobs[@]}"; do wait "$node"; done
}
load_into() { # NUMBER IMAGE.tar…
  local number=$1 image; shift
  for image; do ctr_of "$number" images import "$image" >/dev/null; done
}

processes() { # NODE SUBGROUP: the ids of what is in this cgroup and below it
  find "/sys/fs/cgroup/pids/$NS-$1/$2" -name cgroup.procs -exec cat {} + 2>/dev/null
}
end_processes() { # SIGNAL NODE SUBGROUP
  local id; for id in $(processes "$2" "$3"); do kill "-$1" "$id" 2>/dev/null || true; done
}
end_nodes() { # pods first: nothing starts them again once what watches them has ended
  local name hierarchy mount
  for name in $(cd "$RUN" && find . -maxdepth 1 -name 'node?' -printf '%f\n'); do
    end_processes KILL "$name" runtime
    for _ in $(seq 40); do
      end_processes KILL "$name" .
      [ -n "$(processes "$name" .)" ] || break
      sleep .25
    done
    awk -v folder="$RUN/$name/" 'index($2, folder) == 1 {print $2}' /proc/mounts | sort -r | while read -r mount; do umount "$mount" || umount -l "$mount"; done
    for hierarchy in $HIERARCHIES; do
      [ ! -d "/sys/fs/cgroup/$hierarchy/$NS-$name" ] || find "/sys/fs/cgroup/$hierarchy/$NS-$name" -depth -type d -exec rmdir {} \; || true
    done
  done
}

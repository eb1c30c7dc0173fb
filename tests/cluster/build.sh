#!/usr/bin/env bash
# Builds what a Kubernetes on one machine is made of, through Go's module proxy, into $CLUSTER; what is there is not built again.
#   build.sh          kube-apiserver and kubectl: what `make k8s-check` needs; five minutes on two cores, once
#   build.sh nodes    and what runs pods: controllers, kubelet, kube-proxy, containerd, CoreDNS, KEDA; a quarter of an hour more
# Needs Go 1.26 and some 3 GB.
set -euo pipefail
CLUSTER=${CLUSTER:-${XDG_CACHE_HOME:-$HOME/.cache}/dicom-ingest/cluster}
KUBERNETES=1.36.1 CONTAINERD=v2.4.2 COREDNS=v1.15.0 KEDA=v2.21.0
export CGO_ENABLED=0 GOFLAGS="-buildvcs=false -mod=mod"
mkdir -p "$CLUSTER/bin" "$CLUSTER/kubernetes"
exec 9>"$CLUSTER/lock"; flock 9   # two builds would write the same files

# A program appears under its name only when it is whole.
build() { # FOLDER OUTPUT PACKAGE [FLAGS]
  [ -x "$CLUSTER/bin/$2" ] && return
  (cd "$1" && go build -ldflags "-s -w ${4:-}" -o "$CLUSTER/bin/.$2" "$3") && mv "$CLUSTER/bin/.$2" "$CLUSTER/bin/$2"
}
released() { # PACKAGE VERSION: a program that its module builds alone
  local name=${1##*/}
  [ -x "$CLUSTER/bin/$name" ] && return
  GOFLAGS=-buildvcs=false GOBIN="$CLUSTER/whole" go install -ldflags '-s -w' "$1@$2" && mv "$CLUSTER/whole/$name" "$CLUSTER/bin/$name"
}
module_folder() { GOFLAGS= go mod download -json "$1" | sed -n 's/^\t"Dir": "\(.*\)",\?$/\1/p'; }

# Kubernetes' own go.mod has its parts in folders that its module does not hold; each is a module of the same release.
if [ ! -e "$CLUSTER/kubernetes/go.mod" ]; then
  source=$(module_folder "k8s.io/kubernetes@v$KUBERNETES")
  { printf 'module cluster\n\ngo 1.26\n\nrequire k8s.io/kubernetes v%s\n' "$KUBERNETES"
    sed -n "s#^\t\?\(replace \)\?\(k8s.io/[a-z-]*\) => ./staging/.*#replace \2 => \2 v0.${KUBERNETES#1.}#p" "$source/go.mod"
    [ -e "$source/go.work" ] && sed -n "s#^\t*./staging/src/\(k8s.io/[a-z-]*\)\$#replace \1 => \1 v0.${KUBERNETES#1.}#p" "$source/go.work"; true
  } | awk '!/^replace/ || !seen[$2]++' >"$CLUSTER/kubernetes/.go.mod"
  mv "$CLUSTER/kubernetes/.go.mod" "$CLUSTER/kubernetes/go.mod"
fi
V=k8s.io/component-base/version
VERSION="-X $V.gitVersion=v$KUBERNETES -X $V.gitMajor=1 -X $V.gitMinor=${KUBERNETES:2:2}"
kubernetes() { local name; for name; do build "$CLUSTER/kubernetes" "$name" "k8s.io/kubernetes/cmd/$name" "$VERSION"; done; }

kubernetes kube-apiserver kubectl
[ "${1:-}" = nodes ] || exit 0
kubernetes kube-controller-manager kube-scheduler kubelet kube-proxy
for name in containerd ctr containerd-shim-runc-v2; do released github.com/containerd/containerd/v2/cmd/$name $CONTAINERD; done
if [ ! -e "$CLUSTER/coredns/go.mod" ]; then # with the few plug-ins that a cluster needs: all of them would bring in each cloud's client
  source=$(module_folder github.com/coredns/coredns@$COREDNS); mkdir -p "$CLUSTER/coredns"
  { printf 'package main\n\nimport (\n\t"github.com/coredns/coredns/coremain"\n'
    printf '\t_ "github.com/coredns/coredns/plugin/%s"\n' cache errors health kubernetes ready
    printf ')\n\nfunc main() { coremain.Run() }\n'; } >"$CLUSTER/coredns/main.go"
  sed "s#^module .*#module cluster\n\nrequire github.com/coredns/coredns $COREDNS#" "$source/go.mod" >"$CLUSTER/coredns/.go.mod"
  cp "$source/go.sum" "$CLUSTER/coredns/go.sum"; mv "$CLUSTER/coredns/.go.mod" "$CLUSTER/coredns/go.mod"
fi
build "$CLUSTER/coredns" coredns .
if [ ! -d "$CLUSTER/keda" ]; then # where it can be built and its manifests rendered
  rm -rf "$CLUSTER/.keda"; cp -r "$(module_folder github.com/kedacore/keda/v2@$KEDA)" "$CLUSTER/.keda"
  chmod -R u+w "$CLUSTER/.keda"; mv "$CLUSTER/.keda" "$CLUSTER/keda"
fi
build "$CLUSTER/keda" keda-operator ./cmd/operator
build "$CLUSTER/keda" keda-adapter ./cmd/adapter

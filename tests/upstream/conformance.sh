#!/usr/bin/env bash
# Kubernetes' own end-to-end tests against a cluster that is up with nodes that run containers.
#
#   conformance.sh KUBERNETES WORK CORACLE KUBECONFIG [FOCUS]
#
# KUBERNETES: a source tree that go can build (with its staging folders, or with the modules of its version in go.mod).
# WORK: a folder for what is built of it once, kept between runs. CORACLE: the program; the cluster is the one that
# `coracle up` makes without --name, or CORACLE_CLUSTER. FOCUS: a regular expression of names, e.g. '\[sig-apps\]';
# every [Conformance] test that may run beside others without. SKIP: those to leave out. Reports are in WORK/reports.
set -o errexit -o nounset -o pipefail

if [ $# -lt 4 ]; then
  sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0" >&2
  exit 2
fi
mkdir -p "$2"
here=$(dirname "$(realpath "$0")") kubernetes=$(realpath "$1") work=$(realpath "$2")
coracle=$(realpath "$3") kubeconfig=$(realpath "$4")
focus=${5:-'\[Conformance\]'} skip=${SKIP:-'\[Serial\]|\[Disruptive\]|\[Slow\]'}

cd "$kubernetes"
export CGO_ENABLED=0
for name in agnhost nonewprivs regression-issue-74839; do
  [ -x "$work/$name" ] || go build -o "$work/$name" "./test/images/$name"
done
[ -x "$work/sample-apiserver" ] || go build -o "$work/sample-apiserver" k8s.io/sample-apiserver
[ -x "$work/kubectl" ] || go build -o "$work/kubectl" ./cmd/kubectl
[ -x "$work/e2e.test" ] || go test -c -vet=off -o "$work/e2e.test" ./test/e2e
[ -s "$work/images.tar" ] || "$here/images.py" "$kubernetes" "$work" "$work/images.tar"
"$coracle" image load "$work/images.tar"

nodes=$("$work/kubectl" --kubeconfig="$kubeconfig" get nodes --output=name | wc -l)
report=$work/reports/$(date +%Y%m%dT%H%M%S)-$$
mkdir -p "$report"
"$work/e2e.test" --kubeconfig="$kubeconfig" --provider=skeleton --kubectl-path="$work/kubectl" --num-nodes="$nodes" \
  --ginkgo.focus="$focus" --ginkgo.skip="$skip" --ginkgo.no-color --ginkgo.timeout=4h --report-dir="$report"

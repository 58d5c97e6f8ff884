#!/usr/bin/env bash
# Kubernetes' own tests of kubectl (test/cmd of its source) against `coracle apiserver` and `coracle controllers`, on an etcd.
#
#   kubectl.sh KUBERNETES BIN CORACLE [SUITE…]
#
# KUBERNETES: a source tree of the version that BIN's kubectl (and kubectl-convert) has. CORACLE: the program. SUITE: `crd`,
# `kubectl_events` …, as the tree's functions run_SUITE_tests are called; all without. Needs etcd, curl, jq and openssl.
# Ends with 0 and "TESTS PASSED", or names the suites that failed. Its folder is kept: logs, and the suites' reports.
set -o errexit -o nounset -o pipefail

if [ $# -lt 3 ]; then
  sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0" >&2
  exit 2
fi
kubernetes=$(realpath "$1") bin=$(realpath "$2") coracle=$(realpath "$3")
shift 3
export WHAT="$*"
own=$(mktemp -d)
echo "logs: $own" >&2

cd "$kubernetes"
# shellcheck disable=SC1091
{
  source hack/lib/init.sh
  source hack/lib/test.sh
  # Its certificate is looked for there.
  export TMPDIR=$own THIS_PLATFORM_BIN=$bin KUBE_JUNIT_REPORT_DIR=$own/reports
  export ETCD_PORT=${ETCD_PORT:-23790} SECURE_API_PORT=${SECURE_API_PORT:-16443}
  # Our version is not kubectl's to the last figure.
  export ALLOW_SKEW=y
  source test/cmd/legacy-script.sh
}

# Nothing is built.
make() { :; }

kube::etcd::start() {
  etcd --data-dir "$own/etcd" --listen-client-urls "http://127.0.0.1:$ETCD_PORT" --listen-peer-urls http://127.0.0.1:0 \
    --advertise-client-urls "http://127.0.0.1:$ETCD_PORT" >"$own/etcd.log" 2>&1 &
  ETCD_PID=$!
}

kube::etcd::cleanup() {
  kill "$ETCD_PID" 2>/dev/null || true
}

apiserver() {
  openssl genrsa -out "$own/accounts.key" 2048 2>/dev/null
  # The flags of test-cmd.sh.
  "$coracle" apiserver --bind-address=127.0.0.1 --secure-port="$SECURE_API_PORT" --authorization-mode=RBAC,AlwaysAllow \
    --feature-gates= --enable-admission-plugins=LimitRanger,ResourceQuota \
    --disable-admission-plugins=ServiceAccount,DefaultStorageClass,DefaultTolerationSeconds,MutatingAdmissionWebhook,ValidatingAdmissionWebhook,StorageObjectInUseProtection \
    --etcd-servers="http://127.0.0.1:$ETCD_PORT" --runtime-config=api/v1 --storage-media-type= --cert-dir="$own" \
    --service-account-key-file="$own/accounts.key" --service-account-signing-key-file="$own/accounts.key" \
    --service-account-lookup=true --service-account-issuer=https://kubernetes.default.svc \
    --service-cluster-ip-range=10.0.0.0/24 --client-ca-file=hack/testdata/ca/ca.crt \
    --token-auth-file=hack/testdata/auth-tokens.csv >"$own/apiserver.log" 2>&1 &
  export APISERVER_PID=$!
  kube::util::wait_for_url_with_bearer_token "https://127.0.0.1:$SECURE_API_PORT/healthz" admin-token apiserver
}

controllers() {
  kubectl config view --raw --flatten >"$own/controllers.kubeconfig"
  "$coracle" controllers --kubeconfig="$own/controllers.kubeconfig" --secure-port=0 \
    --cluster-signing-cert-file=hack/testdata/ca/ca.crt --cluster-signing-key-file=hack/testdata/ca/ca.key \
    >"$own/controllers.log" 2>&1 &
  export CTLRMGR_PID=$!
}

setup
apiserver
controllers
# No kubelet makes one. Without an annotation it would have no field managers.
kubectl create -f - <<'NODE'
{"kind": "Node", "apiVersion": "v1", "metadata": {"name": "127.0.0.1", "annotations": {"save-managers": "true"}},
  "status": {"capacity": {"memory": "1Gi"}}}
NODE
export SUPPORTED_RESOURCES=("*")
runTests
echo "TESTS PASSED"

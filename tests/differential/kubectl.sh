#!/bin/bash
# kubectl.sh OURS PEER: runs each line of standard input, a command with kubectl in it, against both kubeconfigs, and prints
# where what they say differs once what each server draws (uids, times, versions, addresses) is taken out.
set -u
ours=$1 peer=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

plain() {
    sed -E -e 's/[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}/UID/g' \
        -e 's/[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+Z/TIME/g' \
        -e 's/(Mon|Tue|Wed|Thu|Fri|Sat|Sun), [0-9]{2} \w{3} [0-9]{4} [0-9:]{8} [+-][0-9]{4}/DATE/g' \
        -e 's/(resource[vV]ersion"?|Resource Version): *"?[0-9]+"?/\1: RV/g' \
        -e 's/\b([0-9]+[smhdy])+\b/AGE/g' \
        -e 's/\b10\.96\.[0-9]+\.[0-9]+\b/IP/g' -e 's/127\.0\.0\.1:[0-9]+/SERVER/g' \
        -e 's/kube-api-access-\w{5}/kube-api-access-X/g' -e 's/eyJ[A-Za-z0-9_.-]+/TOKEN/g' -e 's/[ \t]+/ /g'
}

# said NAME KUBECONFIG COMMAND
said() {
    local words="kubectl --kubeconfig=$2 --cache-dir=$work/cache-$1 "
    { timeout 60 bash -c "${3//kubectl /$words}" 2>&1; echo "ended with $?"; } | plain >"$work/$1"
}

same=0 differ=0
while IFS= read -r command; do
    [[ -z $command || $command == \#* ]] && continue
    said peer "$peer" "$command" </dev/null
    said ours "$ours" "$command" </dev/null
    if diff -U0 "$work/peer" "$work/ours" >"$work/diff"; then
        same=$((same + 1))
    else
        differ=$((differ + 1))
        echo "## $command"
        tail -n +3 "$work/diff" | head -n 40
    fi
done
echo "$same the same, $differ differ"
[[ $differ == 0 ]]

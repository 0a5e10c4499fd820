#!/usr/bin/env bash
# What Prometheus' own tool says of conf/prometheus, of the dashboard's expressions, and of the page of a running server.
# Usage: tests/metrics/promtool.sh ROADSTEAD, the program to run; without Prometheus' promtool there is nothing to do.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

roadstead=${1:?usage: tests/metrics/promtool.sh ROADSTEAD}
if ! command -v promtool >/dev/null; then
  echo "promtool is not installed: the metrics go unchecked"
  [ -z "${ROADSTEAD_REQUIRE:-}" ] || exit 1
  exit 0
fi

folder=$(mktemp -d)
server=""
finish() {
  local status=$?
  if [ -n "$server" ] && kill -0 "$server" 2>/dev/null; then
    kill "$server"
    wait "$server" || true
  fi
  [ "$status" -eq 0 ] || cat "$folder/log" 2>/dev/null || true
  rm -rf "$folder"
}
trap finish EXIT

echo "--- configuration, rules and alerts"
promtool check config conf/prometheus/prometheus.yaml
promtool test rules tests/metrics/alerts.yaml

echo "--- the dashboard's expressions"
# As rules, for these are what promtool can read; the variables are what Grafana would put there.
python3 - >"$folder/dashboard.yaml" <<'PYTHON'
import json

def expressions(value):
    if isinstance(value, dict):
        if "expr" in value:
            yield value["expr"]
        for inner in value.values():
            yield from expressions(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from expressions(inner)

with open("conf/grafana/roadstead.json") as file:
    found = list(expressions(json.load(file)))
rules = []
for number, text in enumerate(found):
    for variable, stands_for in ("$__rate_interval", "5m"), ("$job", ".*"), ("$instance", ".*"):
        text = text.replace(variable, stands_for)
    rules.append({"record": f"dashboard:expression:{number}", "expr": text})
# YAML contains JSON.
print(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
PYTHON
promtool check rules "$folder/dashboard.yaml"

echo "--- the page of a running server"
# Two free ports, for the moment at least.
read -r port admin < <(python3 -c '
import socket
sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
print(*[s.getsockname()[1] for s in sockets])')
# Nothing is pulled: the registry need not be there.
"$roadstead" serve --listen "127.0.0.1:$port" --admin "127.0.0.1:$admin" --upstream "local=http://127.0.0.1:9" \
  --data "$folder/data" >"$folder/log" 2>&1 &
server=$!
for _ in $(seq 100); do
  curl -sf "http://127.0.0.1:$admin/readyz" >/dev/null && break
  kill -0 "$server" || { echo "the server ended"; exit 1; }
  sleep 0.1
done
# Answers of every kind, so that there are samples to look at.
for path in "" v2/ v2/library/alpine/manifests/latest v2/_catalog; do
  for _ in 1 2; do curl -s "http://127.0.0.1:$port/$path" >/dev/null; done
done
curl -sf "http://127.0.0.1:$admin/metrics" >"$folder/page"
promtool check metrics <"$folder/page"
echo "$(grep -c '^# TYPE' "$folder/page") families, $(grep -vc '^#' "$folder/page") samples"

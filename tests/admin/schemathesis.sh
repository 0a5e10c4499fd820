#!/usr/bin/env bash
# The admin API against its own description: schemathesis makes requests of /api/v1/openapi.json, right and wrong ones,
# and compares what is answered by a server that has something to list: a simulated Docker Hub's image, pulled and pinned.
# Usage: schemathesis.sh [ROADSTEAD [HUB]] (default: the debug builds); ROADSTEAD_EXAMPLES says how many requests there are
# for each operation (default 40). Without schemathesis, `make api` installs it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

target=${CARGO_TARGET_DIR:-$PWD/target}
roadstead=${1:-$target/debug/roadstead}
hub=${2:-$target/debug/hub}
image=library/alpine
schemathesis=${SCHEMATHESIS:-$(echo "$target"/tools/schemathesis-*/bin/schemathesis)}
examples=${ROADSTEAD_EXAMPLES:-40}

if ! [ -x "$schemathesis" ]; then
  echo "schemathesis is not installed: the API goes unchecked"
  [ -z "${ROADSTEAD_REQUIRE:-}" ] || exit 1
  exit 0
fi

folder=$(mktemp -d)
server="" simulator=""
finish() {
  status=$?
  for pid in $server $simulator; do
    kill "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
  done
  if [ "$status" -ne 0 ] && [ -e "$folder/log" ]; then grep -v access "$folder/log" | tail -n 40; fi
  rm -rf "$folder"
}
trap finish EXIT

# A port that nobody has at this moment.
free() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

"$hub" --no-token --no-redirect --image "$image:3.20,layers=2,size=64KiB" >"$folder/hub" 2>&1 &
simulator=$!
# The image is told last.
for _ in $(seq 200); do
  grep -q '^image ' "$folder/hub" && break
  kill -0 "$simulator" || { cat "$folder/hub"; exit 1; }
  sleep 0.1
done

admin=127.0.0.1:$(free) listen=127.0.0.1:$(free)
RUST_LOG=warn,roadstead=info "$roadstead" serve --upstream "docker.io=$(awk '$1 == "registry" { print $2 }' "$folder/hub")" \
  --data "$folder/data" --listen "$listen" --admin "$admin" >"$folder/log" 2>&1 &
server=$!

for _ in $(seq 200); do
  curl -fs "http://$admin/readyz" >/dev/null && break
  kill -0 "$server" || { echo "roadstead did not start"; exit 1; }
  sleep 0.1
done

"$roadstead" warm "$image:3.20" --platform all --admin "$admin"
curl -fs -o /dev/null "http://$listen/v2/$image/manifests/3.20" -H 'Accept: application/vnd.oci.image.index.v1+json'
"$roadstead" cache pin "$image:3.20" --admin "$admin"

# An empty list can't contradict its description.
lists=(images blobs pins repositories "tags?repository=$image" warm)
for list in "${lists[@]}"; do
  curl -fs "http://$admin/api/v1/$list" | python3 -c '
import json, sys
sys.exit(not any(value for value in json.load(sys.stdin).values() if isinstance(value, list)))' ||
    { echo "/api/v1/$list lists nothing"; exit 1; }
done

# Whose tags are asked for, chance would not find out.
cat >"$folder/schemathesis.toml" <<TOML
[[operations]]
include-path = "/api/v1/tags"
parameters = { repository = "$image" }
TOML

# The stream never ends, so that no answer to it is ever whole. That right requests are taken (positive_data_acceptance) can't
# be checked: which names are right, the configured upstreams say.
cd "$folder"
"$schemathesis" run "http://$admin/api/v1/openapi.json" --exclude-path /api/v1/stream \
  --checks not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,response_schema_conformance,missing_required_header,unsupported_method,allow_header_conformance,negative_data_rejection \
  --max-examples "$examples" --max-response-time 2 --request-timeout 20 --continue-on-failure --no-color --seed 1

kill -0 "$server" || { echo "roadstead ended"; exit 1; }
if grep -i panicked "$folder/log"; then exit 1; fi

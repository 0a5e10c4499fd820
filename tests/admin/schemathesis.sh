#!/usr/bin/env bash
# The admin API against its own description: schemathesis makes requests of /api/v1/openapi.json, right and wrong ones,
# and compares what is answered. Usage: schemathesis.sh [ROADSTEAD] (default: the debug build); ROADSTEAD_EXAMPLES says how
# many requests there are for each operation (default 40). Without schemathesis, `make api` installs it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

target=${CARGO_TARGET_DIR:-$PWD/target}
roadstead=${1:-$target/debug/roadstead}
schemathesis=${SCHEMATHESIS:-$(echo "$target"/tools/schemathesis-*/bin/schemathesis)}
examples=${ROADSTEAD_EXAMPLES:-40}

if ! [ -x "$schemathesis" ]; then
  echo "schemathesis is not installed: the API goes unchecked"
  [ -z "${ROADSTEAD_REQUIRE:-}" ] || exit 1
  exit 0
fi

folder=$(mktemp -d)
server=""
finish() {
  status=$?
  [ -z "$server" ] || { kill "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true; }
  if [ "$status" -ne 0 ] && [ -e "$folder/log" ]; then grep -v access "$folder/log" | tail -n 40; fi
  rm -rf "$folder"
}
trap finish EXIT

# A port that nobody has at this moment.
free() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

admin=127.0.0.1:$(free)
# Nothing answers at the upstream, and nothing is to be asked for: the API is what is looked at.
RUST_LOG=warn,roadstead=info "$roadstead" serve --upstream "docker.io=http://127.0.0.1:9" --data "$folder/data" \
  --listen "127.0.0.1:$(free)" --admin "$admin" >"$folder/log" 2>&1 &
server=$!

for _ in $(seq 200); do
  curl -fs "http://$admin/readyz" >/dev/null && break
  kill -0 "$server" || { echo "roadstead did not start"; exit 1; }
  sleep 0.1
done

# The stream never ends, so that no answer to it is ever whole. That right requests are taken (positive_data_acceptance) can't
# be checked: which names are right, the configured upstreams say.
cd "$folder"
"$schemathesis" run "http://$admin/api/v1/openapi.json" --exclude-path /api/v1/stream \
  --checks not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,response_schema_conformance,missing_required_header,unsupported_method,allow_header_conformance,negative_data_rejection \
  --max-examples "$examples" --max-response-time 2 --request-timeout 20 --continue-on-failure --no-color --seed 1

kill -0 "$server" || { echo "roadstead ended"; exit 1; }
if grep -i panicked "$folder/log"; then exit 1; fi

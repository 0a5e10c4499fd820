#!/usr/bin/env bash
# transparent.sh: real container clients that know of no mirror pull from two registries, through Roadstead as their HTTPS
# proxy (CONNECT) and, as root, because the registries' names lead to it (SNI).
#
# Two docker-registries stand in for docker.io and ghcr.io; the authority is made by `roadstead client ca`, and the clients
# trust nobody else. A digest must be the origin's, each pull must be counted by Roadstead for the right upstream, and a
# registry that is not configured must not be reached.
#
# Variables: ROADSTEAD_BIN; CLIENTS="skopeo podman docker"; KEEP=1 keeps logs.
set -euo pipefail
# shellcheck source=tests/clients/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

read -ra clients <<<"${CLIENTS:-skopeo podman docker}"
need python3 curl jq skopeo docker-registry
bin=$(roadstead_bin)
read -r hub_port ghcr_port connect_port admin_port plain_port < <(free_ports 5)
export DOCKER_CONFIG=$work/docker-cli HOME=$work/home XDG_RUNTIME_DIR=$work/runtime
export CONTAINERS_REGISTRIES_CONF=$work/registries.conf
mkdir -p "$HOME" "$XDG_RUNTIME_DIR" "$DOCKER_CONFIG"
: >"$CONTAINERS_REGISTRIES_CONF"
echo '{}' >"$DOCKER_CONFIG/config.json"
sni=127.0.0.1:443

# --- the origins, the authority and the proxy ------------------------------------------------------------------------

# start_origin NAME PORT
start_origin() {
  cat >"$work/$1.yml" <<YAML
version: 0.1
log: {level: warn}
storage: {filesystem: {rootdirectory: $work/$1}}
http: {addr: "127.0.0.1:$2", secret: tests, relativeurls: true}
YAML
  start "$1" docker-registry serve "$work/$1.yml"
  wait_for "$1" 20 answers "http://127.0.0.1:$2/v2/" || die "$1 did not start: $(tail -n 3 "$work/$1.log")"
}

# push SOURCE PORT REPOSITORY
push() {
  limited 60 skopeo --insecure-policy copy --all --format v2s2 --dest-tls-verify=false \
    "oci:$work/images/$1:latest" "docker://127.0.0.1:$2/$3:1" || die "pushing $3: $(tail -n 1 "$work/out")"
}

start_proxy() {
  "$bin" client ca --directory "$work/ca" --host ghcr.io >"$work/client-ca.log" || die "no authority was made"
  local ca="{ certificate: $work/ca/roadstead-ca.crt, key: $work/ca/roadstead-ca.key }"
  {
    echo "listen:"
    echo "  - { address: \"127.0.0.1:$plain_port\" }"
    echo "  - { address: \"127.0.0.1:$connect_port\", transparent: { mode: connect, ca: $ca } }"
    [ -z "$sni" ] || echo "  - { address: \"$sni\", transparent: { mode: sni, ca: $ca } }"
    echo "admin: { address: \"127.0.0.1:$admin_port\" }"
    echo "upstreams:"
    echo "  - { name: docker.io, url: \"http://127.0.0.1:$hub_port\", budget: { probe: none } }"
    echo "  - { name: ghcr.io, url: \"http://127.0.0.1:$ghcr_port\" }"
    echo "store: { directory: $work/data, disk: 1GiB }"
  } >"$work/roadstead.yaml"
  start roadstead "$bin" serve --config "$work/roadstead.yaml"
  wait_for roadstead 30 answers "http://127.0.0.1:$admin_port/readyz" || {
    tail -n 20 "$work/roadstead.log" >&2
    die "Roadstead did not become ready"
  }
}

# counted UPSTREAM: answers that Roadstead has given for it.
counted() {
  curl -sf -m 5 "http://127.0.0.1:$admin_port/metrics" |
    awk -v of="upstream=\"$1\"" '/^roadstead_requests_total/ && index($0, of) { sum += $NF } END { printf "%d\n", sum }'
}

# --- the clients -----------------------------------------------------------------------------------------------------

# by_connect COMMAND...: with Roadstead as its proxy.
by_connect() { HTTPS_PROXY=http://127.0.0.1:$connect_port NO_PROXY="" SSL_CERT_FILE=$work/ca/roadstead-ca.crt "$@"; }

# by_sni COMMAND...: where the registries' names are Roadstead's address, in a mount namespace of its own.
by_sni() {
  # bash, for other shells don't pass exported functions on.
  # shellcheck disable=SC2016
  SSL_CERT_FILE=$work/ca/roadstead-ca.crt unshare -m bash -c 'mount --bind "$0" /etc/hosts && exec "$@"' "$work/hosts" "$@"
}

skopeo_pull() { skopeo --insecure-policy copy "docker://$1" "dir:$work/skopeo.$RANDOM"; }
podman_pull() {
  podman --root "$work/podman" --runroot "$work/podman-run" --storage-driver vfs pull --quiet "$1"
}
docker_pull() { docker -H "unix://$work/docker.sock" pull --quiet "$1"; }

start_docker() {
  by_connect start dockerd dockerd --storage-driver=vfs --iptables=false --ip6tables=false --bridge=none \
    --data-root "$work/docker" --exec-root "$work/docker-exec" --pidfile "$work/docker.pid" -H "unix://$work/docker.sock"
  wait_for dockerd 30 docker -H "unix://$work/docker.sock" version
}

# prepare CLIENT: leaves it ready to pull, or says why it is not.
prepare() {
  local programs=("$1")
  [ "$1" != docker ] || programs=(dockerd docker)
  if ! installed "${programs[@]}"; then
    skip "$1" "not installed"
  elif [ "$1" = docker ] && ! start_docker; then
    unready docker "$work/dockerd.log"
  else
    return 0
  fi
  return 1
}

# pulls WAY CLIENT IMAGE UPSTREAM
pulls() {
  local before after what="$2 pulls $3 by $1"
  before=$(counted "$4")
  # Functions can't be handed to timeout.
  export -f "$2_pull"
  export work
  if ! limited 90 "$self" "by_$1" bash -c "$2_pull \"\$1\"" _ "$3"; then
    fail "$what" "$(tail -n 1 "$work/out" | cut -c1-200)" "$work/roadstead.log"
    return
  fi
  after=$(counted "$4")
  if [ "$after" -gt "$before" ]; then ok "$what"; else fail "$what" "Roadstead answered nothing for $4"; fi
}

# `timeout` runs programs, so this one calls itself for the ways.
self=$work/way
{
  echo '#!/usr/bin/env bash'
  echo "work=$work connect_port=$connect_port"
  declare -f by_connect by_sni
  # shellcheck disable=SC2016
  echo '"$@"'
} >"$self"
chmod +x "$self"

start_origin hub "$hub_port"
start_origin ghcr "$ghcr_port"
python3 "$repo/tests/clients/images.py" "$work/images"
push library/alpine "$hub_port" library/alpine
push clients/skopeo "$ghcr_port" org/app
{ cat /etc/hosts; echo "127.0.0.1 registry-1.docker.io index.docker.io docker.io ghcr.io"; } >"$work/hosts"
if [ "$(id -u)" -ne 0 ] || ! unshare -m true 2>/dev/null; then
  inapplicable "by SNI" "it needs root and mount namespaces"
  sni=""
elif (exec 3<>"/dev/tcp/127.0.0.1/443") 2>/dev/null; then
  inapplicable "by SNI" "another program listens at $sni"
  sni=""
fi
start_proxy

digest=$(curl -sfI -m 10 "http://127.0.0.1:$ghcr_port/v2/org/app/manifests/1" \
  -H 'Accept: application/vnd.docker.distribution.manifest.v2+json' |
  tr -d '\r' | awk 'tolower($1) == "docker-content-digest:" { print $2 }')
for client in "${clients[@]}"; do
  prepare "$client" || continue
  ways=(connect)
  if [ -n "$sni" ] && [ "$client" != docker ]; then ways+=(sni); fi
  for way in "${ways[@]}"; do
    pulls "$way" "$client" docker.io/library/alpine:1 docker.io
    pulls "$way" "$client" ghcr.io/org/app:1 ghcr.io
    pulls "$way" "$client" "ghcr.io/org/app@$digest" ghcr.io
  done
done
if limited 30 "$self" by_connect curl -sS --cacert "$work/ca/roadstead-ca.crt" https://quay.io/v2/; then
  fail "quay.io is refused" "it was reached"
elif grep -q 403 "$work/out"; then
  ok "quay.io is refused"
else
  fail "quay.io is refused" "$(tail -n 1 "$work/out")"
fi
summary

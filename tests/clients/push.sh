#!/usr/bin/env bash
# push.sh: real container clients push through Roadstead (writes: forward) to a docker-registry that wants a password.
#
# Each client logs in through Roadstead and pushes an image. The digest is then the same at the origin and through
# Roadstead, Roadstead's own count of PUTs has risen, and a push with a wrong password was refused. skopeo also pushes
# under the registry's name in the path, mounts from one repository into another, and deletes. The origin names itself in
# absolute URLs (Location), which clients must never follow past us: it is not told of our port.
#
# Variables: ROADSTEAD_BIN; CLIENTS="skopeo podman docker"; KEEP=1 keeps logs.
set -euo pipefail
# shellcheck source=tests/clients/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

read -ra clients <<<"${CLIENTS:-skopeo podman docker}"
need python3 curl jq skopeo docker-registry
read -r origin_port mirror_port admin_port < <(free_ports 3)
origin=127.0.0.1:$origin_port
mirror=127.0.0.1:$mirror_port
login=alice:correct-horse
export DOCKER_CONFIG=$work/docker-cli HOME=$work/home REGISTRY_AUTH_FILE=$work/auth.json XDG_RUNTIME_DIR=$work/runtime
mkdir -p "$HOME" "$XDG_RUNTIME_DIR" "$DOCKER_CONFIG"
echo '{}' >"$REGISTRY_AUTH_FILE"

# --- the origin and Roadstead before it ------------------------------------------------------------------------------

start_origin() {
  # shellcheck disable=SC2016 # bcrypt of the password
  echo 'alice:$2b$04$6dkauaw8f0ESWiz3.81TEOjj9vuS6wj0/9DGdqiOLYAOMHuBhes6m' >"$work/users"
  cat >"$work/origin.yml" <<YAML
version: 0.1
log: {level: info, accesslog: {disabled: false}}
storage: {filesystem: {rootdirectory: $work/origin}, delete: {enabled: true}}
http: {addr: "$origin", secret: tests}
auth: {htpasswd: {realm: origin, path: $work/users}}
YAML
  # It would take the variable for a part of its own configuration.
  start origin env -u REGISTRY_AUTH_FILE docker-registry serve "$work/origin.yml"
  wait_for origin 20 curl -sf -u "$login" "http://$origin/v2/" || die "the origin did not start"
}

start_forwarding() {
  cat >"$work/roadstead.yaml" <<YAML
listen: [{ address: "$mirror" }]
admin: { address: "127.0.0.1:$admin_port" }
upstreams:
  - name: origin.example
    url: http://$origin
    writes: forward
    credentials: { accounts: [{ username: alice, password: correct-horse }] }
    tags: { fresh_for: 1h }
store: { directory: $work/mirror, disk: 1GiB }
YAML
  start mirror "$(roadstead_bin)" serve --config "$work/roadstead.yaml"
  wait_for mirror 30 answers "http://127.0.0.1:$admin_port/readyz" || die "Roadstead: $(tail -n 5 "$work/mirror.log")"
}

puts() {
  curl -sf -m 5 "http://127.0.0.1:$admin_port/metrics" |
    awk '/^roadstead_requests_total.*kind="manifest".*method="PUT".*status="201"/ { n += $NF } END { print n + 0 }'
}

# digest_at HOST REPOSITORY: what its tag `latest` names there.
digest_at() {
  curl -sf -m 10 -u "$login" -o /dev/null -D - "http://$1/v2/$2/manifests/latest" \
    -H 'Accept: application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json' \
    -H 'Accept: application/vnd.docker.distribution.manifest.v2+json' | tr -d '\r' |
    awk 'tolower($1) == "docker-content-digest:" { print $2 }'
}

# --- the clients -----------------------------------------------------------------------------------------------------

# start_CLIENT leaves an installed one running, fetch_CLIENT with an image to push, pulled through Roadstead.

skopeo() { limited 60 skopeo --insecure-policy "$@"; }
push_skopeo() {
  skopeo copy --all --dest-tls-verify=false --dest-creds "$2" "oci:$work/images/clients/skopeo:latest" "docker://$mirror/$1"
}
start_skopeo() { :; }
fetch_skopeo() { :; }

podman() {
  limited 60 podman --storage-driver vfs --root "$work/podman/root" --runroot "$work/podman/run" \
    --tmpdir "$work/podman/tmp" "$@"
}
start_podman() { podman info; }
fetch_podman() { podman pull --quiet --tls-verify=false "docker://$mirror/clients/seed:latest"; }
push_podman() {
  podman images --quiet || return
  podman push --tls-verify=false --creds "$2" "$(head -n 1 "$work/out")" "docker://$mirror/$1"
}

docker_socket=unix://$work/docker.sock
docker() { limited 60 docker -H "$docker_socket" "$@"; }
start_docker() {
  start dockerd dockerd --storage-driver=vfs --iptables=false --ip6tables=false --bridge=none \
    --insecure-registry=127.0.0.0/8 --data-root "$work/docker/data" --exec-root "$work/docker/exec" \
    --pidfile "$work/docker/pid" -H "$docker_socket"
  wait_for dockerd 60 docker version
}
fetch_docker() {
  docker login -u "${login%%:*}" -p "${login#*:}" "$mirror" && docker pull "$mirror/clients/seed:latest"
}
push_docker() {
  docker login -u "${2%%:*}" -p "${2#*:}" "$mirror" || return
  docker tag "$mirror/clients/seed:latest" "$mirror/$1" && docker push "$mirror/$1"
}
before_cleanup() {
  local pid_file
  stop dockerd
  while read -r pid_file; do kill -9 "$(cat "$pid_file")" 2>/dev/null; done < <(
    find "$work/docker/exec/containerd" "$work/podman/tmp" "$XDG_RUNTIME_DIR" \
      \( -name containerd.pid -o -name pause.pid \) -size +0 2>/dev/null
  )
}

# push NAME CLIENT REPOSITORY [AT]: AT is the repository at the origin, if it is called otherwise there.
push() {
  local name=$1 client=$2 repository=$3 at=${4:-$3} before here there
  before=$(puts)
  if ! "push_$client" "$repository:latest" "$login"; then
    fail "$name" "the push failed" "$work/out"
    return
  fi
  there=$(digest_at "$origin" "$at") here=$(digest_at "$mirror" "$repository")
  if [ -z "$there" ] || [ "$there" != "$here" ]; then
    fail "$name" "the origin has '$there', Roadstead '$here'"
  elif [ "$(puts)" -le "$before" ]; then
    fail "$name" "it went round Roadstead"
  else
    ok "$name"
  fi
}

refused() {
  local name=$1 client=$2
  if "push_$client" "clients/stranger:latest" alice:wrong; then
    fail "$name" "it was let in"
  elif ! grep -qiE 'unauthorized|authentication' "$work/out"; then
    fail "$name" "it failed for another reason" "$work/out"
  elif [ -n "$(digest_at "$origin" clients/stranger || true)" ]; then
    fail "$name" "the origin has it all the same"
  else
    ok "$name"
  fi
}

mount_and_delete() {
  if skopeo copy --all --src-tls-verify=false --dest-tls-verify=false --dest-creds "$login" \
    "docker://$mirror/clients/skopeo:latest" "docker://$mirror/clients/mounted:latest" &&
    grep -qE '"POST /v2/clients/mounted/blobs/uploads/\?[^ ]*from=[^ ]* HTTP/1.1" 201' "$work/origin.log"; then
    ok "skopeo: mount"
  else
    fail "skopeo: mount" "it failed, or nothing was mounted" "$work/out"
  fi
  if skopeo delete --tls-verify=false --creds "$login" "docker://$mirror/clients/mounted:latest" &&
    [ -z "$(digest_at "$mirror" clients/mounted || true)" ]; then
    ok "skopeo: delete"
  else
    fail "skopeo: delete" "it failed, or the tag is still there" "$work/out"
  fi
}

# What the engines push, straight to the origin.
push_seed() {
  python3 "$repo/tests/clients/images.py" "$work/images"
  skopeo copy --dest-tls-verify=false --dest-creds "$login" "oci:$work/images/clients/podman:latest" \
    "docker://$origin/clients/seed:latest" || die "pushing: $(tail -n 1 "$work/out")"
}

# prepare CLIENT: leaves it ready to push, or says why it is not.
prepare() {
  local programs=("$1") log=$work/out
  if [ "$1" = docker ]; then programs=(dockerd docker) log=$work/dockerd.log; fi
  if ! installed "${programs[@]}"; then
    skip "$1" "not installed"
  elif ! "start_$1"; then
    unready "$1" "$log"
  elif ! "fetch_$1"; then
    fail "$1: login and pull" "it gets nothing to push" "$work/out"
  else
    return 0
  fi
  return 1
}

start_origin
start_forwarding
push_seed
for client in "${clients[@]}"; do
  prepare "$client" || continue
  push "$client: push" "$client" "clients/$client"
  refused "$client: a wrong password is refused" "$client"
  if [ "$client" = skopeo ]; then
    push "skopeo: push by the registry's name" skopeo origin.example/clients/named clients/named
    mount_and_delete
  fi
done
summary

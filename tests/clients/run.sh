#!/usr/bin/env bash
# run.sh: real container clients pull through Roadstead, which stands in front of a docker-registry as docker.io and as
# quay.io. Their settings are those that `roadstead client NAME --apply` writes.
#
# Each client pulls an image of its own by tag and another by digest, cold and warm, one of the second upstream, and one
# image of two platforms that all share; at last the registry is stopped, and all pull the shared one once more. After
# each pull the digests of manifest, configuration and layers are compared with the origin's, Roadstead's own request
# counter must have risen, and the origin must have seen requests if the image was cold and none that carry a body if it
# was warm. At the end, the origin's access log must show each manifest and blob fetched once, for all clients together.
#
# Variables: ROADSTEAD_BIN; CLIENTS="skopeo podman buildah docker containerd"; KEEP=1 keeps logs; MIRROR_KIND=docker-registry
# puts a docker-registry in Roadstead's place (to tell our faults from the clients').
set -euo pipefail
# shellcheck source=tests/clients/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

mirror_kind=${MIRROR_KIND:-roadstead}
read -ra clients <<<"${CLIENTS:-skopeo podman buildah docker containerd}"
need python3 curl jq skopeo docker-registry
roadstead_bin >/dev/null
read -r origin_port mirror_port admin_port < <(free_ports 3)
origin=http://127.0.0.1:$origin_port
mirror=http://127.0.0.1:$mirror_port
settings=$work/root
hosts_dir=$settings/etc/containerd/certs.d
# The clients read our configuration, and nobody's passwords.
export DOCKER_CONFIG=$work/docker-cli HOME=$work/home
export CONTAINERS_REGISTRIES_CONF=$settings/etc/containers/registries.conf.d/roadstead.conf XDG_RUNTIME_DIR=$work/runtime

# --- the origin and what it holds ------------------------------------------------------------------------------------

# registry_config PORT DIRECTORY [PROXY_LINE]
registry_config() {
  cat <<YAML
version: 0.1
log: {level: info, accesslog: {disabled: false}}
storage: {filesystem: {rootdirectory: $2}}
http: {addr: "127.0.0.1:$1", secret: tests, relativeurls: true}
${3:-}
YAML
}

start_origin() {
  registry_config "$origin_port" "$work/origin" >"$work/origin.yml"
  start origin docker-registry serve "$work/origin.yml"
  wait_for origin 20 answers "$origin/v2/" || die "the origin did not start: $(tail -n 3 "$work/origin.log")"
}

# The pinned images travel as Docker's schema 2, the others as OCI, so that both kinds of media types are pulled.
push_images() {
  local repository format
  python3 "$repo/tests/clients/images.py" "$work/images"
  for repository in library/alpine {clients,second}/{skopeo,podman,buildah,docker,containerd} \
    clients/{skopeo,podman,buildah,docker,containerd}-pinned; do
    case $repository in *-pinned) format=v2s2 ;; *) format=oci ;; esac
    limited 60 skopeo --insecure-policy copy --all --format "$format" --dest-tls-verify=false \
      "oci:$work/images/$repository:latest" "docker://127.0.0.1:$origin_port/$repository:latest" ||
      die "pushing $repository: $(tail -n 1 "$work/out")"
    describe "$repository" latest
  done
}

manifest() {
  curl -sf -m 10 "$origin/v2/$1/manifests/$2" -H 'Accept: application/vnd.oci.image.index.v1+json' \
    -H 'Accept: application/vnd.oci.image.manifest.v1+json' \
    -H 'Accept: application/vnd.docker.distribution.manifest.v2+json'
}

sha256() { sha256sum | sed 's/^/sha256:/; s/ .*//'; }

# describe REPOSITORY TAG: writes the origin's truth, one digest a line, under $work/want/REPOSITORY/:
# `digest` what the tag names, `all` every manifest, configuration and layer, `platform` those for linux/amd64 (with the
# index), `diffs` digest, configuration and uncompressed layers as an engine reports them.
describe() {
  local dir=$work/want/$1 digest child
  mkdir -p "$dir"
  digest=$(manifest "$1" "$2" | sha256)
  echo "$digest" | tee "$dir/digest" "$dir/all" "$dir/platform" >"$dir/diffs"
  for child in $(manifest "$1" "$2" | jq -r '.manifests[]?.digest'); do
    echo "$child" >>"$dir/all"
    describe_manifest "$1" "$child" >>"$dir/all"
  done
  child=$(manifest "$1" "$2" | jq -r '[.manifests[]? | select(.platform.architecture == "amd64").digest][0] // empty')
  [ -z "$child" ] || echo "$child" >>"$dir/platform"
  describe_manifest "$1" "${child:-$digest}" | tee -a "$dir/all" >>"$dir/platform"
  describe_config "$1" "${child:-$digest}" >>"$dir/diffs"
}

describe_manifest() { manifest "$1" "$2" | jq -r '.config.digest, .layers[].digest'; }

describe_config() {
  local config
  config=$(manifest "$1" "$2" | jq -r .config.digest)
  echo "$config"
  curl -sf -m 10 "$origin/v2/$1/blobs/$config" | jq -r '.rootfs.diff_ids[]'
}

# --- the mirror and the counters -------------------------------------------------------------------------------------

start_mirror() {
  if [ "$mirror_kind" = docker-registry ]; then
    registry_config "$mirror_port" "$work/mirror" "proxy: {remoteurl: \"$origin\"}" >"$work/mirror.yml"
    start mirror docker-registry serve "$work/mirror.yml"
    wait_for mirror 20 answers "$mirror/v2/" || die "the docker-registry mirror did not start"
  else
    UPSTREAMS="quay.io=$origin" start_roadstead "$mirror_port" "$admin_port" "$origin"
  fi
}

# How many requests the mirror has answered.
mirror_requests() {
  if [ "$mirror_kind" = docker-registry ]; then
    grep -c '"GET /v2/\|"HEAD /v2/' "$work/mirror.log" || true
  else
    curl -sf -m 5 "http://127.0.0.1:$admin_port/metrics" |
      awk '/^roadstead_requests_total[{ ]/ { sum += $NF } END { printf "%d\n", sum }'
  fi
}

# The origin's GETs of manifests and blobs since the mirror came up, as "REPOSITORY manifests|blobs REFERENCE STATUS".
origin_log() {
  tail -n "+$((origin_log_start + 1))" "$work/origin.log" |
    sed -nE 's#.*"GET /v2/([^ "?]+)/(manifests|blobs)/([^ "?/]+)[^ "]* HTTP/[0-9.]+" ([0-9]+) .*#\1 \2 \3 \4#p'
}
origin_gets() { origin_log | wc -l; }

# still COUNTER: its value once it stands still, for a server writes its log line after the client has its answer.
still() { settled 0.1 "$1"; }

# --- one pull and what must be true of it ----------------------------------------------------------------------------

# pull NAME CLIENT REPOSITORY cold|warm|any tag|digest: NAME is what the result is called.
pull() {
  local name=$1 client=$2 repository=$3 state=$4 by=$5 reference problem requests gets
  reference=$(registry_of "$client" "$repository")/$repository
  case $by in
    tag) reference+=:latest ;;
    digest) reference+=@$(cat "$work/want/$repository/digest") ;;
  esac
  requests=$(still mirror_requests) gets=$(still origin_gets)
  rm -f "$work/got"
  "forget_$client" >/dev/null 2>&1 || true
  if ! "pull_$client" "$reference"; then
    fail "$name" "the pull failed" "$work/out"
    return
  fi
  if problem=$(wrong_digests "$client" "$repository") || problem=$(wrong_counters "$state" "$requests" "$gets"); then
    fail "$name" "$problem"
  else
    ok "$name"
  fi
}

# What stands before a repository's name; of registries other than docker.io, dockerd knows no mirror.
registry_of() {
  case $1:$2 in
    docker:second/*) echo "127.0.0.1:$mirror_port/quay.io" ;;
    *:second/*) echo quay.io ;;
    *) echo docker.io ;;
  esac
}

# Succeeds where something is wrong, and says what. $work/got holds what the client says it has.
wrong_digests() {
  local want=$work/want/$2 must stray missing
  case $1 in
    skopeo) must=all ;;
    containerd) must=platform ;;
    *) must=diffs ;; # of a platform's own manifest, podman speaks and docker does not
  esac
  if [ ! -s "$work/got" ]; then echo "the client names nothing that it has"; return 0; fi
  sort -u "$work/got" -o "$work/got"
  missing=$(sort -u "$want/$must" | comm -23 - "$work/got" | paste -sd' ')
  stray=$(sort -u "$want/$must" "$want/all" | comm -13 - "$work/got" | paste -sd' ')
  if [ -n "$missing" ]; then echo "digests of the origin that the client lacks: $missing"; return 0; fi
  if [ -n "$stray" ]; then echo "digests that the origin does not have: $stray"; return 0; fi
  return 1
}

wrong_counters() {
  local state=$1 requests=$2 gets=$3
  if [ "$(still mirror_requests)" -le "$requests" ]; then
    echo "the client got its image, but not through the mirror: no request was counted"
    return 0
  fi
  gets=$(($(still origin_gets) - gets))
  case $state in
    cold) [ "$gets" -eq 0 ] && echo "nothing was fetched from the origin: the image was not cold" ;;
    warm) [ "$gets" -gt 0 ] && echo "the image was warm, and yet the origin was asked for $gets manifests or blobs" ;;
    *) return 1 ;;
  esac
}

# What one client does with the images that are its own.
try() {
  local client=$1
  pull "$client: cold by tag" "$client" "clients/$client" cold tag
  pull "$client: warm by tag" "$client" "clients/$client" warm tag
  pull "$client: warm by digest" "$client" "clients/$client" warm digest
  pull "$client: cold by digest" "$client" "clients/$client-pinned" cold digest
  pull "$client: warm by digest again" "$client" "clients/$client-pinned" warm digest
  if [ "$mirror_kind" = docker-registry ]; then return; fi
  pull "$client: the second upstream, cold by tag" "$client" "second/$client" cold tag
  pull "$client: the second upstream, warm by digest" "$client" "second/$client" warm digest
}

# --- what the clients are told ---------------------------------------------------------------------------------------

# settle CLIENT: what `roadstead client` writes, into what is there; a second run must change nothing.
settle() {
  local command=("$(roadstead_bin)" client "$1" --listen "127.0.0.1:$mirror_port" --upstream "docker.io=$origin"
    --upstream "quay.io=$origin" --apply --root "$settings")
  mkdir -p "$settings"
  limited 20 "${command[@]}" || die "roadstead client $1: $(cat "$work/out")"
  limited 20 "${command[@]}" || die "roadstead client $1, once more: $(cat "$work/out")"
  if grep -q "nothing was changed" "$work/out"; then
    ok "roadstead client $1 --apply: a second run changes nothing"
  else
    fail "roadstead client $1 --apply: a second run changes nothing" "it says otherwise" "$work/out"
  fi
  rm -f "$work/out"
}

# --- skopeo ----------------------------------------------------------------------------------------------------------

prepare_skopeo() { :; }
forget_skopeo() { rm -rf "$work/skopeo"; }

# The dir: transport keeps every byte as it came, so hashing its files says what was really received.
pull_skopeo() {
  limited 60 skopeo --insecure-policy --registries-conf "$CONTAINERS_REGISTRIES_CONF" \
    copy --all --preserve-digests "docker://$1" "dir:$work/skopeo" || return
  find "$work/skopeo" -type f ! -name version -exec sha256sum {} + | sed 's/^/sha256:/; s/ .*//' >"$work/got"
}

# --- podman ----------------------------------------------------------------------------------------------------------

podman() {
  limited 60 podman --storage-driver vfs --root "$work/podman/root" --runroot "$work/podman/run" \
    --tmpdir "$work/podman/tmp" "$@"
}
prepare_podman() { installed podman && podman info; }
forget_podman() { podman rmi --all --force; }

pull_podman() {
  podman pull --quiet "$1" || return
  podman image inspect "${1/:latest@/@}" || return
  engine_digests <"$work/out"
}

# --- buildah ---------------------------------------------------------------------------------------------------------

in_buildah() {
  local program=$1
  shift
  limited 60 "$program" --storage-driver vfs --root "$work/buildah/root" --runroot "$work/buildah/run" "$@"
}
prepare_buildah() { installed buildah podman && in_buildah buildah info; }
forget_buildah() { in_buildah buildah rmi --all --force; }

# What it has stored, podman reads too.
pull_buildah() {
  in_buildah buildah pull --quiet "$1" || return
  in_buildah podman --tmpdir "$work/buildah/tmp" image inspect "${1/:latest@/@}" || return
  engine_digests <"$work/out"
}

# What docker and podman say of an image: the digest it was asked by, its configuration and uncompressed layers.
engine_digests() {
  jq -r '.[0] | (.RepoDigests[] | sub(".*@"; "")), (.Id | "sha256:" + sub("sha256:"; "")), .RootFS.Layers[]' >"$work/got"
}

# --- docker ----------------------------------------------------------------------------------------------------------

docker_socket=unix://$work/docker.sock
docker() { limited 60 docker -H "$docker_socket" "$@"; }

prepare_docker() {
  installed dockerd docker || return
  mkdir -p "$work/docker" "$settings/etc/docker"
  # The classic store, whose image id is the configuration's digest.
  echo '{"features": {"containerd-snapshotter": false}}' >"$settings/etc/docker/daemon.json"
  settle docker
  start dockerd dockerd --config-file "$settings/etc/docker/daemon.json" --storage-driver=vfs --iptables=false \
    --ip6tables=false --bridge=none --data-root "$work/docker/data" \
    --exec-root "$work/docker/exec" --pidfile "$work/docker/pid" -H "$docker_socket"
  wait_for dockerd 60 docker version || engine_error dockerd
}
forget_docker() {
  local ids
  docker image ls --quiet --no-trunc || return
  mapfile -t ids < <(sort -u "$work/out")
  [ ${#ids[@]} -eq 0 ] || docker image rm --force "${ids[@]}"
}

pull_docker() {
  docker pull "$1" || return
  docker image inspect "$1" || return
  engine_digests <"$work/out"
}

engine_error() {
  tail -n 5 "$work/$1.log" >"$work/out"
  stop "$1"
  return 1
}

# --- containerd ------------------------------------------------------------------------------------------------------

ctr() { limited 60 ctr --address "$work/containerd.sock" "$@"; }

prepare_containerd() {
  installed containerd ctr || return
  configure_containerd "$settings/etc/containerd"
  settle containerd
  start containerd containerd --config "$settings/etc/containerd/config.toml"
  wait_for containerd 30 ctr version || engine_error containerd
}

# --sync runs the collector, so that the next pull finds no content of this one.
forget_containerd() {
  local names
  ctr images ls --quiet || return
  mapfile -t names <"$work/out"
  [ ${#names[@]} -eq 0 ] || ctr images rm --sync "${names[@]}"
}

# What the content store holds, hashed: an image's bytes as they came over the wire.
pull_containerd() {
  local digest digests
  ctr images pull --snapshotter native --platform linux/amd64 --hosts-dir "$hosts_dir" "$1" || return
  ctr content ls --quiet || return
  mapfile -t digests <"$work/out"
  for digest in "${digests[@]}"; do
    ctr content get "$digest" || return
    sha256 <"$work/out" >>"$work/got"
  done
}

# A dockerd that had to be killed leaves the containerd it started, and rootless podman a process that holds its
# namespace.
before_cleanup() {
  local pid_file
  stop dockerd
  while read -r pid_file; do kill -9 "$(cat "$pid_file")" 2>/dev/null; done < <(
    find "$work/docker/exec/containerd" "$work/podman/tmp" "$work/buildah/tmp" "$XDG_RUNTIME_DIR" \
      \( -name containerd.pid -o -name pause.pid \) -size +0 2>/dev/null
  )
}

# --- all of them together --------------------------------------------------------------------------------------------

# Each manifest, whether asked for by tag or digest, and each blob is fetched once for all clients together.
check_origin_log() {
  local name="origin: one GET per manifest and blob for all clients together" repository kind reference status worst
  if [ "$mirror_kind" = docker-registry ]; then
    inapplicable "$name" "a docker-registry mirror is not held to it"
    return
  fi
  while read -r repository kind reference status; do
    case $status in 200 | 206) ;; *) continue ;; esac
    [ "$reference" = latest ] && reference=$(cat "$work/want/$repository/digest")
    echo "$repository $kind $reference"
  done < <(origin_log) | sort | uniq -c | sort -rn >"$work/fetched"
  worst=$(awk '$1 > 1' "$work/fetched")
  if [ -n "$worst" ]; then
    echo "$worst" >"$work/out"
    fail "$name" "$(wc -l <<<"$worst") were fetched more than once" "$work/out"
  elif [ ! -s "$work/fetched" ]; then
    fail "$name" "the log shows no GET at all"
  else
    ok "$name ($(wc -l <"$work/fetched") of them)"
  fi
}

# prepare CLIENT: leaves it ready to pull, or says why it is not.
prepare() {
  rm -f "$work/out"
  if "prepare_$1"; then return 0; fi
  if [ ! -s "$work/out" ]; then
    skip "$1" "not installed"
  else
    unready "$1" "$work/out"
  fi
  return 1
}

write_client_config() {
  mkdir -p "$HOME" "$DOCKER_CONFIG"
  mkdir -m 700 "$XDG_RUNTIME_DIR"
  echo '{}' >"$DOCKER_CONFIG/config.json"
  settle podman
  # A docker-registry knows no registries by path.
  [ "$mirror_kind" != docker-registry ] || sed -i 's#/docker\.io"#"#' "$CONTAINERS_REGISTRIES_CONF"
}

main() {
  local client ready=() state=cold
  write_client_config
  start_origin
  push_images
  origin_log_start=$(wc -l <"$work/origin.log")
  start_mirror
  for client in "${clients[@]}"; do
    prepare "$client" || continue
    ready+=("$client")
    try "$client"
  done
  for client in "${ready[@]}"; do
    pull "$client: an image of two platforms that all share" "$client" library/alpine "$state" tag
    # Clients differ in what they take (skopeo all platforms, an engine its own): the rest may still be cold.
    state=any
  done
  check_origin_log
  stop origin
  for client in "${ready[@]}"; do
    pull "$client: by tag while the origin is down" "$client" library/alpine any tag
  done
  summary
}

main

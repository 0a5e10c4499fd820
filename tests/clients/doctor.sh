#!/usr/bin/env bash
# doctor.sh: `roadstead doctor client` beside real clients says yes where they come through Roadstead, and no where they
# go round it.
#
# Each client has Roadstead's origin as its mirror at first, so that its pull succeeds and Roadstead never hears of it: the
# silent fallback. Then `roadstead client NAME --apply` tells it of Roadstead. A daemon that was not told of its new file
# must be found out as well.
#
# Variables: ROADSTEAD_BIN; CLIENTS="podman docker containerd"; KEEP=1 keeps logs. Best as root.
set -euo pipefail
# shellcheck source=tests/clients/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

read -ra clients <<<"${CLIENTS:-podman docker containerd}"
need python3 curl jq skopeo docker-registry
bin=$(roadstead_bin)
read -r origin_port mirror_port admin_port < <(free_ports 3)
origin=http://127.0.0.1:$origin_port
mirror=http://127.0.0.1:$mirror_port
settings=$work/root
export DOCKER_CONFIG=$work/docker-cli HOME=$work/home XDG_RUNTIME_DIR=$work/runtime
export CONTAINERS_REGISTRIES_CONF=$settings/etc/containers/registries.conf.d/roadstead.conf
export DOCKER_HOST=unix://$work/docker.sock CONTAINERD_ADDRESS=$work/containerd.sock
# The doctor runs the clients as it finds them.
export PATH=$work/bin:$PATH

start_origin() {
  cat >"$work/origin.yml" <<YAML
version: 0.1
storage: {filesystem: {rootdirectory: $work/origin}}
http: {addr: "127.0.0.1:$origin_port", secret: tests, relativeurls: true}
YAML
  start origin docker-registry serve "$work/origin.yml"
  wait_for origin 20 answers "$origin/v2/" || die "the origin did not start: $(tail -n 3 "$work/origin.log")"
  python3 "$repo/tests/clients/images.py" "$work/images"
  limited 60 skopeo --insecure-policy copy --all --dest-tls-verify=false "oci:$work/images/library/alpine:latest" \
    "docker://127.0.0.1:$origin_port/library/alpine:latest" || die "pushing: $(tail -n 1 "$work/out")"
}

# --- what the doctor says --------------------------------------------------------------------------------------------

# doctor CLIENT: its document goes to $work/said.json; its exit code is the status.
doctor() {
  limited 120 "$bin" doctor client "$1" --json --root "$settings" --mirror "$mirror" --admin "http://127.0.0.1:$admin_port" \
    --upstream "docker.io=$origin" --probe library/alpine && status=0 || status=$?
  cp "$work/out" "$work/said.json"
  return "$status"
}

# level CLIENT CHECK: the worst level of a check's findings.
level() {
  jq -r --arg group "$1" --arg check "$2" '[.findings[] | select(.group == $group and .check == $check).level] as $all
    | ["fault", "warning", "note", "ok"] | map(select(. as $it | $all | index($it))) | .[0] // "nothing"' "$work/said.json"
}

# expect NAME CLIENT CODE CHECK=LEVEL...: asks the doctor, and compares.
expect() {
  local name=$1 client=$2 code=$3 pair found status=0
  shift 3
  doctor "$client" || status=$?
  if [ "$status" -ne "$code" ]; then
    fail "$name" "its exit code is $status, not $code" "$work/said.json"
    return
  fi
  for pair in "$@"; do
    found=$(level "$client" "${pair%=*}")
    if [ "$found" != "${pair#*=}" ]; then
      fail "$name" "${pair%=*} is told as $found, not ${pair#*=}" "$work/said.json"
      return
    fi
  done
  ok "$name"
}

# says NAME WORDS
says() {
  if grep -q "$2" "$work/said.json"; then ok "$1"; else fail "$1" "it does not say: $2" "$work/said.json"; fi
}

# settle CLIENT: what `roadstead client` writes, into what is there.
settle() {
  limited 20 "$bin" client "$1" --address "$mirror" --upstream "docker.io=$origin" --apply --root "$settings" ||
    die "roadstead client $1: $(cat "$work/out")"
}

goes_round() {
  expect "$1: a pull that goes round Roadstead is told" "$1" 1 mirrors=fault pull=fault
  says "$1: it is named as the silent fallback" "silent fallback"
}

comes_through() { expect "$1: a pull that comes through is told" "$1" 0 mirrors=ok files=ok pull=ok; }

# --- podman ----------------------------------------------------------------------------------------------------------

try_podman() {
  local podman
  podman=$(type -P podman) || { skip podman "not installed"; return; }
  cat >"$work/bin/podman" <<SH
#!/bin/sh
exec $podman --storage-driver vfs --root $work/podman/root --runroot $work/podman/run --tmpdir $work/podman/tmp "\$@"
SH
  chmod +x "$work/bin/podman"
  mkdir -p "$(dirname "$CONTAINERS_REGISTRIES_CONF")"
  cat >"$CONTAINERS_REGISTRIES_CONF" <<TOML
[[registry]]
prefix = "docker.io"
location = "docker.io"
[[registry.mirror]]
location = "127.0.0.1:$origin_port"
insecure = true
TOML
  limited 60 podman info || { unready podman "$work/out"; return; }
  goes_round podman
  settle podman
  comes_through podman
}

# --- docker ----------------------------------------------------------------------------------------------------------

try_docker() {
  installed dockerd docker || { skip docker "not installed"; return; }
  mkdir -p "$work/docker" "$settings/etc/docker"
  echo "{\"registry-mirrors\": [\"$origin\"]}" >"$settings/etc/docker/daemon.json"
  start dockerd dockerd --config-file "$settings/etc/docker/daemon.json" --storage-driver=vfs --iptables=false \
    --ip6tables=false --bridge=none --data-root "$work/docker/data" --exec-root "$work/docker/exec" \
    --pidfile "$work/docker/pid" -H "$DOCKER_HOST"
  wait_for dockerd 60 docker version || {
    unready docker "$work/dockerd.log"
    stop dockerd
    return
  }
  goes_round docker
  # A real daemon is told of a changed file by SIGHUP; until then it goes by the old one.
  settle docker
  jq --arg origin "$origin" '."registry-mirrors" -= [$origin]' "$settings/etc/docker/daemon.json" >"$work/daemon.json"
  cp "$work/daemon.json" "$settings/etc/docker/daemon.json"
  expect "docker: a daemon that was not told of its file is found out" docker 1 restarted=fault pull=fault
  kill -HUP "${pids[dockerd]}"
  wait_for dockerd 20 sh -c "docker info --format '{{json .RegistryConfig.Mirrors}}' | grep -q $mirror_port" ||
    die "dockerd does not reload"
  comes_through docker
  stop dockerd
  expect "docker: without its daemon, its files are gone by" docker 0 mirrors=ok files=ok pull=warning
}

# --- containerd ------------------------------------------------------------------------------------------------------

start_containerd() {
  start containerd containerd --config "$settings/etc/containerd/config.toml"
  wait_for containerd 30 ctr version
}

try_containerd() {
  installed containerd ctr || { skip containerd "not installed"; return; }
  configure_containerd "$settings/etc/containerd"
  mkdir -p "$settings/etc/containerd/certs.d/docker.io"
  printf 'server = "https://registry-1.docker.io"\n[host."%s"]\n  capabilities = ["pull", "resolve"]\n' "$origin" \
    >"$settings/etc/containerd/certs.d/docker.io/hosts.toml"
  start_containerd || {
    unready containerd "$work/containerd.log"
    stop containerd
    return
  }
  goes_round containerd
  settle containerd
  expect "containerd: one that was not restarted is found out" containerd 1 restarted=fault pull=ok
  stop containerd
  start_containerd || die "containerd does not start again"
  expect "containerd: a pull that comes through is told" containerd 0 mirrors=ok files=ok restarted=ok pull=ok
  limited 20 ctr namespaces ls --quiet
  if grep -q roadstead "$work/out"; then
    fail "containerd: nothing is left of it" "its namespace is" "$work/out"
  else
    ok "containerd: nothing is left of it"
  fi
}

# A dockerd that had to be killed leaves the containerd it started.
before_cleanup() {
  local pid_file
  stop dockerd
  while read -r pid_file; do kill -9 "$(cat "$pid_file")" 2>/dev/null; done < <(
    find "$work/docker/exec/containerd" "$work/podman/tmp" "$XDG_RUNTIME_DIR" \
      \( -name containerd.pid -o -name pause.pid \) -size +0 2>/dev/null
  )
}

main() {
  local client
  mkdir -p "$work/bin" "$HOME" "$DOCKER_CONFIG" "$settings"
  mkdir -m 700 "$XDG_RUNTIME_DIR"
  echo '{}' >"$DOCKER_CONFIG/config.json"
  start_origin
  start_roadstead "$mirror_port" "$admin_port" "$origin"
  for client in "${clients[@]}"; do "try_$client"; done
  summary
}

main

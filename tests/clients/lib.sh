# shellcheck shell=bash
# What the scripts beside it share: results, processes that end with the script, and the mirror under test.
# Every process is started here and ended here by its pid; everything written lies under $work.

# Where Debian has daemons, which not everybody's PATH names.
PATH=$PATH:/usr/sbin
repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
work=$(mktemp -d "${TMPDIR:-/tmp}/roadstead-clients.XXXXXX")

# --- results ---------------------------------------------------------------------------------------------------------

passed=0 failed=0 skipped=0

ok() { echo "ok $1"; passed=$((passed + 1)); }

# inapplicable NAME REASON: whatever is installed, this can't be tried here.
inapplicable() { echo "skip $1: $2"; skipped=$((skipped + 1)); }

# skip NAME REASON: something is missing, which is a failure where everything is required (ROADSTEAD_REQUIRE).
skip() { if [ -n "${ROADSTEAD_REQUIRE:-}" ]; then fail "$@"; else inapplicable "$@"; fi; }

# fail NAME REASON [LOG]: the end of LOG follows, indented so that no line of it reads as a result.
fail() {
  echo "FAIL $1: $2"
  failed=$((failed + 1))
  if [ -s "${3:-}" ]; then tail -n 6 "$3" | cut -c1-400 | sed 's/^/    | /'; fi
}

# Prints the closing line, and its status is the run's.
summary() {
  echo "$passed passed, $failed failed, $skipped skipped"
  [ "$failed" -eq 0 ]
}

die() {
  echo "$*" >&2
  exit 2
}

# unready NAME LOG: what is installed does not start, for which root has no excuse.
unready() {
  if [ "$(id -u)" -eq 0 ]; then
    fail "$1" "installed, and yet it does not start" "$2"
  else
    inapplicable "$1" "does not start for a user who is not root: $(tail -n 1 "$2" | cut -c1-200)"
  fi
}

# installed PROGRAM...: whether all of these are, as programs: functions may have their names.
installed() {
  local program
  for program in "$@"; do type -P "$program" >/dev/null || return 1; done
}

# need TOOL...: ends the script if one is missing, with what to install (each tool is a Debian package of its name).
need() {
  local tool
  for tool in "$@"; do command -v "$tool" >/dev/null || die "$tool is missing (Debian: apt-get install $*)"; done
}

# --- processes -------------------------------------------------------------------------------------------------------

declare -A pids=()

# start NAME COMMAND...: runs it in the background, its output in $work/NAME.log.
start() {
  local name=$1
  shift
  "$@" >>"$work/$name.log" 2>&1 </dev/null &
  pids[$name]=$!
}

alive() { [ -n "${pids[$1]:-}" ] && kill -0 "${pids[$1]}" 2>/dev/null; }

# stop NAME: asks, waits 15 s, then insists.
stop() {
  local pid=${pids[$1]:-}
  [ -n "$pid" ] || return 0
  unset "pids[$1]"
  kill "$pid" 2>/dev/null || true
  for _ in $(seq 150); do
    kill -0 "$pid" 2>/dev/null || break
    sleep 0.1
  done
  kill -9 "$pid" 2>/dev/null && echo "$1 did not end within 15 s of SIGTERM and was killed" >&2
  wait "$pid" 2>/dev/null || true
}

# wait_for NAME SECONDS CHECK...: until CHECK succeeds; gives up early when process NAME has ended.
wait_for() {
  local name=$1 tries=$(($2 * 10))
  shift 2
  for _ in $(seq "$tries"); do
    "$@" >/dev/null 2>&1 && return 0
    alive "$name" || return 1
    sleep 0.1
  done
  return 1
}

# settled SECONDS COMMAND...: what it prints once two readings agree that lie SECONDS apart, or after 50 of them.
settled() {
  local every=$1 last="" now
  shift
  for _ in $(seq 50); do
    now=$("$@")
    [ "$now" = "$last" ] && break
    last=$now
    sleep "$every"
  done
  echo "$now"
}

answers() { curl -sf -o /dev/null -m 2 "$1"; }

# free_ports N: N ports that nobody listens on, all different.
free_ports() {
  python3 -c '
import socket, sys
held = [socket.socket() for _ in range(int(sys.argv[1]))]
for s in held: s.bind(("127.0.0.1", 0))
print(*(s.getsockname()[1] for s in held))' "$1"
}

# limited SECONDS COMMAND...: its output goes to $work/out, for fail to show.
limited() {
  local seconds=$1
  shift
  timeout -k 5 "$seconds" "$@" >"$work/out" 2>&1 </dev/null
}

cleanup() {
  local name
  set +e
  if declare -F before_cleanup >/dev/null; then before_cleanup; fi
  for name in "${!pids[@]}"; do stop "$name"; done
  # Engines may leave private mounts behind; deleting through one would delete what it shows.
  awk -v dir="$work/" 'index($2, dir) == 1 { print $2 }' /proc/mounts | sort -r | while read -r at; do umount -l "$at"; done
  if [ -n "${KEEP:-}" ]; then echo "kept: $work" >&2; return; fi
  chmod -R u+rwX "$work" 2>/dev/null # rootless podman unpacks directories that nobody may write to
  rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

# --- clients under test ----------------------------------------------------------------------------------------------

# configure_containerd FOLDER: all that it keeps is below $work, its socket is $work/containerd.sock.
configure_containerd() {
  mkdir -p "$1"
  cat >"$1/config.toml" <<TOML
version = 2
root = "$work/containerd/root"
state = "$work/containerd/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.snapshotter.v1.overlayfs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.aufs"]
[grpc]
  address = "$work/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "$work/containerd/opt"
TOML
}

# --- the mirror under test -------------------------------------------------------------------------------------------

# The Roadstead to test: ROADSTEAD_BIN, else what was built last as a release, else as a debug build.
roadstead_bin() {
  local target=${CARGO_TARGET_DIR:-$repo/target} candidate
  for candidate in "${ROADSTEAD_BIN:-}" "$target/release/roadstead" "$target/debug/roadstead"; do
    if [ -x "$candidate" ]; then echo "$candidate" && return; fi
  done
  die "no roadstead in $target: build it (cargo build --release) or name one in ROADSTEAD_BIN"
}

# start_roadstead PORT ADMIN UPSTREAM [COMMAND...]: COMMAND, if any, runs it (a namespace, say). UPSTREAMS="NAME=URL ..."
# are more of them.
start_roadstead() {
  local port=$1 admin=$2 upstream=$3 bin more others=()
  shift 3
  for more in ${UPSTREAMS:-}; do others+=(--upstream "$more"); done
  bin=$(roadstead_bin)
  start mirror "$@" "$bin" serve --listen "127.0.0.1:$port" --admin "127.0.0.1:$admin" \
    --upstream "docker.io=$upstream" "${others[@]}" --data "$work/mirror"
  wait_for mirror 30 answers "http://127.0.0.1:$admin/readyz" || {
    tail -n 20 "$work/mirror.log" >&2
    die "Roadstead did not become ready"
  }
}

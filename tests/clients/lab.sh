#!/usr/bin/env bash
# lab.sh [DIR]: the laboratory of real container clients (../shared/lab/setup.sh DIR builds it) pulls through Roadstead.
#
# Starts Roadstead before the laboratory's origin, runs its smoke.sh, and asks that no client failed and that no request
# went round the mirror. Ends what it started and leaves what was up before. Root.
#
# Variables: ROADSTEAD_BIN; PORT (free if unset); KEEP=1 keeps Roadstead's log; LAB_UPSTREAM=http://127.0.0.1:5000 (the
# origin), or `hub` for the stand-in under Docker Hub's names, with tokens and redirects (then what goes round cannot be
# told from what Roadstead itself asks); MIRROR_KIND=docker-registry tries the laboratory's own mirror instead.
set -euo pipefail
# shellcheck source=tests/clients/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

mirror_kind=${MIRROR_KIND:-roadstead}
lab=${1:-${ROADSTEAD_LAB:-/work/lab}}
lab_upstream=${LAB_UPSTREAM:-http://127.0.0.1:5000}
[ "$(id -u)" -eq 0 ] || die "the laboratory needs root"
[ -x "$lab/smoke.sh" ] || die "no laboratory in $lab: build one with ../shared/lab/setup.sh $lab"
read -r free_port admin_port < <(free_ports 2)
port=${PORT:-$free_port}

# (With no pid file at all, svc.sh ends with status 1.)
services() { { "$lab/svc.sh" list || true; } | awk '$3 == "up" { print $1 }' | sort; }
mounted() { grep -q " $lab/sid/proc " /proc/mounts; }

services >"$work/before"
mounted && was_mounted=1 || was_mounted=0

# Ends the laboratory's services that this run brought up, and the mounts of its chroot likewise.
before_cleanup() {
  local service
  services | comm -13 "$work/before" - | while read -r service; do "$lab/svc.sh" stop "$service" >/dev/null; done
  [ "$was_mounted" -eq 1 ] || "$lab/sid.sh" umount
}

# A client that has the image from an earlier run would ask for nothing but its tag.
forget_earlier_runs() {
  if grep -qE '^(dockerd|ctrd)' "$work/before"; then die "an engine of the laboratory is running: stop it first"; fi
  (cd "$lab" && rm -rf d20 c16 x/d28 x/c21 podroot podrun x/podroot x/podrun x/s[0-9]*)
}

start_mirror() {
  case $mirror_kind:$lab_upstream in
    docker-registry:*) port=5011 ;; # smoke.sh starts it
    *:hub) start_roadstead "$port" "$admin_port" https://registry-1.docker.io "$lab/ns.sh" ;;
    *) start_roadstead "$port" "$admin_port" "$lab_upstream" ;;
  esac
}

check_bypass() {
  local name="no request went round the mirror" count
  if [ "$lab_upstream" = hub ]; then
    inapplicable "$name" "Roadstead itself asks the stand-in"
    return
  fi
  # The line is missing where the stand-in's log is empty: then nobody ever asked it.
  count=$(sed -n 's/^requests which went round the mirror.*: //p' "$work/smoke.out")
  if [ "${count:-0}" -eq 0 ]; then ok "$name"; else fail "$name" "$count did, to the stand-in for Docker Hub"; fi
}

main() {
  local line status=0 said=0
  forget_earlier_runs
  start_mirror
  # Its status is that of its last line and says nothing; its lines do, and a run without any has not taken place.
  T0=$(date +%s) PORT=$port timeout -k 10 600 "$lab/smoke.sh" </dev/null 2>&1 | tee "$work/smoke.out" || status=$?
  while read -r line; do
    case $line in
      "ok "*) passed=$((passed + 1)) said=$((said + 1)) ;;
      "FAIL "*) failed=$((failed + 1)) said=$((said + 1)) ;;
      "skip "*) skipped=$((skipped + 1)) ;;
    esac
  done <"$work/smoke.out"
  [ "$status" -ne 124 ] || fail "smoke.sh" "not done within 10 minutes"
  [ "$said" -ge 10 ] || fail "smoke.sh" "tried only $said client paths"
  check_bypass
  if [ "$failed" -gt 0 ] && [ -s "$work/mirror.log" ]; then tail -n 20 "$work/mirror.log"; fi
  summary
}

main

#!/usr/bin/env bash
# terminators.sh: the configurations of conf/ for nginx, HAProxy, Caddy and Traefik, each before Roadstead, which stands
# before a docker-registry as docker.io.
#
# What is shipped is what runs: only ports, paths and names are replaced. Through each: HTTP/2 outside, pulls by tag and
# by digest with skopeo, a large blob whose reader pauses (the answer must be under way, not collected: neither the
# terminator's memory nor what it writes may grow), the client's address in our log, and forged X-Forwarded-* that
# change nothing. Pushes likewise.
#
# Variables: ROADSTEAD_BIN; TERMINATORS="nginx haproxy caddy traefik"; TRAEFIK, CADDY, NGINX, HAPROXY name other
# programs; BLOB_MIB=256; KEEP=1 keeps logs.
set -euo pipefail
# shellcheck source=tests/clients/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

read -ra terminators <<<"${TERMINATORS:-nginx haproxy caddy traefik}"
need python3 curl jq openssl skopeo docker-registry
site=mirror.example.com
blob_mib=${BLOB_MIB:-256}
# What a terminator may hold or write of a blob that is several times as large.
bound_mib=64
read -r origin_port mirror_port admin_port evil_port < <(free_ports 4)
origin=http://127.0.0.1:$origin_port
export HOME=$work/home
mkdir -p "$HOME"

# --- the origin and Roadstead ----------------------------------------------------------------------------------------

start_origin() {
  cat >"$work/origin.yml" <<YAML
version: 0.1
log: {level: info, accesslog: {disabled: false}}
storage: {filesystem: {rootdirectory: $work/origin}}
http: {addr: "127.0.0.1:$origin_port", secret: tests, relativeurls: true}
YAML
  start origin docker-registry serve "$work/origin.yml"
  wait_for origin 20 answers "$origin/v2/" || die "the origin did not start: $(tail -n 3 "$work/origin.log")"
}

push_images() {
  python3 "$repo/tests/clients/images.py" "$work/images"
  limited 60 skopeo --insecure-policy copy --all --dest-tls-verify=false \
    "oci:$work/images/library/alpine:latest" "docker://127.0.0.1:$origin_port/library/alpine:latest" ||
    die "pushing: $(tail -n 1 "$work/out")"
  digest=$(curl -sfI "$origin/v2/library/alpine/manifests/latest" \
    -H 'Accept: application/vnd.oci.image.index.v1+json' | tr -d '\r' | sed -n 's/^docker-content-digest: //Ip')
}

# push_blob REPOSITORY FILE: straight to the origin; prints the digest.
push_blob() {
  local location sum
  sum=sha256:$(sha256sum "$2" | cut -d' ' -f1)
  location=$(curl -sf -o /dev/null -D - -X POST "$origin/v2/$1/blobs/uploads/" | tr -d '\r' | sed -n 's/^location: //Ip')
  case $location in http*) ;; *) location=$origin$location ;; esac
  case $location in *\?*) location+="&digest=$sum" ;; *) location+="?digest=$sum" ;; esac
  curl -sf -o /dev/null -X PUT -H 'Content-Type: application/octet-stream' --data-binary "@$2" "$location"
  echo "$sum"
}

roadstead_config() {
  cat >"$work/roadstead.yaml" <<YAML
listen: [{ address: "127.0.0.1:$mirror_port" }]
admin: { address: "127.0.0.1:$admin_port" }
trusted_proxies: [127.0.0.1]
upstreams:
  - { name: docker.io, url: "$origin", writes: forward }
  # What a client's own X-Forwarded-Host or Forwarded would select, if it were believed.
  - { name: evil.example, url: "http://127.0.0.1:$evil_port", hosts: [evil] }
store: { directory: "$work/mirror" }
YAML
}

start_evil() {
  start evil python3 -u -m http.server "$evil_port" --bind 127.0.0.1
  wait_for evil 20 answers "http://127.0.0.1:$evil_port/" || die "the second upstream did not start"
  evil_before=$(evil_requests)
}
evil_requests() { grep -ac '/v2/' "$work/evil.log" || true; }

start_mirror() {
  roadstead_config
  start mirror "$(roadstead_bin)" serve --config "$work/roadstead.yaml"
  wait_for mirror 30 answers "http://127.0.0.1:$admin_port/readyz" || {
    tail -n 20 "$work/mirror.log" >&2
    die "Roadstead did not become ready"
  }
}

# --- certificates and terminators ------------------------------------------------------------------------------------

make_certificate() {
  mkdir -p "$work/tls"
  openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj "/CN=$site" -addext "subjectAltName=DNS:$site,DNS:localhost" \
    -keyout "$work/tls/tls.key" -out "$work/tls/tls.crt" 2>/dev/null
  cat "$work/tls/tls.crt" "$work/tls/tls.key" >"$work/tls/roadstead.pem"
  mkdir -p "$work/certs" && cp "$work/tls/tls.crt" "$work/certs/ca.crt"
}

# shipped FILE PORT: the shipped configuration with our ports, paths and names.
shipped() {
  sed -e "s#/etc/roadstead/#$work/tls/#g; s#/etc/haproxy/#$work/tls/#; s#/etc/traefik/#$work/traefik/#" \
    -e "s#127\.0\.0\.1:5000#127.0.0.1:$mirror_port#" \
    -e "s#listen 443 #listen 127.0.0.1:$2 #; /listen \[::\]/d" \
    -e "s#bind :::443 v4v6 #bind 127.0.0.1:$2 #" \
    -e "s#^$site {#https://$site:$2, https://localhost:$2 {#" \
    -e "s#address: \":443\"#address: \"127.0.0.1:$2\"#" \
    "$repo/conf/$1"
}

program() {
  case $1 in
    nginx) echo "${NGINX:-nginx}" ;;
    haproxy) echo "${HAPROXY:-haproxy}" ;;
    caddy) echo "${CADDY:-caddy}" ;;
    traefik) echo "${TRAEFIK:-traefik}" ;;
  esac
}

# version PROGRAM: as it says itself, on one line.
version() {
  case $1 in
    nginx) "$(program nginx)" -v 2>&1 ;;
    haproxy) "$(program haproxy)" -v | head -n 1 ;;
    caddy) "$(program caddy)" version ;;
    traefik) "$(program traefik)" version | head -n 1 ;;
  esac
}

start_nginx() {
  mkdir -p "$work/nginx"
  {
    echo "daemon off; master_process off; pid $work/nginx/pid; error_log stderr;"
    echo "events { worker_connections 512; }"
    echo "http { access_log off;"
    for kind in client_body proxy fastcgi uwsgi scgi; do echo "  ${kind}_temp_path $work/nginx/$kind;"; done
    shipped nginx.conf "$1"
    echo "}"
  } >"$work/nginx/nginx.conf"
  start nginx "$(program nginx)" -p "$work/nginx" -c "$work/nginx/nginx.conf"
}

start_haproxy() {
  shipped haproxy.cfg "$1" >"$work/haproxy.cfg"
  start haproxy "$(program haproxy)" -db -f "$work/haproxy.cfg"
}

# Beside what is shipped: no administration, no installing of certificates, no port 80.
start_caddy() {
  {
    printf '{\n\tadmin off\n\tauto_https disable_redirects\n\tskip_install_trust\n\tstorage file_system %s\n}\n' "$work/caddy"
    shipped Caddyfile "$1"
  } >"$work/Caddyfile"
  start caddy "$(program caddy)" run --adapter caddyfile --config "$work/Caddyfile"
}

start_traefik() {
  mkdir -p "$work/traefik"
  shipped traefik.yaml "$1" >"$work/traefik/traefik.yaml"
  shipped traefik-roadstead.yaml "$1" >"$work/traefik/traefik-roadstead.yaml"
  start traefik "$(program traefik)" --configfile="$work/traefik/traefik.yaml"
}

# --- what must be true of each ---------------------------------------------------------------------------------------

# outside ARGUMENT...: curl as a client of the terminator on $port.
outside() { curl -sS -m 60 --cacert "$work/tls/tls.crt" --resolve "$site:$port:127.0.0.1" "$@"; }

# The access lines of Roadstead for a path.
logged() { grep -aF " path=\"$1\"" "$work/mirror.log" || grep -aF " path=$1 " "$work/mirror.log" || true; }

check_http2() {
  local got
  got=$(outside --http2 -o "$work/body" -w '%{http_version} %{http_code}' "https://$site:$port/v2/" 2>"$work/out") || true
  if [ "$got" = "2 200" ]; then ok "$1: HTTP/2 outside"; else fail "$1: HTTP/2 outside" "got '$got'" "$work/out"; fi
  got=$(outside --http1.1 -o "$work/body" -w '%{http_version} %{http_code}' "https://$site:$port/v2/" 2>"$work/out") || true
  if [ "$got" = "1.1 200" ]; then ok "$1: HTTP/1.1 outside"; else fail "$1: HTTP/1.1 outside" "got '$got'" "$work/out"; fi
}

# With the settings that `roadstead client` writes for a client of this terminator.
check_pulls() {
  local by reference settings=$work/settings-$1
  if ! limited 20 "$(roadstead_bin)" client podman --config "$work/roadstead.yaml" --address "https://localhost:$port" \
    --ca "$work/tls/tls.crt" --apply --root "$settings"; then
    fail "$1: roadstead client podman" "it failed" "$work/out"
    return
  fi
  for by in tag digest; do
    case $by in tag) reference=:latest ;; digest) reference=@$digest ;; esac
    rm -rf "$work/pulled"
    if ! limited 60 skopeo --insecure-policy \
      --registries-conf "$settings/etc/containers/registries.conf.d/roadstead.conf" copy --all --preserve-digests \
      --src-cert-dir "$settings/etc/containers/certs.d/localhost:$port" \
      "docker://docker.io/library/alpine$reference" "dir:$work/pulled"; then
      fail "$1: pull by $by" "skopeo failed" "$work/out"
    elif [ "sha256:$(sha256sum "$work/pulled/manifest.json" | cut -d' ' -f1)" != "$digest" ]; then
      fail "$1: pull by $by" "another manifest came"
    else
      ok "$1: pull by $by"
    fi
  done
}

# What arrives is what is there: no transformation, all headers.
check_headers() {
  local head name_wanted missing=""
  head=$(outside -I "https://$site:$port/v2/library/alpine/manifests/$digest" -H 'Accept-Encoding: gzip' \
    -H 'Accept: application/vnd.oci.image.index.v1+json' | tr -d '\r')
  for name_wanted in docker-content-digest content-length content-type docker-distribution-api-version; do
    grep -qi "^$name_wanted: " <<<"$head" || missing+=" $name_wanted"
  done
  if grep -qi '^content-encoding' <<<"$head"; then missing+=" (and it is compressed)"; fi
  if [ -z "$missing" ]; then ok "$1: headers as we sent them"; else fail "$1: headers as we sent them" "missing:$missing"; fi
}

# A client at 127.0.0.2 is told apart from the terminator, and what it says of itself is not believed.
check_client_address() {
  local path=/v2/library/forged-$1/manifests/1 lines
  outside --interface 127.0.0.2 -o /dev/null "https://$site:$port$path" \
    -H 'X-Forwarded-For: 10.9.9.9' -H 'Forwarded: for=10.9.9.9;host=evil' -H 'X-Real-IP: 10.9.9.9' \
    -H 'X-Forwarded-Host: evil' || true
  wait_for mirror 10 has_line "$path" || true
  lines=$(logged "$path")
  if grep -aq 'client="\?127\.0\.0\.2"\? ' <<<"$lines" && ! grep -aq '10\.9\.9\.9' <<<"$lines"; then
    ok "$1: the client's address is the outside one"
  else
    fail "$1: the client's address is the outside one" "logged: ${lines:-nothing}"
  fi
  if [ "$(evil_requests)" = "$evil_before" ]; then
    ok "$1: the client's own forwarded host selects no upstream"
  else
    fail "$1: the client's own forwarded host selects no upstream" "it selected one"
  fi
  evil_before=$(evil_requests)
}
has_line() { [ -n "$(logged "$1")" ]; }

# measures NAME: megabytes of memory at its peak, and of bytes handed to disks by it and its children.
measures() {
  local pid memory=0 written=0 value
  for pid in ${pids[$1]} $(pgrep -P "${pids[$1]}" || true); do
    value=$(awk '/^VmHWM/ { print int($2 / 1024) }' "/proc/$pid/status") && memory=$((memory + ${value:-0}))
    value=$(awk '/^write_bytes/ { print int($2 / 1048576) }' "/proc/$pid/io") && written=$((written + ${value:-0}))
  done
  echo "$memory $written"
}

# A reader that takes 1 MiB, waits until it is told to go on, and hashes the rest.
slow_reader() {
  python3 - "$port" "$site" "$work/tls/tls.crt" "$1" "$work/reader" <<'PY'
import hashlib, os, socket, ssl, sys, time
port, name, ca, path, state = sys.argv[1:]
context = ssl.create_default_context(cafile=ca)
raw = socket.socket()
raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 18)
raw.settimeout(60)
raw.connect(("127.0.0.1", int(port)))
tls = context.wrap_socket(raw, server_hostname=name)
tls.sendall(f"GET {path} HTTP/1.1\r\nHost: {name}:{port}\r\nConnection: close\r\n\r\n".encode())
stream = tls.makefile("rb")
assert stream.readline().split()[1] == b"200"
length = None
while (line := stream.readline().strip()):
    key, _, value = line.partition(b":")
    if key.lower() == b"content-length":
        length = int(value)
assert length, "no Content-Length: the body was re-framed"
hasher = hashlib.sha256(stream.read(1 << 20))
open(state + ".began", "w").close()
deadline = time.monotonic() + 60
while not os.path.exists(state + ".go") and time.monotonic() < deadline:
    time.sleep(0.05)
left = length - (1 << 20)
while left:
    piece = stream.read(min(left, 1 << 20))
    assert piece, f"{left} bytes short"
    hasher.update(piece)
    left -= len(piece)
print("sha256:" + hasher.hexdigest())
PY
}

check_large_blob() {
  local blob path memory written memory_after written_after before
  head -c $((blob_mib * 1048576)) /dev/urandom >"$work/blob"
  blob=$(push_blob "large/$1" "$work/blob")
  path=/v2/large/$1/blobs/$blob
  read -r memory written < <(measures "$1")
  rm -f "$work"/reader.*
  slow_reader "$path" >"$work/reader.out" 2>"$work/out" &
  pids[reader]=$!
  if ! wait_for reader 60 test -e "$work/reader.began"; then
    fail "$1: a blob of $blob_mib MiB" "not a byte came" "$work/out"
    stop reader
    return
  fi
  # What a terminator would collect, it has collected once it stands still.
  read -r memory_after written_after < <(settled 1 measures "$1")
  before=$(logged "$path")
  touch "$work/reader.go"
  wait "${pids[reader]}" || true
  unset "pids[reader]"
  if [ "$(cat "$work/reader.out")" != "$blob" ]; then
    fail "$1: a blob of $blob_mib MiB" "it came otherwise than it is" "$work/out"
  elif [ -n "$before" ]; then
    fail "$1: a blob of $blob_mib MiB" "the terminator had taken all of it while its client waited"
  elif [ $((memory_after - memory)) -gt "$bound_mib" ] || [ $((written_after - written)) -gt "$bound_mib" ]; then
    fail "$1: a blob of $blob_mib MiB" "memory $memory to $memory_after MiB, written $written to $written_after MiB"
  else
    ok "$1: a blob of $blob_mib MiB, streamed (memory +$((memory_after - memory)) MiB, written +$((written_after - written)) MiB)"
  fi
}

# Uploads pass through, whatever their size, and are not collected either.
check_push() {
  local memory written memory_after written_after
  read -r memory written < <(measures "$1")
  if ! limited 120 skopeo --insecure-policy copy --all --dest-cert-dir "$work/certs" \
    "oci:$work/images/library/alpine:latest" "docker://localhost:$port/pushed/$1:latest"; then
    fail "$1: push" "skopeo failed" "$work/out"
  elif ! curl -sf -m 10 -o /dev/null "$origin/v2/pushed/$1/manifests/latest" \
    -H 'Accept: application/vnd.oci.image.index.v1+json'; then
    fail "$1: push" "the origin does not have it"
  else
    ok "$1: push"
  fi
  if ! upload "pushed/$1" >"$work/out" 2>&1; then
    fail "$1: push of $blob_mib MiB" "the upload failed" "$work/out"
    return
  fi
  read -r memory_after written_after < <(measures "$1")
  if [ $((memory_after - memory)) -gt "$bound_mib" ] || [ $((written_after - written)) -gt "$bound_mib" ]; then
    fail "$1: push of $blob_mib MiB" "memory $memory to $memory_after MiB, written $written to $written_after MiB"
  else
    ok "$1: push of $blob_mib MiB, streamed"
  fi
}

# upload REPOSITORY: the large blob in one PUT over HTTP/2.
upload() {
  local sum location
  sum=sha256:$(sha256sum "$work/blob" | cut -d' ' -f1)
  location=$(outside --http2 -f -o /dev/null -D - -X POST "https://$site:$port/v2/$1/blobs/uploads/" | tr -d '\r' | sed -n 's/^location: //Ip')
  case $location in https://*) ;; /*) location=https://$site:$port$location ;; *) echo "Location: $location" && return 1 ;; esac
  case $location in *\?*) location+="&digest=$sum" ;; *) location+="?digest=$sum" ;; esac
  outside --http2 -f -m 120 -X PUT -H 'Content-Type: application/octet-stream' -T "$work/blob" "$location"
}

try() {
  check_http2 "$1"
  check_pulls "$1"
  check_headers "$1"
  check_client_address "$1"
  check_large_blob "$1"
  check_push "$1"
}

# No terminator: whoever speaks to us directly is who it is.
check_stranger() {
  local path=/v2/library/stranger/manifests/1
  curl -s -m 20 --interface 127.0.0.3 -o /dev/null "http://127.0.0.1:$mirror_port$path" \
    -H 'X-Forwarded-For: 10.9.9.9' -H 'Forwarded: for=10.9.9.9;host=evil' \
    -H 'X-Forwarded-Host: evil' -H 'X-Forwarded-Proto: https' || true
  wait_for mirror 10 has_line "$path" || true
  if logged "$path" | grep -aq 'client="\?127\.0\.0\.3"\? '; then
    ok "an untrusted address is believed nothing"
  else
    fail "an untrusted address is believed nothing" "logged: $(logged "$path")"
  fi
  if [ "$(evil_requests)" = "$evil_before" ]; then
    ok "an untrusted address's forwarded host selects no upstream"
  else
    fail "an untrusted address's forwarded host selects no upstream" "it selected one"
  fi
}

# The second upstream would have told: its own host selects it.
check_evil() {
  curl -s -m 20 -o /dev/null "http://127.0.0.1:$mirror_port/v2/app/manifests/1" -H 'Host: evil' || true
  if [ "$(evil_requests)" != "$evil_before" ]; then
    ok "Host alone selects the second upstream"
  else
    fail "Host alone selects the second upstream" "it was not asked"
  fi
  evil_before=$(evil_requests)
}

main() {
  local terminator
  start_origin
  push_images
  start_evil
  start_mirror
  make_certificate
  check_stranger
  check_evil
  for terminator in "${terminators[@]}"; do
    if ! command -v "$(program "$terminator")" >/dev/null; then
      skip "$terminator" "not installed"
      continue
    fi
    echo "$terminator: $(version "$terminator")"
    read -r port < <(free_ports 1)
    "start_$terminator" "$port"
    if wait_for "$terminator" 15 outside -f -o /dev/null "https://$site:$port/v2/"; then
      try "$terminator"
    else
      fail "$terminator" "it does not answer" "$work/$terminator.log"
    fi
    stop "$terminator"
  done
  summary
}

main

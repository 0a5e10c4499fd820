//! The servers' configurations: what a careful administrator would write for each.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::content::{BLOB_TYPE, MANIFEST_TYPE, Object};
use crate::proc;
use crate::server::Role;
use crate::tls::Identity;

/// Roadstead's own default, written out because a target builds on it: bytes of cached content in memory.
pub(crate) const ROADSTEAD_MEMORY_MIB: u32 = 256;
/// More than the most idle connections that any plan opens, on either server.
const MANY_CONNECTIONS: u32 = 16_384;
/// More than the files of any plan's hot content.
const MANY_FILES: u64 = 20_000;

/// Where one server listens and keeps its files.
pub(crate) struct Places<'a> {
    pub(crate) address: SocketAddr,
    pub(crate) tls: SocketAddr,
    /// Roadstead's alone.
    pub(crate) admin: SocketAddr,
    pub(crate) home: &'a Path,
}

/// nginx as the origin: every object is a static file with the headers of a registry. A blob's digest is in its path;
/// each manifest has a location of its own.
pub(crate) fn nginx_origin(
    address: SocketAddr,
    root: &Path,
    home: &Path,
    log: &Path,
    objects: &[Object],
) -> String {
    let mut locations = String::new();
    let manifests = objects.iter().filter(|object| object.media_type == MANIFEST_TYPE);
    for Object { path, media_type, digest, .. } in manifests {
        let _ = write!(
            locations,
            r#"
        location = "{path}" {{
            types {{ }} default_type "{media_type}";
            etag off; add_header ETag '"{digest}"';
            add_header Docker-Content-Digest "{digest}";
            add_header Docker-Distribution-Api-Version "registry/2.0";
        }}"#
        );
    }
    let http = format!(
        r#"
    log_format requests "$request_method $uri $status";
    access_log "{log}" requests;
    server {{
        listen {address} backlog=1024;
        root "{root}";{locations}
        location ~ "^/v2/.+/blobs/(?<digest>sha256:[0-9a-f]+)$" {{
            types {{ }} default_type "{BLOB_TYPE}";
            etag off; add_header ETag '"$digest"';
            add_header Docker-Content-Digest "$digest";
            add_header Docker-Distribution-Api-Version "registry/2.0";
        }}
        location = /v2/ {{
            default_type application/json;
            add_header Docker-Distribution-Api-Version "registry/2.0";
            return 200 "{{}}";
        }}
        location / {{
            default_type application/json;
            return 404 '{{"errors":[{{"code":"NAME_UNKNOWN","message":"not in this bench"}}]}}';
        }}
    }}"#,
        log = log.display(),
        root = root.display(),
    );
    nginx(home, Role::Main, &http)
}

/// Roadstead with its defaults; upstream and data directory come from the command line. Only many connections need
/// more than it allows.
pub(crate) fn roadstead(places: &Places<'_>, role: Role, identity: &Identity) -> String {
    let Places { address, tls, admin, .. } = places;
    let mut text = format!(
        r#"listen:
  - address: {address}
  - address: {tls}
    tls: {{ certificate: "{certificate}", key: "{key}" }}
admin: {{ address: {admin} }}
store: {{ memory: {ROADSTEAD_MEMORY_MIB}MiB }}
"#,
        certificate = identity.certificate.display(),
        key = identity.key.display(),
    );
    if role == Role::IdleConnections {
        let _ = writeln!(text, "downstream: {{ max_connections: {MANY_CONNECTIONS} }}");
    }
    text
}

/// nginx as the measured cache: one upstream request for many clients, kept connections, sendfile, and a line of
/// access log per request, as Debian's own configuration has it and as Roadstead writes one.
pub(crate) fn nginx_cache(
    places: &Places<'_>,
    role: Role,
    identity: &Identity,
    upstream: SocketAddr,
) -> String {
    let Places { address, tls, home, .. } = places;
    // Each takes a descriptor of a worker, which needs some for its connections too.
    let open_files = MANY_FILES.min(proc::descriptor_limit() / 4 * 3);
    let http = format!(
        r#"
    # In batches, as Roadstead writes them.
    access_log "{log}" combined buffer=64k flush=100ms;
    proxy_cache_path "{cache}" levels=1:2 keys_zone=registry:16m max_size=100g inactive=7d use_temp_path=off;
    # Without it a cached tag costs a fifth more CPU, a small blob a third.
    open_file_cache max={open_files} inactive=60s;
    open_file_cache_valid 60s;
    # Larger than the default of 2 × 32 KiB: over HTTP/2 a blob then costs 6 % less CPU. Over HTTP/1.1 and TLS it makes
    # no difference beyond the noise; nor does `http2_chunk_size 16k` anywhere, which is therefore not set.
    output_buffers 2 512k;
    upstream registry {{ server {upstream}; keepalive 32; }}
    server {{
        listen {address} backlog=1024;
        listen {tls} backlog=1024 ssl http2;
        ssl_certificate "{certificate}";
        ssl_certificate_key "{key}";
        ssl_protocols TLSv1.3;
        proxy_http_version 1.1;
        proxy_set_header Connection "";
        proxy_cache registry;
        proxy_cache_key $uri;
        proxy_cache_lock on;
        # The default of 5 s would let waiting clients through to the upstream, uncached.
        proxy_cache_lock_timeout 300s;
        proxy_cache_lock_age 300s;
        proxy_cache_use_stale error timeout updating http_429 http_500 http_502 http_503 http_504;
        proxy_cache_background_update on;
        # Larger than the defaults of 8 × 4 KiB: a cold blob then costs a third less CPU.
        proxy_buffer_size 16k;
        proxy_buffers 16 64k;
        proxy_busy_buffers_size 128k;
        location /v2/ {{ proxy_pass http://registry; proxy_cache_valid 200 1h; }}
        location ~ "^/v2/.+/blobs/" {{ proxy_pass http://registry; proxy_cache_valid 200 30d; }}
    }}"#,
        cache = home.join("cache").display(),
        log = home.join("access.log").display(),
        certificate = identity.certificate.display(),
        key = identity.key.display(),
    );
    nginx(home, role, &http)
}

/// docker-registry as a pull-through cache, with the in-memory descriptors of Debian's own configuration.
pub(crate) fn registry_proxy(address: SocketAddr, upstream: SocketAddr, home: &Path) -> String {
    format!(
        r#"version: 0.1
log: {{ level: error, accesslog: {{ disabled: false }} }}
storage:
  filesystem: {{ rootdirectory: "{storage}" }}
  cache: {{ blobdescriptor: inmemory }}
http: {{ addr: "{address}", secret: bench }}
proxy: {{ remoteurl: "http://{upstream}" }}
"#,
        storage = home.join("storage").display(),
    )
}

/// What all uses of nginx share. Nothing outside `home` is written.
fn nginx(home: &Path, role: Role, http: &str) -> String {
    // Each allowed connection costs memory from the start.
    let connections = if role == Role::IdleConnections { MANY_CONNECTIONS } else { 1024 };
    let aio = if role == Role::DiskReads { "threads" } else { "off" };
    // A master run by root would hand its workers to `nobody`, who may not enter the run's directory.
    let user = if runs_as_root() { "user root;" } else { "" };
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    format!(
        r#"daemon off;
{user}
# As many as Roadstead takes threads.
worker_processes {workers};
pid "{home}/nginx.pid";
error_log stderr warn;
events {{ worker_connections {connections}; }}
http {{
    sendfile on;
    tcp_nopush on;
    tcp_nodelay on;
    aio {aio};
    directio off;
    server_tokens off;
    keepalive_timeout 65s;
    # The default of 1000 would measure connecting again.
    keepalive_requests 100000000;
    client_body_temp_path "{home}/client_body";
    proxy_temp_path "{home}/proxy";
    fastcgi_temp_path "{home}/fastcgi";
    uwsgi_temp_path "{home}/uwsgi";
    scgi_temp_path "{home}/scgi";
{http}
}}
"#,
        home = home.display(),
    )
}

fn runs_as_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

//! The kinds of requests that are counted, and what is published for them.

use std::borrow::Cow;
use std::cell::Cell;
use std::net::SocketAddr;

use bytes::Bytes;
use hub::{Hub, ImageSpec};

use crate::baseline::Limit;

/// What docker sends.
const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
                      application/vnd.docker.distribution.manifest.list.v2+json, \
                      application/vnd.docker.distribution.manifest.v2+json, */*";

const NAME: &str = "library/known";
const TAG: &str = "latest";

const SMALL_BYTES: u64 = 4 << 10;

/// So large that the head hardly matters.
const LARGE_MIB: u64 = 32;

/// How often a large body has to wait for its reader, and so how many writes there are, is up to the kernel's buffers
/// and to who runs when: it came out up to 18 % apart. What a body must not have, a copy, a hash, or many small writes,
/// costs several times as much.
const LARGE_LIMIT: Limit = Limit::Upwards(30.0);

/// One kind of request.
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    /// Head, ready to be sent, of a request without a number.
    head: Vec<u8>,
    /// The last request's number, where each has one and so is like none before it: what is remembered of heads that
    /// come again is of no use to it.
    number: Option<Cell<u32>>,
    /// `Content-Length` of the right answer.
    pub(crate) size_bytes: u64,
    /// Not so in the answer to a HEAD.
    pub(crate) has_body: bool,
    /// Each request has a connection of its own.
    pub(crate) is_fresh: bool,
    /// In a batch.
    pub(crate) requests: u32,
    /// What the count of one request is divided by.
    pub(crate) units: f64,
    /// How far from its baseline it may be.
    pub(crate) limit: Limit,
}

/// What the registry has.
pub(crate) struct Published {
    manifest: String,
    manifest_bytes: u64,
    small: String,
    large: String,
}

pub(crate) fn all(address: SocketAddr, published: &Published) -> Vec<Kind> {
    let tag = || format!("manifests/{TAG}");
    let kind = |name, method: &str, path: String, size_bytes| Kind {
        name,
        head: head(address, method, &path),
        number: None,
        size_bytes,
        has_body: method == "GET",
        is_fresh: false,
        requests: 5000,
        units: 1.0,
        limit: Limit::USUAL,
    };
    let manifest = published.manifest_bytes;
    let fresh = kind("tag-fresh-connection", "GET", tag(), manifest);
    let new_head = kind("tag-new-head", "GET", tag(), manifest);
    let large = format!("blobs/{}", published.large);
    let large = kind("large-blob-mib", "GET", large, LARGE_MIB << 20);
    vec![
        kind("tag", "GET", tag(), manifest),
        kind("tag-head", "HEAD", tag(), manifest),
        Kind { number: Some(Cell::default()), ..new_head },
        kind("manifest-by-digest", "GET", format!("manifests/{}", published.manifest), manifest),
        kind("small-blob", "GET", format!("blobs/{}", published.small), SMALL_BYTES),
        Kind { requests: 16, units: LARGE_MIB as f64, limit: LARGE_LIMIT, ..large },
        Kind { is_fresh: true, requests: 500, ..fresh },
    ]
}

fn head(address: SocketAddr, method: &str, path: &str) -> Vec<u8> {
    let text = format!(
        "{method} /v2/{NAME}/{path} HTTP/1.1\r\nHost: {address}\r\n\
         User-Agent: docker/28.3.2 go/go1.24.5 os/linux arch/amd64\r\nAccept: {ACCEPT}\r\n\r\n"
    );
    text.into_bytes()
}

// === impl Kind ===

impl Kind {
    /// The next request's head.
    pub(crate) fn request(&self) -> Cow<'_, [u8]> {
        let Some(number) = &self.number else {
            return Cow::Borrowed(&self.head);
        };
        number.set(number.get() + 1);
        let mut head = self.head.clone();
        // In front of the empty line. Always as long, for length costs.
        head.truncate(head.len() - 2);
        head.extend_from_slice(format!("X-Request: {:08}\r\n\r\n", number.get()).as_bytes());
        Cow::Owned(head)
    }
}

// === impl Published ===

impl Published {
    /// Publishes everything on `hub`.
    pub(crate) fn on(hub: &Hub) -> Self {
        let image = hub.push(&ImageSpec::new(NAME).tag(TAG).single());
        let blob = |bytes: u64| {
            let body = vec![0x5a; usize::try_from(bytes).expect("it fits in memory")];
            hub.put_blob(NAME, Bytes::from(body))
        };
        Self {
            manifest_bytes: image.manifests.iter().map(|manifest| manifest.size).sum(),
            manifest: image.digest,
            small: blob(SMALL_BYTES),
            large: blob(LARGE_MIB << 20),
        }
    }
}

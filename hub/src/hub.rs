//! The running simulator and its handle.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::digest::sha256;
use crate::fault::{Fault, FaultId};
use crate::gate::Gate;
use crate::image::build::build;
use crate::image::{Image, ImageSpec};
use crate::options::{Options, StartError};
use crate::random::unpredictable;
use crate::seen::Place;
use crate::serve::accept;
use crate::shared::{Addresses, Shared};
use crate::stats::{Kind, Request, Stats};
use crate::sync::lock;
use crate::target::Target;

/// A running simulator; clones are handles to the same one, and the last to go ends it.
#[derive(Debug, Clone)]
pub struct Hub(Arc<Running>);

#[derive(Debug)]
struct Running {
    shared: Arc<Shared>,
    /// One per server; each owns its connections.
    servers: [JoinHandle<()>; 3],
}

// === impl Running ===

impl Drop for Running {
    fn drop(&mut self) {
        self.servers.iter().for_each(JoinHandle::abort);
    }
}

// === impl Hub: its life ===

impl Hub {
    /// Starts with the default options, on free loopback ports, in the caller's tokio runtime.
    ///
    /// # Panics
    /// When the machine has no free loopback port.
    pub async fn start() -> Self {
        Self::start_with(Options::default()).await.expect("loopback has free ports")
    }

    /// Starts; fails when an address is taken.
    pub async fn start_with(options: Options) -> Result<Self, StartError> {
        let (registry, at_registry) = listen("registry", options.registry).await?;
        let (token, at_token) = listen("token server", options.token).await?;
        let (cdn, at_cdn) = listen("CDN", options.cdn).await?;
        let addresses = Addresses { registry: at_registry, token: at_token, cdn: at_cdn };
        let shared = Arc::new(Shared::new(options, addresses));
        // Docker's own image for asking what is left of a budget.
        shared.push(&ImageSpec::new("ratelimitpreview/test").tag("latest").single().layers(1));
        let servers = [(registry, Place::Registry), (token, Place::Token), (cdn, Place::Cdn)]
            .map(|(listener, place)| tokio::spawn(accept(listener, place, shared.clone())));
        Ok(Self(Arc::new(Running { shared, servers })))
    }

    /// Where the registry listens.
    pub fn registry(&self) -> SocketAddr {
        self.shared().addresses.registry
    }

    /// Where the token server listens.
    pub fn token(&self) -> SocketAddr {
        self.shared().addresses.token
    }

    /// Where the CDN listens.
    pub fn cdn(&self) -> SocketAddr {
        self.shared().addresses.cdn
    }

    /// `http://127.0.0.1:PORT` of the registry.
    pub fn registry_url(&self) -> String {
        format!("http://{}", self.registry())
    }

    /// `http://127.0.0.1:PORT/token`, as challenges name it.
    pub fn token_realm(&self) -> String {
        self.shared().token_realm()
    }

    fn shared(&self) -> &Shared {
        &self.0.shared
    }
}

async fn listen(
    server: &'static str,
    address: SocketAddr,
) -> Result<(TcpListener, SocketAddr), StartError> {
    let failed = |source| StartError::Listen { server, address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

// === impl Hub: content ===

impl Hub {
    /// Builds and publishes an image; equal specs give equal bytes.
    pub fn push(&self, spec: &ImageSpec) -> Image {
        self.shared().push(spec)
    }

    /// Points a tag at a digest, published or not.
    pub fn tag(&self, repository: &str, tag: &str, digest: &str) {
        lock(&self.shared().content).tag(repository, tag, digest);
    }

    /// Removes a tag; what it named stays reachable by digest.
    pub fn delete_tag(&self, repository: &str, tag: &str) {
        lock(&self.shared().content).delete_tag(repository, tag);
    }

    /// Publishes raw bytes as a manifest, and returns their sha256 digest. The same bytes answer
    /// to their sha512 digest.
    pub fn put_manifest(
        &self,
        repository: &str,
        tag: Option<&str>,
        media_type: &str,
        body: Bytes,
    ) -> String {
        let mut content = lock(&self.shared().content);
        let digest = content.put_manifest(repository, media_type, body);
        if let Some(tag) = tag {
            content.tag(repository, tag, &digest);
        }
        digest
    }

    /// Publishes raw bytes as a blob, and returns their sha256 digest.
    pub fn put_blob(&self, repository: &str, body: Bytes) -> String {
        let digest = sha256(&body);
        lock(&self.shared().content).put_blob(repository, digest.clone(), body);
        digest
    }
}

impl Shared {
    pub(crate) fn push(&self, spec: &ImageSpec) -> Image {
        let build = build(spec);
        lock(&self.content).publish(&build, &spec.tags);
        build.image
    }
}

// === impl Hub: what goes wrong ===

impl Hub {
    /// Adds a fault. Of those that match a request, the first added that has times left acts.
    pub fn fault(&self, fault: Fault) -> FaultId {
        lock(&self.shared().faults).add(fault)
    }

    /// Takes one fault back.
    pub fn remove_fault(&self, fault: FaultId) {
        lock(&self.shared().faults).remove(fault);
    }

    /// Takes all faults back.
    pub fn clear_faults(&self) {
        lock(&self.shared().faults).clear();
    }

    /// Pauses the body of each matching answer after so many bytes until the gate opens. A body
    /// no longer than that never gets to it.
    pub fn gate(&self, target: Target, after_bytes: u64) -> Gate {
        lock(&self.shared().gates).add(target, after_bytes)
    }

    /// Sets what is left to an account; `None`: to every anonymous address, seen or not. Has no
    /// effect on those without limit.
    pub fn set_budget(&self, account: Option<&str>, remaining: u64) {
        lock(&self.shared().budgets).set(account, remaining, Instant::now());
    }

    /// Refuses all tokens handed out so far.
    pub fn expire_tokens(&self) {
        lock(&self.shared().tokens).forget_all();
    }

    /// Signs with another key: refuses all CDN URLs handed out so far.
    pub fn expire_urls(&self) {
        *lock(&self.shared().url_key) = unpredictable();
    }
}

// === impl Hub: the books ===

impl Hub {
    /// Counts since the start or the last reset.
    pub fn stats(&self) -> Stats {
        self.shared().stats()
    }

    /// Every request received, in order; the last 100 000.
    pub fn requests(&self) -> Vec<Request> {
        lock(&self.shared().log).requests()
    }

    /// Forgets counts and requests; budgets stay as they are.
    pub fn reset_stats(&self) {
        lock(&self.shared().log).reset();
    }

    /// GETs for the bytes of this blob: at the CDN, or at the registry if it does not redirect.
    pub fn blob_gets(&self, digest: &str) -> u64 {
        let kind = match self.shared().options.redirect_blobs {
            true => Kind::CdnGet,
            false => Kind::BlobGet,
        };
        self.by_reference(kind, digest)
    }

    /// GETs with this tag or digest as the reference, in any repository; those that only earned a
    /// challenge for want of a token are left out.
    pub fn manifest_gets(&self, reference: &str) -> u64 {
        self.by_reference(Kind::ManifestGet, reference)
    }

    /// HEADs, counted likewise.
    pub fn manifest_heads(&self, reference: &str) -> u64 {
        self.by_reference(Kind::ManifestHead, reference)
    }

    fn by_reference(&self, kind: Kind, reference: &str) -> u64 {
        lock(&self.shared().log).by_reference(kind, reference)
    }
}

impl Shared {
    pub(crate) fn stats(&self) -> Stats {
        let remaining = lock(&self.budgets).remaining();
        Stats { remaining, ..lock(&self.log).stats() }
    }
}

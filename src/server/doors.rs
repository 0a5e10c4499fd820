//! What each listener asks of its connections, with the certificates that it needs read.
//!
//! Files that can't be used are found here, before the first connection is accepted; later changes
//! of them are followed by [`Certificates`].

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use pingora::{server::ShutdownWatch, services::background::BackgroundService};

use super::StartError;
use crate::{
    config::{self, Config, Intercepted, Listen},
    proxy::{Bounds, Door, TransparentDoor, Tunnels},
    tls::{Authority, Server, Watched},
};

/// How often it is looked whether certificates have changed.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The doors of all listeners, in their order, and the files behind them.
pub(super) struct Doors {
    pub(super) doors: Vec<Door>,
    /// The operator's, if it has one.
    pub(super) admin: Option<Arc<Server>>,
    /// Of the doors alone.
    pub(super) certificates: Vec<Arc<dyn Watched>>,
}

/// What all transparent listeners have in common.
struct Common {
    intercepted: Arc<Intercepted>,
    bounds: Arc<Bounds>,
}

/// Follows the files of the certificates in use while the server runs.
pub(super) struct Certificates {
    /// The operator's, which stays.
    pub(super) admin: Option<Arc<Server>>,
    /// Those of the doors.
    pub(super) doors: Arc<ArcSwap<Vec<Arc<dyn Watched>>>>,
}

// === impl Doors ===

impl Doors {
    /// `bounds`: on what all of them do together.
    pub(super) fn prepare(config: &Config, bounds: &Arc<Bounds>) -> Result<Self, StartError> {
        let common = Common {
            intercepted: Arc::new(Intercepted::of(&config.upstreams)),
            bounds: Arc::clone(bounds),
        };
        let mut certificates = Vec::new();
        let mut doors = Vec::new();
        for (index, listen) in config.listen.iter().enumerate() {
            let door = door(config, listen, &common, &mut certificates);
            doors.push(
                door.map_err(|problem| StartError::Config(format!("listen[{index}].{problem}")))?,
            );
        }
        let admin = match &config.admin.tls {
            Some(tls) => {
                let problem = |what| StartError::Config(format!("admin.tls: {what}"));
                Some(Arc::new(Server::asking(tls).map_err(problem)?))
            }
            None => None,
        };
        Ok(Self { doors, admin, certificates })
    }
}

fn door(
    config: &Config,
    listen: &Listen,
    common: &Common,
    certificates: &mut Vec<Arc<dyn Watched>>,
) -> Result<Door, String> {
    let tls = match &listen.tls {
        Some(tls) => Some(Arc::new(Server::of(tls).map_err(|what| format!("tls: {what}"))?)),
        None => None,
    };
    certificates.extend(tls.iter().map(|tls| Arc::clone(tls) as Arc<dyn Watched>));
    let transparent = match &listen.transparent {
        Some(transparent) => Some(transparent_door(config, transparent, common)?),
        None => None,
    };
    let authority = transparent.iter().map(|door| Arc::clone(&door.authority) as Arc<dyn Watched>);
    certificates.extend(authority);
    let proxy_header_from = listen.proxy_protocol.then(|| config.trusted_proxies.clone());
    Ok(Door { proxy_header_from, tls, transparent })
}

fn transparent_door(
    config: &Config,
    transparent: &config::Transparent,
    common: &Common,
) -> Result<TransparentDoor, String> {
    let authority = Authority::of(&transparent.ca, &common.intercepted.hosts());
    let authority = authority.map_err(|what| format!("transparent.ca: {what}"))?;
    let mut listed = transparent.tunnel_hosts.clone();
    // Upstream sends clients with credentials of their own there.
    let services = config.upstreams.iter().flat_map(config::token_services);
    listed.extend(services.map(|(host, port)| format!("{host}:{port}")));
    let mut own_ports: Vec<u16> =
        config.listen.iter().filter_map(|listen| listen.address.port()).collect();
    own_ports.push(config.admin.address.port());
    Ok(TransparentDoor {
        mode: transparent.mode,
        authority: Arc::new(authority),
        intercepted: Arc::clone(&common.intercepted),
        tunnels: Tunnels {
            others: transparent.others,
            listed,
            own_ports,
            bounds: Arc::clone(&common.bounds),
        },
        allow: config.access.allow.clone(),
    })
}

// === impl Certificates ===

#[async_trait]
impl BackgroundService for Certificates {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        // An error means that the server is gone, which is a shutdown too.
        while tokio::time::timeout(LOOK_EVERY, shutdown.wait_for(|stops| *stops)).await.is_err() {
            let admin = self.admin.iter().map(|tls| Arc::clone(tls) as Arc<dyn Watched>);
            for watched in admin.chain(self.doors.load_full().iter().map(Arc::clone)) {
                let looked = tokio::task::spawn_blocking(move || watched.look()).await;
                if let Err(error) = looked {
                    tracing::error!(%error, "certificates can't be looked at");
                }
            }
        }
    }
}

//! Other registries that have what an upstream has: asked before it, or when it can't be.
//!
//! A mirror has an address and credentials of its own; the upstream's never go
//! there. All the rest it shares with its upstream.

use super::credentials::Mode;
use super::nearest::choose;
use super::problem::Scope;
use super::raw::{RawMirror, RawUpstream};
use super::upstream::Upstream;

/// A mirror of an upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// When it is asked. Default: before.
    pub order: Order,
    /// The mirror, under its upstream's name. It has no mirrors itself.
    pub registry: Upstream,
}

/// When a mirror is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// First; what it does not have or can't give, its upstream is asked for.
    Before,
    /// Where its upstream is in trouble.
    After,
}

const ORDERS: [(&str, Order); 2] = [("before", Order::Before), ("after", Order::After)];

// === impl Mirror ===

impl Mirror {
    /// The mirrors of the upstream `name`.
    pub(super) fn read_all(scope: &Scope<'_>, raw: Vec<RawMirror>, name: &str) -> Vec<Self> {
        let mirrors = raw.into_iter().enumerate();
        mirrors.filter_map(|(index, raw)| Self::read(&scope.item(index), raw, name)).collect()
    }

    fn read(scope: &Scope<'_>, raw: RawMirror, name: &str) -> Option<Self> {
        let order = raw.order.and_then(|word| scope.at("order").check(choose(&word, &ORDERS)));
        if raw.url.is_none() {
            scope.at("url").refuse("is missing", "write the mirror's address");
            return None;
        }
        let registry = RawUpstream {
            name: Some(name.to_owned()),
            url: raw.url,
            credentials: raw.credentials,
            token_realms: raw.token_realms,
            redirect_hosts: raw.redirect_hosts,
            ca_file: raw.ca_file,
            prefix: raw.prefix,
            ..RawUpstream::default()
        };
        let mut registry = Upstream::read(scope, registry)?;
        if registry.credentials.mode == Mode::Client {
            scope.at("credentials").at("mode").refuse(
                "clients' credentials are for the upstream and never go to a mirror",
                "remove it; what accounts the mirror wants, list them under `accounts`",
            );
        }
        // What the budget of a mirror is, its answers tell.
        registry.budget.probe = None;
        Some(Self { order: order.unwrap_or(Order::Before), registry })
    }

    pub(super) fn to_raw(&self) -> RawMirror {
        let order = ORDERS.iter().find(|(_, order)| *order == self.order);
        let RawUpstream { url, credentials, token_realms, redirect_hosts, ca_file, prefix, .. } =
            self.registry.to_raw();
        RawMirror {
            url,
            order: order.map(|(name, _)| (*name).to_owned()),
            credentials,
            token_realms,
            redirect_hosts,
            ca_file,
            prefix,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{only_upstream, refused};
    use super::*;

    #[test]
    fn a_mirror_has_an_address_and_a_turn() {
        let hub = only_upstream(
            "upstreams: [{ name: docker.io, mirrors: [{ url: 'https://mirror.gcr.io' }, { url: 'https://b.example', order: after, prefix: hub }] }]",
        );
        let orders: Vec<_> = hub.mirrors.iter().map(|mirror| mirror.order).collect();
        assert_eq!(orders, [Order::Before, Order::After]);
        let second = &hub.mirrors[1].registry;
        assert_eq!(second.prefix.as_ref().unwrap().as_str(), "hub");
        assert!(second.credentials.is_anonymous(), "credentials that were never meant for it");
        assert_eq!(second.budget.probe, None);
    }

    #[test]
    fn a_mirror_s_problems_are_told_at_its_place() {
        let line = refused("upstreams: [{ name: docker.io, mirrors: [{ order: before }] }]");
        assert!(line.contains("upstreams[0].mirrors[0].url: is missing"), "{line}");
        let line = refused(
            "upstreams: [{ name: docker.io, mirrors: [{ url: 'https://a.example', order: never }] }]",
        );
        assert!(line.contains("upstreams[0].mirrors[0].order"), "{line}");
        let line = refused(
            "upstreams: [{ name: docker.io, mirrors: [{ url: 'https://a.example', credentials: { mode: client } }] }]",
        );
        assert!(line.contains("upstreams[0].mirrors[0].credentials.mode: clients'"), "{line}");
        let line = refused("upstreams: [{ name: docker.io, prefix: 'A B' }]");
        assert!(line.contains("upstreams[0].prefix"), "{line}");
    }
}

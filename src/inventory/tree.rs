//! One image from its index down to its layers: what it names, and what of that is stored.
//!
//! Manifests are foreign bytes: depth and size of the walk are bounded, and each
//! is entered once.

use std::collections::{HashMap, HashSet};

use serde::Deserialize;

use super::{
    Amount,
    catalogue::Catalogue,
    report::{Platform, State},
};
use crate::{
    protocol::{
        Digest,
        media_type::{Child, blobs, children},
    },
    store::Error,
};

/// Indexes within indexes that are followed. What is in use has one level.
const DEEPEST: usize = 4;

/// Objects of one image that are looked up; about a hundred bytes each while it is walked.
const MOST_PIECES: usize = 20_000;

/// A config is read up to this size to learn the platform.
const CONFIG_BYTES: u64 = 1 << 20;

/// All that an image names.
#[derive(Debug, Default)]
pub(super) struct Tree {
    /// Each digest once, what names it before it.
    pub(super) pieces: Vec<Piece>,
    pub(super) platforms: Vec<Platform>,
}

/// An object that an image names.
#[derive(Debug, Clone, Copy)]
pub(super) struct Piece {
    pub(super) digest: Digest,
    /// Its size, if it is stored.
    pub(super) stored: Option<u64>,
}

/// What a manifest is to the image.
enum Place {
    /// The image itself.
    Top,
    /// One of its platforms.
    Platform(Option<String>),
    /// An attestation: it is kept with the image, and nothing that runs.
    Hidden,
}

struct Walk<'a> {
    catalogue: &'a dyn Catalogue,
    max_manifest: u64,
    seen: HashMap<Digest, Option<u64>>,
    entered: HashSet<Digest>,
    tree: Tree,
}

// === impl Tree ===

impl Tree {
    /// Follows `root`, reading manifests of up to `max_manifest` bytes.
    pub(super) fn of(
        catalogue: &dyn Catalogue,
        root: Digest,
        max_manifest: u64,
    ) -> Result<Self, Error> {
        let (seen, entered) = (HashMap::new(), HashSet::new());
        let mut walk = Walk { catalogue, max_manifest, seen, entered, tree: Self::default() };
        walk.manifest(root, 0, Place::Top)?;
        Ok(walk.tree)
    }

    /// What is stored of it, with its size.
    pub(super) fn stored(&self) -> impl Iterator<Item = (Digest, u64)> {
        self.pieces.iter().filter_map(|piece| Some((piece.digest, piece.stored?)))
    }

    /// Objects and bytes that are stored.
    pub(super) fn amount(&self) -> Amount {
        let mut amount = Amount::default();
        self.stored().for_each(|(_, bytes)| amount.add(bytes));
        amount
    }

    /// How many objects are named and not stored.
    pub(super) fn missing(&self) -> u64 {
        self.pieces.iter().filter(|piece| piece.stored.is_none()).count() as u64
    }

    /// One complete platform makes an image that can be pulled.
    pub(super) fn state(&self) -> State {
        let is = |state| self.platforms.iter().any(|platform| platform.state == state);
        if self.pieces.first().is_none_or(|root| root.stored.is_none()) {
            State::Absent
        } else if is(State::Complete) {
            State::Complete
        } else {
            State::Partial
        }
    }
}

// === impl Walk ===

impl Walk<'_> {
    fn manifest(&mut self, digest: Digest, depth: usize, place: Place) -> Result<(), Error> {
        if !self.entered.insert(digest) {
            return Ok(());
        }
        let body = match self.look(digest)? {
            Some(size) => {
                let body = self.catalogue.peek(&digest, self.max_manifest)?;
                body.map(|body| (size, body))
            }
            None => None,
        };
        let Some((size, body)) = body else {
            if let Place::Platform(platform) = place {
                let (state, bytes) = (State::Absent, 0);
                self.tree.platforms.push(Platform { platform, state, bytes, missing: 1 });
            }
            return Ok(());
        };
        let listed = children(&body);
        if listed.is_empty() {
            return self.image(&body, size, place);
        }
        if depth < DEEPEST {
            for child in listed {
                let place = Place::of(&child, &place);
                self.manifest(child.digest, depth + 1, place)?;
            }
        }
        Ok(())
    }

    /// A manifest without children: its config and layers.
    fn image(&mut self, body: &[u8], size: u64, place: Place) -> Result<(), Error> {
        let listed = blobs(body);
        let (mut bytes, mut missing) = (size, 0);
        for (digest, _) in &listed {
            match self.look(*digest)? {
                Some(size) => bytes += size,
                None => missing += 1,
            }
        }
        let platform = match place {
            Place::Hidden => return Ok(()),
            Place::Platform(Some(platform)) => Some(platform),
            // Nothing says what it is for but its config, which comes first.
            Place::Top | Place::Platform(None) => match listed.first() {
                Some((config, _)) => self.platform_of(config)?,
                None => None,
            },
        };
        let state = if missing == 0 { State::Complete } else { State::Partial };
        self.tree.platforms.push(Platform { platform, state, bytes, missing });
        Ok(())
    }

    /// The size of an object that is stored; it counts as a piece from now on.
    fn look(&mut self, digest: Digest) -> Result<Option<u64>, Error> {
        if let Some(stored) = self.seen.get(&digest) {
            return Ok(*stored);
        }
        if self.seen.len() >= MOST_PIECES {
            return Ok(None);
        }
        let stored = self.catalogue.object(&digest)?.map(|object| object.size);
        self.seen.insert(digest, stored);
        self.tree.pieces.push(Piece { digest, stored });
        Ok(stored)
    }

    fn platform_of(&self, config: &Digest) -> Result<Option<String>, Error> {
        #[derive(Deserialize)]
        struct Config {
            os: String,
            architecture: String,
            variant: Option<String>,
        }
        let Some(body) = self.catalogue.peek(config, CONFIG_BYTES)? else { return Ok(None) };
        let config = serde_json::from_slice::<Config>(&body).ok();
        Ok(config.map(|it| platform(&it.os, &it.architecture, it.variant.as_deref())))
    }
}

impl Place {
    /// The place of a child of an index that has the place `parent`.
    fn of(child: &Child, parent: &Self) -> Self {
        if child.is_attestation() || matches!(parent, Self::Hidden) {
            return Self::Hidden;
        }
        let named = child.platform.as_ref();
        Self::Platform(named.map(|(os, arch)| platform(os, arch, child.variant.as_deref())))
    }
}

fn platform(os: &str, architecture: &str, variant: Option<&str>) -> String {
    match variant {
        Some(variant) if !variant.is_empty() => format!("{os}/{architecture}/{variant}"),
        _ => format!("{os}/{architecture}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::testing::{Fake, Shape};

    const LIMIT: u64 = 1 << 22;

    #[test]
    fn an_image_is_followed_to_its_layers() {
        let fake = Fake::default();
        let digest = fake.image("docker.io", "library/a", "1", &Shape::new(&["base", "top"]));
        let tree = Tree::of(&fake, digest, LIMIT).unwrap();
        assert_eq!(tree.pieces.len(), 4, "manifest, config and two layers");
        assert_eq!((tree.state(), tree.missing()), (State::Complete, 0));
        assert_eq!(tree.platforms[0].platform.as_deref(), Some("linux/amd64"));
        assert_eq!(tree.platforms[0].bytes, tree.amount().bytes);
    }

    #[test]
    fn a_missing_layer_makes_it_partial_and_a_missing_manifest_absent() {
        let fake = Fake::default();
        let digest = fake.image("docker.io", "library/a", "1", &Shape::new(&["base", "top"]));
        fake.lose(b"top");
        let tree = Tree::of(&fake, digest, LIMIT).unwrap();
        assert_eq!((tree.state(), tree.missing()), (State::Partial, 1));
        fake.lose_digest(&digest);
        assert_eq!(Tree::of(&fake, digest, LIMIT).unwrap().state(), State::Absent);
    }

    #[test]
    fn an_index_is_complete_with_the_one_platform_that_was_pulled() {
        let fake = Fake::default();
        let amd64 = fake.manifest(&Shape::new(&["base"]));
        let arm64 = fake.manifest(&Shape::new(&["arm"]));
        fake.lose_digest(&arm64);
        let index = fake.index(&[(amd64, "amd64"), (arm64, "arm64"), (amd64, "amd64")]);
        let tree = Tree::of(&fake, index, LIMIT).unwrap();
        let states: Vec<_> = tree.platforms.iter().map(|it| it.state).collect();
        assert_eq!(states, [State::Complete, State::Absent]);
        assert_eq!((tree.state(), tree.missing()), (State::Complete, 1));
    }

    #[test]
    fn indexes_within_indexes_end_somewhere() {
        let fake = Fake::default();
        let mut digest = fake.manifest(&Shape::new(&["base"]));
        for _ in 0..10 {
            digest = fake.index(&[(digest, "amd64")]);
        }
        let tree = Tree::of(&fake, digest, LIMIT).unwrap();
        assert_eq!((tree.pieces.len(), tree.state()), (DEEPEST + 1, State::Partial));
    }
}

//! What an image consists of: from its tag over indexes down to its blobs.
//!
//! A tag is resolved as a client's HEAD would, which is free; what is not
//! cached is then fetched by its digest, which is counted, unless nothing is to
//! be spent. What can't be known so is told, with what it would cost.

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
};

use super::{Means, caller, job::Job, order::Order, report::ImageReport};
use crate::{
    inventory::ImageName,
    manifest::{Ask, Found, Manifest, Outcome, Served, Want},
    protocol::{
        Digest, Reference,
        accept::Accept,
        media_type::{ACCEPT_MANIFESTS, ManifestKind, blobs, children, foreign, kind_of},
        platform::label_of,
    },
    upstream::Upstream,
};

/// Manifests of one image.
const MOST_MANIFESTS: usize = 256;

/// Blobs of one image.
const MOST_BLOBS: usize = 2048;

/// Indexes in indexes.
const MOST_DEEP: usize = 3;

/// The blobs of an image, and what is wrong with the rest of it.
#[derive(Debug, Default)]
pub(super) struct Contents {
    /// Each digest once, with its size.
    pub(super) blobs: Vec<(Digest, u64)>,
    pub(super) problems: Vec<String>,
    seen: HashSet<Digest>,
}

/// One image, as it is looked at.
pub(super) struct Visit<'a> {
    pub(super) means: &'a Means,
    pub(super) job: &'a Job,
    pub(super) index: usize,
    ask: Ask,
}

/// A manifest, or what is known of it.
enum Got {
    Read(Manifest),
    /// It is not cached, and nothing may be spent on it.
    Unread {
        is_index: bool,
        /// No other image of the job has led to it.
        is_new: bool,
    },
}

/// A manifest to be looked at.
struct Open {
    got: Got,
    /// Indexes above it.
    depth: usize,
}

// === impl Visit ===

impl<'a> Visit<'a> {
    pub(super) fn new(
        means: &'a Means,
        job: &'a Job,
        index: usize,
        upstream: &Arc<Upstream>,
        name: &ImageName,
    ) -> Self {
        let ask = Ask {
            upstream: Arc::clone(upstream),
            repository: name.repository.clone(),
            want: Want::Ahead,
            caller: caller(upstream),
            client: None,
        };
        Self { means, job, index, ask }
    }

    /// All blobs that are wanted of the image.
    pub(super) async fn contents(&self, reference: &Reference) -> Result<Contents, String> {
        let (digest, got) = match reference {
            Reference::Tag(tag) => {
                let ask = Ask { want: Want::Head, ..self.ask.clone() };
                let accept = Accept::parse([ACCEPT_MANIFESTS]);
                let served = self.means.manifests.by_tag(&ask, tag, &accept).await;
                self.take(served.map_err(|error| error.to_string())?).await?
            }
            Reference::Digest(digest) => (*digest, self.manifest(*digest, None).await?),
        };
        self.say(|image| image.digest = Some(digest));
        let mut contents = Contents::default();
        let mut open = VecDeque::from([Open { got, depth: 0 }]);
        let mut looked_at = 0;
        while let Some(Open { got, depth }) = open.pop_front() {
            looked_at += 1;
            match got {
                Got::Unread { is_index, is_new } => self.estimate(is_index && is_new && depth == 0),
                Got::Read(manifest)
                    if kind_of(&manifest.media_type) != Some(ManifestKind::Index) =>
                {
                    self.list(&manifest, &mut contents)?;
                }
                Got::Read(_) if depth == MOST_DEEP => {
                    contents.problems.push("its indexes are nested too deeply".to_owned());
                }
                Got::Read(index) => {
                    let room = MOST_MANIFESTS.saturating_sub(looked_at + open.len());
                    let found = self.children(&index, depth, room, &mut contents).await?;
                    open.extend(found.into_iter().map(|got| Open { got, depth: depth + 1 }));
                }
            }
        }
        Ok(contents)
    }

    /// The manifest behind an answer to a HEAD.
    async fn take(&self, served: Served) -> Result<(Digest, Got), String> {
        self.count(&served);
        match served.found {
            Found::Whole(manifest) => Ok((manifest.digest, Got::Read(manifest))),
            Found::Described { digest, media_type, .. } => {
                Ok((digest, self.manifest(digest, Some(&media_type)).await?))
            }
        }
    }

    /// The manifest of a digest. What is known to this repository or any other costs nothing.
    async fn manifest(&self, digest: Digest, media_type: Option<&str>) -> Result<Got, String> {
        let is_index = media_type.and_then(kind_of) == Some(ManifestKind::Index);
        let is_known = self.is_known(digest).await;
        if !is_known && !self.order().reads {
            let is_new = self.job.counts(digest);
            self.say(|image| image.to_spend += u64::from(is_new));
            return Ok(Got::Unread { is_index, is_new });
        }
        let turn = self.job.turn(digest);
        let turn = if is_known { None } else { Some(turn.lock().await) };
        if turn.is_some() && !self.is_known(digest).await {
            self.heed_reserve()?;
        }
        // A dry run spends nothing even where what was there a moment ago is not any more.
        let want = if self.order().reads { Want::Ahead } else { Want::Head };
        let ask = Ask { want, ..self.ask.clone() };
        let served = self
            .means
            .manifests
            .by_digest(&ask, digest)
            .await
            .map_err(|error| error.to_string())?;
        self.count(&served);
        Ok(match served.found {
            Found::Whole(manifest) => Got::Read(manifest),
            Found::Described { .. } => Got::Unread { is_index, is_new: false },
        })
    }

    /// Whether it is stored, for this repository or another.
    async fn is_known(&self, digest: Digest) -> bool {
        let manifests = &self.means.manifests;
        manifests.cached(&self.ask, digest).await.is_some() || manifests.holds(digest).await
    }

    /// What is left above the reserve is for all; what is below it, for clients.
    fn heed_reserve(&self) -> Result<(), String> {
        let upstream = &self.ask.upstream;
        let outlook = upstream.outlook();
        if self.order().spend_reserve || !outlook.is_sparing {
            return Ok(());
        }
        let left = outlook
            .left
            .map_or_else(String::new, |(left, limit)| format!(", {left} of {limit} pulls,"));
        Err(format!(
            "what is left of the budget of {}{left} is kept for clients (budget.reserve: {}); warm \
             again once its window has ended, or with --spend-reserve",
            upstream.name(),
            upstream.config().budget.reserve
        ))
    }

    /// The children of an index that are wanted.
    async fn children(
        &self,
        index: &Manifest,
        depth: usize,
        room: usize,
        contents: &mut Contents,
    ) -> Result<Vec<Got>, String> {
        let all = children(&index.body);
        let there: Vec<_> =
            all.iter().filter(|it| !it.is_attestation()).filter_map(label_of).collect();
        let (chosen, missing) = self.order().platforms.choose(all);
        if chosen.is_empty() {
            let there = if there.is_empty() { "none".to_owned() } else { there.join(", ") };
            return Err(format!(
                "it has nothing for {}; there is {there}: name one with --platform",
                self.order().platforms
            ));
        }
        if depth == 0 && !missing.is_empty() {
            self.note(format!("it has nothing for {}", missing.join(", ")));
        }
        if chosen.len() > room {
            return Err(format!("it lists more than {MOST_MANIFESTS} manifests"));
        }
        let mut found = Vec::new();
        for child in chosen.into_iter().filter(|child| contents.seen.insert(child.digest)) {
            let label = label_of(&child).filter(|_| !child.is_attestation());
            match self.manifest(child.digest, Some(&child.media_type)).await {
                Ok(got) => {
                    self.say(|image| image.platforms.extend(label));
                    found.push(got);
                }
                // The other platforms are wanted all the same.
                Err(error) => {
                    let what = label.unwrap_or_else(|| child.digest.to_string());
                    contents.problems.push(format!("{what}: {error}"));
                }
            }
        }
        Ok(found)
    }

    /// Adds the blobs of an image manifest.
    fn list(&self, manifest: &Manifest, contents: &mut Contents) -> Result<(), String> {
        let elsewhere = foreign(&manifest.body);
        if !elsewhere.is_empty() {
            self.note(format!(
                "{} layers are elsewhere (urls), where clients fetch them by themselves",
                elsewhere.len()
            ));
        }
        for (digest, size) in blobs(&manifest.body) {
            if !elsewhere.contains(&digest) && contents.seen.insert(digest) {
                contents.blobs.push((digest, size));
            }
        }
        if contents.blobs.len() > MOST_BLOBS {
            return Err(format!("it has more than {MOST_BLOBS} layers"));
        }
        Ok(())
    }

    /// What a manifest that was not read may lead to.
    fn estimate(&self, has_children: bool) {
        let mut note = "how many bytes it has".to_owned();
        if has_children {
            match self.order().platforms.count() {
                Some(count) => self.say(|image| image.to_spend += count),
                None => note = "how many manifests and bytes it has".to_owned(),
            }
        }
        self.say(|image| image.is_estimate = true);
        self.note(format!("{note} is not known before it has been read (--read-manifests)"));
    }

    fn count(&self, served: &Served) {
        match served.outcome {
            Outcome::Fetched { collapsed: false } => self.say(|image| image.spent += 1),
            Outcome::Stale { why } => {
                self.note(format!("upstream was not asked what it names now ({why})"));
            }
            Outcome::Hit { .. } | Outcome::Validated { .. } | Outcome::Fetched { .. } => {}
        }
        if served.cooling {
            self.note("it has moved and cools: it is what clients get until then".to_owned());
        }
    }

    fn order(&self) -> &Order {
        &self.job.order
    }

    fn note(&self, note: String) {
        self.say(|image| {
            if !image.notes.contains(&note) {
                image.notes.push(note);
            }
        });
    }

    fn say(&self, change: impl FnOnce(&mut ImageReport)) {
        self.job.image(self.index, change);
    }
}

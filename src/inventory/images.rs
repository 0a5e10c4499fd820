//! Lists: images by tag, blobs by digest, both in pages.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use super::{
    BadReference, Blob, BlobPage, Error, Image, ImageName, ImagePage, Inventory, MOST_PER_PAGE,
    Pattern, catalogue::all_tags, seconds, tree::Tree,
};
use crate::{
    protocol::Digest,
    store::{ObjectInfo, TagKey, TagRecord},
};

/// Tags looked at for one page. A page of a pattern that matches little ends early instead of
/// keeping its asker waiting.
const MOST_SCANNED: usize = 20_000;

/// How long the making of a page goes on. It ends early then, too: what it lists is read from many
/// files.
pub(super) const PAGE_TIME: Duration = Duration::from_millis(80);

// === impl Inventory ===

impl Inventory {
    /// A page of the cached images that `matching` means, all if it is `None`; `after` is the
    /// `next` of the page before. Blocks.
    pub fn images(
        &self,
        matching: Option<&str>,
        after: Option<&str>,
        limit: usize,
    ) -> Result<ImagePage, Error> {
        let pattern = match matching {
            Some(text) => self.names.load().pattern(text)?,
            None => Pattern::everything(),
        };
        let after = after.map(cursor).transpose()?;
        let pins = self.pin_names()?;
        let limit = limit.clamp(1, MOST_PER_PAGE);
        let (mut images, mut last) = (Vec::new(), None);
        let deadline = Instant::now() + PAGE_TIME;
        for (scanned, row) in all_tags(&*self.catalogue, after).enumerate() {
            // Nothing is known of the next one yet, but that it is there.
            let is_late = last.is_some() && Instant::now() >= deadline;
            if images.len() == limit || scanned == MOST_SCANNED || is_late {
                return Ok(ImagePage { images, next: last });
            }
            let (key, record) = row?;
            // What upstream has no longer is kept for its cooldown, and no image.
            if pattern.matches(&key) && !record.is_gone() {
                images.push(self.image(&key, &record, &pins)?);
            }
            last = Some(ImageName::of_tag(&key).to_string());
        }
        Ok(ImagePage { images, next: None })
    }

    /// A page of the stored objects; `after` is the `next` of the page before. Blocks.
    pub fn blobs(&self, after: Option<&str>, limit: usize) -> Result<BlobPage, Error> {
        let after = after.map(|text| {
            let bad = |error| BadReference::new(text, error, "repeat `next` as it was given");
            Digest::parse(text).map_err(bad)
        });
        let limit = limit.clamp(1, MOST_PER_PAGE);
        let found = self.catalogue.objects(after.transpose()?.as_ref(), limit + 1)?;
        let mut blobs: Vec<_> = found.into_iter().map(blob).collect();
        let has_more = blobs.len() > limit;
        blobs.truncate(limit);
        let last = blobs.last().filter(|_| has_more);
        Ok(BlobPage { next: last.map(|last| last.digest.to_string()), blobs })
    }

    pub(super) fn image(
        &self,
        key: &TagKey,
        record: &TagRecord,
        pins: &HashSet<String>,
    ) -> Result<Image, Error> {
        let tree = Tree::of(&*self.catalogue, record.digest, self.max_manifest())?;
        let root = self.catalogue.object(&record.digest)?;
        let amount = tree.amount();
        let reference = ImageName::of_tag(key).to_string();
        Ok(Image {
            pinned: pins.contains(&reference),
            reference,
            upstream: key.upstream.to_string(),
            repository: key.repository.to_string(),
            tag: key.tag.to_string(),
            digest: record.digest,
            state: tree.state(),
            objects: amount.objects,
            bytes: amount.bytes,
            missing: tree.missing(),
            checked_at: (!record.is_doubted()).then(|| seconds(record.validated)),
            moved_at: seconds(record.moved),
            used_at: root.map(|root| seconds(root.used)),
            platforms: tree.platforms,
        })
    }
}

fn cursor(text: &str) -> Result<TagKey, BadReference> {
    let key = ImageName::parse_full(text).and_then(|name| name.tag_key());
    key.ok_or_else(|| {
        BadReference::new(text, "it is not a place in this list", "repeat `next` as it was given")
    })
}

fn blob(info: ObjectInfo) -> Blob {
    Blob {
        digest: info.digest,
        kind: info.kind.into(),
        bytes: info.size,
        used_at: seconds(info.used),
        pinned: info.is_pinned,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::testing::{Fake, Shape};

    fn stage() -> Inventory {
        let fake = Fake::default();
        for tag in ["1", "2", "3"] {
            fake.image("docker.io", "library/a", tag, &Shape::new(&["base", tag]));
            fake.image("ghcr.io", "org/b", tag, &Shape::new(&[tag]));
        }
        fake.inventory()
    }

    #[test]
    fn pages_follow_each_other_without_gap_or_double() {
        let inventory = stage();
        let mut after = None;
        let mut seen = Vec::new();
        loop {
            let page = inventory.images(None, after.as_deref(), 2).unwrap();
            assert!(page.images.len() <= 2);
            seen.extend(page.images.into_iter().map(|image| image.reference));
            let Some(next) = page.next else { break };
            after = Some(next);
        }
        let expected: Vec<_> = ["docker.io/library/a:", "ghcr.io/org/b:"]
            .iter()
            .flat_map(|name| ["1", "2", "3"].map(|tag| format!("{name}{tag}")))
            .collect();
        assert_eq!(seen, expected);
    }

    #[test]
    fn a_match_names_repositories_as_clients_do() {
        let inventory = stage();
        let matched = |text| {
            let page = inventory.images(Some(text), None, 100).unwrap();
            page.images.into_iter().map(|image| image.reference).collect::<Vec<_>>()
        };
        assert_eq!(matched("a:2"), ["docker.io/library/a:2"]);
        assert_eq!(matched("ghcr.io").len(), 3);
        assert_eq!(matched("**:3"), ["docker.io/library/a:3", "ghcr.io/org/b:3"]);
        assert!(inventory.images(None, Some("nowhere"), 2).is_err());
    }

    #[test]
    fn blobs_come_in_pages_too() {
        let inventory = stage();
        let all = inventory.blobs(None, 1000).unwrap();
        assert_eq!(all.next, None);
        let first = inventory.blobs(None, 3).unwrap();
        let rest = inventory.blobs(first.next.as_deref(), 1000).unwrap();
        assert_eq!([first.blobs, rest.blobs].concat(), all.blobs);
    }
}

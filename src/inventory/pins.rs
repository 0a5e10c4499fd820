//! Pins: images kept from eviction, by name.
//!
//! A pin keeps what its reference reaches at the time. A tag that moves later is
//! pinned anew by pinning it again.

use std::time::Instant;

use super::{
    Amount, Error, ImageName, Inventory, MOST_PER_PAGE, PinPage, PinReport, Pinned, Problem,
    UnpinReport, Wanted, images::PAGE_TIME, report::State, select::Asked, tree::Tree,
};
use crate::{
    protocol::{Digest, Reference},
    store,
};

// === impl Inventory ===

impl Inventory {
    /// Pins what `references` mean, each tag by its own name. Blocks.
    pub fn pin(&self, references: &[String]) -> Result<PinReport, Error> {
        let mut asked = self.read_references(references, false)?;
        let mut report = PinReport::default();
        for (key, record) in self.tags_of(&mut asked)? {
            let name = ImageName::of_tag(&key).to_string();
            // An image by digest is pinned by that name, not by those of its tags.
            if asked.iter().any(|asked| asked.is_by_tag() && asked.wanted.is_tag(&key, &record)) {
                self.pin_tree(name.clone(), name, record.digest, &mut report)?;
            }
        }
        for asked in &asked {
            let (name, digest) = match &asked.wanted {
                Wanted::Object(digest) => (digest.to_string(), *digest),
                Wanted::Image(name) => match name.reference {
                    Reference::Digest(digest) => (name.to_string(), digest),
                    Reference::Tag(_) if asked.is_found => continue,
                    Reference::Tag(_) => {
                        report.problems.push(asked.problem(NOT_CACHED));
                        continue;
                    }
                },
                Wanted::Tags(_) if asked.is_found => continue,
                Wanted::Tags(_) => {
                    report.problems.push(asked.problem(NOT_CACHED));
                    continue;
                }
            };
            self.pin_tree(asked.problem("").reference, name, digest, &mut report)?;
        }
        Ok(report)
    }

    /// Removes pins. Blocks.
    pub fn unpin(&self, references: &[String]) -> Result<UnpinReport, Error> {
        let asked = self.read_references(references, false)?;
        let mut report = UnpinReport::default();
        let names = self.catalogue.pins()?.into_iter().map(|pin| pin.name);
        let names: Vec<String> = names.collect();
        for asked in asked {
            let meant: Vec<_> = names.iter().filter(|name| asked.wanted.is_pin(name)).collect();
            if meant.is_empty() {
                let problem = "it is not pinned; `roadstead cache pin --list` shows what is";
                report.problems.push(asked.problem(problem));
            }
            for name in meant {
                if self.catalogue.unpin(name)? {
                    report.unpinned.push(name.clone());
                }
            }
        }
        Ok(report)
    }

    /// A page of the pins; `after` is the `next` of the page before. Blocks.
    pub fn pins(&self, after: Option<&str>, limit: usize) -> Result<PinPage, Error> {
        let mut all = self.catalogue.pins()?;
        all.retain(|pin| after.is_none_or(|after| pin.name.as_str() > after));
        all.sort_by(|a, b| a.name.cmp(&b.name));
        let limit = limit.clamp(1, MOST_PER_PAGE);
        let (deadline, count) = (Instant::now() + PAGE_TIME, all.len());
        let mut pins = Vec::new();
        for (number, pin) in all.into_iter().enumerate() {
            let name = pin.name.clone();
            pins.push(self.pinned(pin.name, &pin.digests)?);
            let is_over = pins.len() == limit || Instant::now() >= deadline;
            if is_over && number + 1 < count {
                return Ok(PinPage { pins, next: Some(name) });
            }
        }
        Ok(PinPage { pins, next: None })
    }

    fn pin_tree(
        &self,
        reference: String,
        name: String,
        root: Digest,
        report: &mut PinReport,
    ) -> Result<(), store::Error> {
        let tree = Tree::of(&*self.catalogue, root, self.max_manifest())?;
        if tree.state() == State::Absent {
            report.problems.push(Problem { reference, problem: NOT_CACHED.to_owned() });
            return Ok(());
        }
        // What is missing is pinned too: it counts once somebody pulls it.
        let digests: Vec<_> = tree.pieces.iter().map(|piece| piece.digest).collect();
        self.catalogue.pin(&name, &digests)?;
        tracing::info!(%name, objects = digests.len(), "pinned");
        report.pins.push(self.pinned(name, &digests)?);
        Ok(())
    }

    fn pinned(&self, name: String, digests: &[Digest]) -> Result<Pinned, store::Error> {
        let mut stored = Amount::default();
        for digest in digests {
            if let Some(object) = self.catalogue.object(digest)? {
                stored.add(object.size);
            }
        }
        let objects = digests.len() as u64;
        Ok(Pinned { name, objects, stored: stored.objects, bytes: stored.bytes })
    }
}

const NOT_CACHED: &str = "it is not cached; pull it through roadstead first";

// === impl Asked ===

impl Asked {
    fn is_by_tag(&self) -> bool {
        match &self.wanted {
            Wanted::Object(_) => false,
            Wanted::Image(name) => name.reference.tag().is_some(),
            Wanted::Tags(_) => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::inventory::testing::{Fake, Shape};

    fn texts(references: &[&str]) -> Vec<String> {
        references.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn an_image_is_pinned_whole_by_its_full_name() {
        let fake = Fake::default();
        fake.image("docker.io", "library/a", "1", &Shape::new(&["base", "one"]));
        fake.lose(b"one");
        let report = fake.inventory().pin(&texts(&["a:1", "b:1"])).unwrap();
        let pin = &report.pins[0];
        assert_eq!((&*pin.name, pin.objects, pin.stored), ("docker.io/library/a:1", 4, 3));
        assert_eq!(report.problems[0].reference, "b:1");
        assert_eq!(fake.inventory().pins(None, 10).unwrap().pins, report.pins);
        let images = fake.inventory().images(None, None, 10).unwrap().images;
        assert!(images[0].pinned);
    }

    #[test]
    fn patterns_pin_and_unpin_each_tag() {
        let fake = Fake::default();
        for tag in ["1", "2", "edge"] {
            fake.image("docker.io", "library/a", tag, &Shape::new(&["base", tag]));
        }
        let inventory = fake.inventory();
        assert_eq!(inventory.pin(&texts(&["a:[0-9]*"])).unwrap().pins.len(), 2);
        let report = inventory.unpin(&texts(&["a:2", "a:edge"])).unwrap();
        assert_eq!(report.unpinned, ["docker.io/library/a:2"]);
        assert_eq!(report.problems[0].reference, "a:edge");
        assert_eq!(inventory.unpin(&texts(&["**"])).unwrap().unpinned.len(), 1);
    }

    #[test]
    fn a_digest_pins_what_it_reaches_under_its_own_name() {
        let fake = Fake::default();
        let digest = fake.image("docker.io", "library/a", "1", &Shape::new(&["base"]));
        let layer = Fake::digest(b"base").to_string();
        let by_name = format!("a@{digest}");
        let report = fake.inventory().pin(&texts(&[&by_name, &layer])).unwrap();
        let names: Vec<_> = report.pins.iter().map(|pin| (&*pin.name, pin.objects)).collect();
        let full = format!("docker.io/library/a@{digest}");
        assert_eq!(names, [(&*full, 3), (&*layer, 1)]);
        assert_eq!(fake.inventory().unpin(&texts(&[&by_name, &layer])).unwrap().unpinned.len(), 2);
    }
}

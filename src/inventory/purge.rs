//! Purging: the plan of what goes, and its execution.
//!
//! A tag goes with the objects that no other cached tag and no pin needs. The
//! plan is made before anything is touched; a pull that meanwhile begins to need
//! an object which then goes fetches it again, as from any cache.

use std::collections::{HashMap, HashSet};

use super::{
    Amount, Done, Error, ImageName, Inventory, Problem, PurgeReport, PurgeRequest, Wanted,
    catalogue::all_tags,
    select::{Asked, is_pinned},
    tree::Tree,
};
use crate::{
    protocol::{Digest, Reference},
    store::{self, TagKey, TagRecord},
};

/// What goes and what stays.
#[derive(Debug, Default)]
struct Plan {
    tags: Vec<TagKey>,
    /// What the images that go reach, each before what it names.
    reached: Vec<Done>,
    /// Of these, what nothing else needs.
    free: HashSet<Digest>,
    /// Objects asked for by nothing but their digest: they go whoever needs them.
    alone: Vec<Done>,
    problems: Vec<Problem>,
}

// === impl Inventory ===

impl Inventory {
    /// Purges what `request` names, or only says what that would be. Blocks.
    pub fn purge(&self, request: &PurgeRequest) -> Result<PurgeReport, Error> {
        let asked = self.read_references(&request.references, request.all_tags)?;
        let plan = self.plan(asked)?;
        match request.dry_run {
            true => Ok(plan.report()),
            false => Ok(self.carry_out(plan)?),
        }
    }

    fn plan(&self, mut asked: Vec<Asked>) -> Result<Plan, store::Error> {
        let mut plan = Plan::default();
        let pins = self.pin_names()?;
        let mut roots = Vec::new();
        let mut going = HashSet::new();
        for (key, record) in self.tags_of(&mut asked)? {
            if pins.contains(&ImageName::of_tag(&key).to_string()) {
                plan.problems.push(is_pinned(&key));
                continue;
            }
            roots.extend(named_by(&record));
            going.insert(key.clone());
            plan.tags.push(key);
        }
        for asked in &asked {
            self.plan_digest(asked, &pins, &mut plan, &mut roots)?;
        }
        for root in roots {
            self.reach(root, &mut plan)?;
        }
        self.keep_what_others_need(&going, &mut plan)?;
        Ok(plan)
    }

    /// What is asked for by digest: an object, or an image that need not have a tag.
    fn plan_digest(
        &self,
        asked: &Asked,
        pins: &HashSet<String>,
        plan: &mut Plan,
        roots: &mut Vec<Digest>,
    ) -> Result<(), store::Error> {
        let digest = match &asked.wanted {
            Wanted::Object(digest) => digest,
            Wanted::Image(ImageName { reference: Reference::Digest(digest), .. }) => digest,
            _ if asked.is_found => return Ok(()),
            _ => {
                plan.problems.push(asked.problem(NOT_CACHED));
                return Ok(());
            }
        };
        let by_name = matches!(&asked.wanted, Wanted::Image(it) if pins.contains(&it.to_string()));
        match (self.catalogue.object(digest)?, &asked.wanted) {
            (None, _) if asked.is_found => {}
            (None, _) => plan.problems.push(asked.problem(NOT_CACHED)),
            (Some(object), wanted) => {
                let alone = matches!(wanted, Wanted::Object(_));
                if by_name || (alone && object.is_pinned) {
                    plan.problems.push(asked.problem("it is pinned; unpin it first"));
                } else if alone {
                    plan.alone.push(Done { digest: *digest, bytes: object.size });
                } else {
                    roots.push(*digest);
                }
            }
        }
        Ok(())
    }

    fn reach(&self, root: Digest, plan: &mut Plan) -> Result<(), store::Error> {
        if plan.free.contains(&root) {
            return Ok(());
        }
        for (digest, bytes) in Tree::of(&*self.catalogue, root, self.max_manifest())?.stored() {
            if plan.free.insert(digest) {
                plan.reached.push(Done { digest, bytes });
            }
        }
        Ok(())
    }

    /// Follows every tag that stays, until nothing is left that it could need.
    fn keep_what_others_need(
        &self,
        going: &HashSet<TagKey>,
        plan: &mut Plan,
    ) -> Result<(), store::Error> {
        for pin in self.catalogue.pins()? {
            plan.keep(pin.digests.iter());
        }
        let mut followed = HashSet::new();
        for row in all_tags(&*self.catalogue, None) {
            if plan.free.is_empty() {
                return Ok(());
            }
            let (key, record) = row?;
            if going.contains(&key) {
                continue;
            }
            for root in named_by(&record) {
                if followed.insert(root) {
                    let tree = Tree::of(&*self.catalogue, root, self.max_manifest())?;
                    plan.keep(tree.pieces.iter().map(|piece| &piece.digest));
                }
            }
        }
        Ok(())
    }

    /// Names go first: a crash in between leaves objects that nothing names, which are evicted
    /// in their time, and never a tag whose image is half gone.
    fn carry_out(&self, plan: Plan) -> Result<PurgeReport, store::Error> {
        let mut report = plan.report();
        let (tags, objects) = (plan.tags, std::mem::take(&mut report.objects));
        report.dry_run = false;
        report.tags.clear();
        for key in tags {
            if self.catalogue.purge_tag(&key)? {
                report.tags.push(ImageName::of_tag(&key).to_string());
            }
            if let Some(forget) = &self.forget {
                forget(&key);
            }
        }
        report.bytes = 0;
        for Done { digest, .. } in objects {
            if let Some(bytes) = self.catalogue.purge(&digest)? {
                report.bytes += bytes;
                report.objects.push(Done { digest, bytes });
            }
        }
        tracing::info!(
            tags = report.tags.len(),
            objects = report.objects.len(),
            bytes = report.bytes,
            "purged"
        );
        Ok(report)
    }
}

const NOT_CACHED: &str = "nothing is cached by this name; `roadstead cache ls` shows what is";

/// What a tag keeps: the image it names, and the one before, which stands in while the new one
/// can't be had.
fn named_by(record: &TagRecord) -> impl Iterator<Item = Digest> + use<> {
    [Some(record.digest), record.previous].into_iter().flatten()
}

// === impl Plan ===

impl Plan {
    fn keep<'a>(&mut self, needed: impl Iterator<Item = &'a Digest>) {
        for digest in needed {
            self.free.remove(digest);
        }
    }

    fn report(&self) -> PurgeReport {
        let mut kept = Amount::default();
        let mut objects: HashMap<Digest, u64> = HashMap::new();
        let mut in_order = Vec::new();
        let alone = self.alone.iter().map(|done| (done, true));
        let reached = self.reached.iter().map(|done| (done, self.free.contains(&done.digest)));
        for (done, goes) in alone.chain(reached) {
            match (goes, objects.contains_key(&done.digest)) {
                (_, true) => {}
                (false, false) => kept.add(done.bytes),
                (true, false) => {
                    objects.insert(done.digest, done.bytes);
                    in_order.push(done.clone());
                }
            }
        }
        PurgeReport {
            dry_run: true,
            tags: self.tags.iter().map(|key| ImageName::of_tag(key).to_string()).collect(),
            bytes: objects.values().sum(),
            objects: in_order,
            kept,
            problems: self.problems.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::inventory::testing::{Fake, Shape};

    fn request(references: &[&str]) -> PurgeRequest {
        let references = references.iter().map(|text| (*text).to_owned()).collect();
        PurgeRequest { references, ..PurgeRequest::default() }
    }

    /// Two images of one repository and one of another; all share `base`.
    fn stage() -> Fake {
        let fake = Fake::default();
        fake.image("docker.io", "library/a", "1", &Shape::new(&["base", "one"]));
        fake.image("docker.io", "library/a", "2", &Shape::new(&["base", "two"]));
        fake.image("ghcr.io", "org/b", "1", &Shape::new(&["base", "other"]));
        fake
    }

    #[test]
    fn a_tag_goes_with_what_no_other_tag_reaches() {
        let fake = stage();
        let report = fake.inventory().purge(&request(&["a:1"])).unwrap();
        assert_eq!(report.tags, ["docker.io/library/a:1"]);
        assert_eq!(report.objects.len(), 2, "its manifest and its own layer");
        assert_eq!(report.kept.objects, 2, "the config and the base stay");
        assert!(!report.dry_run && report.problems.is_empty());
        assert!(fake.has(b"base") && fake.has(b"two") && !fake.has(b"one"));
    }

    #[test]
    fn a_dry_run_says_the_same_and_touches_nothing() {
        let fake = stage();
        let mut request = request(&["a:1"]);
        request.dry_run = true;
        let planned = fake.inventory().purge(&request).unwrap();
        assert!(planned.dry_run && fake.has(b"one"));
        request.dry_run = false;
        let done = fake.inventory().purge(&request).unwrap();
        assert_eq!(PurgeReport { dry_run: false, ..planned }, done);
    }

    #[test]
    fn images_that_go_together_do_not_keep_each_other() {
        let fake = stage();
        let report = fake.inventory().purge(&request(&["**"])).unwrap();
        assert_eq!((report.tags.len(), report.kept.objects), (3, 0));
        assert!(!fake.has(b"base"));
        assert_eq!(fake.inventory().blobs(None, 10).unwrap().blobs, []);
    }

    #[test]
    fn all_tags_means_those_of_the_repository() {
        let fake = stage();
        let all = PurgeRequest { all_tags: true, ..request(&["a"]) };
        let report = fake.inventory().purge(&all).unwrap();
        assert_eq!(report.tags, ["docker.io/library/a:1", "docker.io/library/a:2"]);
        assert!(fake.has(b"base") && !fake.has(b"one") && !fake.has(b"two"));
    }

    #[test]
    fn a_digest_alone_is_one_object_whoever_needs_it() {
        let fake = stage();
        let base = Fake::digest(b"base").to_string();
        let report = fake.inventory().purge(&request(&[&base])).unwrap();
        assert_eq!((report.objects.len(), report.bytes, report.tags.len()), (1, 4, 0));
        assert!(!fake.has(b"base") && fake.has(b"one"));
    }

    #[test]
    fn a_repository_with_a_digest_is_the_image_with_its_tags() {
        let fake = stage();
        let digest = fake.image("docker.io", "library/a", "same", &Shape::new(&["base", "one"]));
        let report = fake.inventory().purge(&request(&[&format!("a@{digest}")])).unwrap();
        assert_eq!(report.tags, ["docker.io/library/a:1", "docker.io/library/a:same"]);
        assert!(!fake.has(b"one") && fake.has(b"base"));
    }

    #[test]
    fn what_a_tag_named_before_stays_with_it_and_goes_with_it() {
        let fake = stage();
        let old = fake.manifest(&Shape::new(&["base", "old"]));
        fake.previous("docker.io", "library/a", "2", old);
        fake.image("docker.io", "library/a", "3", &Shape::new(&["base", "old"]));
        fake.inventory().purge(&request(&["a:3"])).unwrap();
        assert!(fake.has(b"old"));
        fake.inventory().purge(&request(&["a:2"])).unwrap();
        assert!(!fake.has(b"old") && fake.has(b"base"));
    }

    #[test]
    fn what_is_pinned_stays_until_it_is_unpinned() {
        let fake = stage();
        let inventory = fake.inventory();
        inventory.pin(&["a:1".to_owned()]).unwrap();
        let report = inventory.purge(&request(&["a:*"])).unwrap();
        assert_eq!(report.tags, ["docker.io/library/a:2"]);
        assert_eq!(report.problems[0].reference, "docker.io/library/a:1");
        assert!(fake.has(b"one") && fake.has(b"base"));
        let layer = Fake::digest(b"one").to_string();
        assert_eq!(inventory.purge(&request(&[&layer])).unwrap().problems.len(), 1);
        inventory.unpin(&["a:1".to_owned()]).unwrap();
        assert_eq!(inventory.purge(&request(&["a:1"])).unwrap().problems, []);
        assert!(!fake.has(b"one"));
    }

    #[test]
    fn what_is_not_cached_is_told_and_what_cannot_be_read_touches_nothing() {
        let fake = stage();
        let report = fake.inventory().purge(&request(&["a:1", "nothing:1"])).unwrap();
        assert_eq!(report.problems[0].reference, "nothing:1");
        assert_eq!(report.tags.len(), 1);
        let error = fake.inventory().purge(&request(&["a:2", "Not A Name"])).unwrap_err();
        assert!(matches!(error, Error::BadReference(_)));
        assert!(fake.has(b"two"));
        assert!(fake.inventory().purge(&request(&[])).is_err());
    }

    #[test]
    fn who_keeps_tags_in_memory_is_told_to_forget() {
        let told: Arc<Mutex<Vec<String>>> = Arc::default();
        let forgotten = Arc::clone(&told);
        let inventory = stage().inventory().with_forget(move |key| {
            forgotten.lock().unwrap().push(ImageName::of_tag(key).to_string());
        });
        inventory.purge(&request(&["a:2"])).unwrap();
        assert_eq!(*told.lock().unwrap(), ["docker.io/library/a:2"]);
    }
}

//! References against what is cached: which tags are meant, and what is wrong with the rest.

use std::collections::HashSet;

use super::{
    BadReference, Error, ImageName, Inventory, MOST_REFERENCES, Problem, Wanted,
    catalogue::all_tags,
};
use crate::store::{self, TagKey, TagRecord};

/// A reference, as it was written and as it is read.
pub(super) struct Asked {
    text: String,
    pub(super) wanted: Wanted,
    /// Something of it was found.
    pub(super) is_found: bool,
}

// === impl Inventory ===

impl Inventory {
    /// Reads references; the first that can't be read ends it.
    pub(super) fn read_references(
        &self,
        references: &[String],
        all_tags: bool,
    ) -> Result<Vec<Asked>, BadReference> {
        let remedy = "name an image, a digest or a pattern";
        if references.is_empty() {
            return Err(BadReference::new("", "there is no reference", remedy));
        }
        if references.len() > MOST_REFERENCES {
            let problem = format!("there are more than {MOST_REFERENCES} references");
            return Err(BadReference::new("...", problem, "write a pattern, or do it in steps"));
        }
        let read = |text: &String| {
            let wanted = match all_tags {
                true => Wanted::Tags(self.names.load().all_tags(text)?),
                false => self.names.load().resolve(text)?,
            };
            Ok(Asked { text: text.clone(), wanted, is_found: false })
        };
        references.iter().map(read).collect()
    }

    /// Every cached tag that one of `asked` means.
    pub(super) fn tags_of(
        &self,
        asked: &mut [Asked],
    ) -> Result<Vec<(TagKey, TagRecord)>, store::Error> {
        let mut found = Vec::new();
        if !asked.iter().any(|asked| !matches!(asked.wanted, Wanted::Object(_))) {
            return Ok(found);
        }
        for row in all_tags(&*self.catalogue, None) {
            let (key, record) = row?;
            if record.is_gone() {
                continue;
            }
            let mut is_meant = false;
            for asked in &mut *asked {
                if asked.wanted.is_tag(&key, &record) {
                    asked.is_found = true;
                    is_meant = true;
                }
            }
            if is_meant {
                found.push((key, record));
            }
        }
        Ok(found)
    }

    /// The cached tags that `references` mean, and what is wrong with the rest of them. Blocks.
    pub fn tags_meant(&self, references: &[String]) -> Result<(Vec<TagKey>, Vec<Problem>), Error> {
        let mut asked = self.read_references(references, false)?;
        let keys = self.tags_of(&mut asked)?.into_iter().map(|(key, _)| key).collect();
        let problems = asked.iter().filter(|asked| !asked.is_found).map(|asked| {
            asked.problem(match asked.wanted {
                Wanted::Object(_) => "a digest names the same for ever; name a tag",
                Wanted::Image(_) | Wanted::Tags(_) => "no such tag is cached; pull it first",
            })
        });
        Ok((keys, problems.collect()))
    }

    /// The names of all pins.
    pub(super) fn pin_names(&self) -> Result<HashSet<String>, store::Error> {
        Ok(self.catalogue.pins()?.into_iter().map(|pin| pin.name).collect())
    }
}

// === impl Asked ===

impl Asked {
    pub(super) fn problem(&self, problem: impl Into<String>) -> Problem {
        Problem { reference: self.text.clone(), problem: problem.into() }
    }
}

/// The problem of a tag that a pin keeps.
pub(super) fn is_pinned(key: &TagKey) -> Problem {
    let problem = "it is pinned; unpin it first".to_owned();
    Problem { reference: ImageName::of_tag(key).to_string(), problem }
}

//! Repositories by name, and the tags of one: both in pages that end when their time is up.

use std::time::Instant;

use super::{
    BadReference, Error, Freshness, Inventory, MOST_PER_PAGE, RepositoryInfo, RepositoryPage,
    TagInfo, TagPage, catalogue::all_repositories, images::PAGE_TIME, names::Search, seconds,
};
use crate::{
    protocol::Repository,
    store::{Share, TagKey, TagRecord},
};

/// Names looked at for one page.
const MOST_SCANNED: usize = 20_000;

/// Tags and objects that are counted of one repository.
const MOST_COUNTED: usize = 10_000;

/// What a wrong `after` should have been.
const REPEAT: &str = "repeat `next` as it was given";

// === impl Inventory ===

impl Inventory {
    /// A page of the repositories that `matching` means, all if it is `None`: a glob, or a part of
    /// their full names. `after` is the `next` of the page before. Blocks.
    pub fn repositories(
        &self,
        matching: Option<&str>,
        after: Option<&str>,
        limit: usize,
    ) -> Result<RepositoryPage, Error> {
        let search = matching.map(|text| self.names.load().search(text)).transpose()?;
        let after = match after {
            Some(text) => Some(split(text).ok_or_else(|| {
                BadReference::new(text, "it is not a place in this list", REPEAT)
            })?),
            None => None,
        };
        let limit = limit.clamp(1, MOST_PER_PAGE);
        let deadline = Instant::now() + PAGE_TIME;
        let (mut repositories, mut last) = (Vec::new(), None);
        for (scanned, name) in all_repositories(&*self.catalogue, after).enumerate() {
            let is_late = last.is_some() && Instant::now() >= deadline;
            if repositories.len() == limit || scanned == MOST_SCANNED || is_late {
                return Ok(RepositoryPage { repositories, next: last });
            }
            let (upstream, name) = name?;
            if search.as_ref().is_none_or(|search: &Search| search.matches(&upstream, &name))
                && let Ok(repository) = Repository::parse(&name)
            {
                repositories.push(self.repository(&upstream, &repository)?);
            }
            last = Some(format!("{upstream}/{name}"));
        }
        Ok(RepositoryPage { repositories, next: None })
    }

    /// A page of the tags of the repository that `name` means; `freshness` judges each. Blocks.
    pub fn tags(
        &self,
        name: &str,
        after: Option<&str>,
        limit: usize,
        freshness: impl Fn(&TagKey, &TagRecord) -> Freshness,
    ) -> Result<TagPage, Error> {
        let (upstream, repository) = self.named(name)?;
        let limit = limit.clamp(1, MOST_PER_PAGE);
        let deadline = Instant::now() + PAGE_TIME;
        let pins = self.pin_names()?;
        let rows =
            self.catalogue.tags_in(&upstream, &repository, after.unwrap_or_default(), limit + 1)?;
        let (count, mut tags, mut next) = (rows.len(), Vec::new(), None);
        for (number, (tag, record)) in rows.into_iter().enumerate() {
            let name = tag.as_str().to_owned();
            let key =
                TagKey { upstream: upstream.as_str().into(), repository: repository.clone(), tag };
            let image = self.image(&key, &record, &pins)?;
            tags.push(TagInfo { image, freshness: freshness(&key, &record) });
            let is_over = tags.len() == limit || Instant::now() >= deadline;
            if is_over && number + 1 < count {
                next = Some(name);
                break;
            }
        }
        let repository = self.repository(&upstream, &repository)?;
        Ok(TagPage { repository, tags, next })
    }

    fn repository(&self, upstream: &str, repository: &Repository) -> Result<RepositoryInfo, Error> {
        let share = self.catalogue.share(upstream, repository, MOST_COUNTED)?;
        let Share { tags, objects, bytes, used, at_least } = share;
        let (upstream, repository) = (upstream.to_owned(), repository.to_string());
        let used_at = used.map(seconds);
        Ok(RepositoryInfo { upstream, repository, tags, objects, bytes, used_at, at_least })
    }

    /// The repository that `name` means: as clients write it, or in full, of an upstream that is
    /// configured no more.
    fn named(&self, name: &str) -> Result<(String, Repository), Error> {
        let wrong = match self.names.load().repository(name) {
            Ok((upstream, repository)) => return Ok((upstream.to_string(), repository)),
            Err(wrong) => wrong,
        };
        let Some((upstream, rest)) = split(name) else { return Err(wrong.into()) };
        let Ok(repository) = Repository::parse(&rest) else { return Err(wrong.into()) };
        match self.catalogue.share(&upstream, &repository, 1)? {
            Share { tags: 0, objects: 0, .. } => Err(wrong.into()),
            _ => Ok((upstream, repository)),
        }
    }
}

/// A full name in its parts.
fn split(name: &str) -> Option<(String, String)> {
    let (upstream, repository) = name.split_once('/')?;
    Some((upstream.to_owned(), repository.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::{
        FreshnessState,
        testing::{Fake, Shape},
    };

    fn stage() -> (Fake, Inventory) {
        let fake = Fake::default();
        for tag in ["1", "2", "3"] {
            fake.image("docker.io", "library/alpine", tag, &Shape::new(&["base", tag]));
        }
        fake.image("ghcr.io", "org/app", "1", &Shape::new(&["app"]));
        fake.image("gone.example", "org/old", "1", &Shape::new(&["app"]));
        let inventory = fake.inventory();
        (fake, inventory)
    }

    fn names(page: &RepositoryPage) -> Vec<String> {
        let name = |it: &RepositoryInfo| format!("{}/{}", it.upstream, it.repository);
        page.repositories.iter().map(name).collect()
    }

    const ALL: [&str; 3] = ["docker.io/library/alpine", "ghcr.io/org/app", "gone.example/org/old"];

    #[test]
    fn repositories_come_in_pages_without_gap_or_double() {
        let (_, inventory) = stage();
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let page = inventory.repositories(None, after.as_deref(), 1).unwrap();
            seen.extend(names(&page));
            let Some(next) = page.next else { break };
            after = Some(next);
        }
        assert_eq!(seen, ALL);
        let page = inventory.repositories(None, None, 10).unwrap();
        let alpine = &page.repositories[0];
        assert_eq!((alpine.tags, alpine.objects, alpine.at_least), (3, 8, false));
        assert!(inventory.repositories(None, Some("nowhere"), 1).is_err());
    }

    #[test]
    fn a_search_is_a_part_of_a_name_or_a_glob() {
        let (_, inventory) = stage();
        for (text, expected) in [
            ("ALP", &ALL[..1]),
            ("io/", &ALL[..2]),
            ("org", &ALL[1..]),
            ("ghcr.io/**", &ALL[1..2]),
            ("alp*", &ALL[..1]),
            ("**/old", &ALL[2..]),
            ("nothing", &[]),
        ] {
            let page = inventory.repositories(Some(text), None, 10).unwrap();
            assert_eq!(names(&page), expected, "{text}");
        }
        assert!(inventory.repositories(Some("a["), None, 10).is_err());
    }

    #[test]
    fn tags_of_one_repository_come_with_their_freshness() {
        let (_, inventory) = stage();
        let fresh = Freshness {
            state: FreshnessState::Fresh,
            age: Some(1),
            fresh_for: None,
            immutable: true,
        };
        let tags = |name: &str, after: Option<&str>| {
            let page = inventory.tags(name, after, 2, |_, _| fresh)?;
            assert!(page.tags.iter().all(|tag| tag.freshness == fresh));
            let tags: Vec<_> = page.tags.into_iter().map(|tag| tag.image.tag).collect();
            Ok::<_, Error>((tags.join(","), page.next))
        };
        assert_eq!(tags("alpine", None).unwrap(), ("1,2".to_owned(), Some("2".to_owned())));
        assert_eq!(tags(ALL[0], Some("2")).unwrap(), ("3".to_owned(), None));
        assert_eq!(tags("gone.example/org/old", None).unwrap(), ("1".to_owned(), None));
        assert_eq!(tags("busybox", None).unwrap(), (String::new(), None));
        for wrong in ["", "alpine:1", "alp*", "nowhere.example/a", "Alpine"] {
            assert!(tags(wrong, None).is_err(), "{wrong}");
        }
    }
}

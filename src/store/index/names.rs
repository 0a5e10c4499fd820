//! What the index knows of one upstream and of one repository, by name.

use std::collections::BTreeSet;

use redb::{ReadTransaction, ReadableDatabase, ReadableTable};

use super::{
    BLOBS, Bytes, Index, LINKS, TAGS,
    record::{BlobRecord, LinkKey, TagKey, TagRecord, digest_key},
};
use crate::{
    protocol::{Repository, Tag},
    store::{Error, catalogue::Share},
};

/// Behind every key of a name, and before those of the names that it begins.
const BEHIND: &str = "\u{1}";

// === impl Index ===

impl Index {
    /// Up to `count` names of an upstream's repositories that are known to have something, in order,
    /// behind `after`. A tag alone does not count: it may have been pushed by one who sees more than
    /// others.
    pub(in crate::store) fn repositories(
        &self,
        upstream: &str,
        after: &str,
        count: usize,
    ) -> Result<Vec<String>, Error> {
        let transaction: ReadTransaction = self.database.begin_read()?;
        let names = names_in(&transaction.open_table(LINKS)?, upstream, after, count)?;
        Ok(names.into_iter().collect())
    }

    /// Up to `count` tags of a repository, in order, behind `after`.
    pub(in crate::store) fn tags_of(
        &self,
        upstream: &str,
        repository: &Repository,
        after: &str,
        count: usize,
    ) -> Result<Vec<(Tag, TagRecord)>, Error> {
        let table = self.database.begin_read()?.open_table(TAGS)?;
        let prefix = format!("{upstream}\0{repository}\0");
        let first = format!("{prefix}{after}");
        let mut found = Vec::new();
        for row in table.range(first.as_bytes()..)? {
            let (key, value) = row?;
            if found.len() == count || !key.value().starts_with(prefix.as_bytes()) {
                break;
            }
            let tag = TagKey::decode(key.value()).map(|key| key.tag);
            let tag = tag.filter(|tag| tag.as_str() > after);
            found.extend(tag.zip(TagRecord::decode(value.value())));
        }
        Ok(found)
    }
}

// === impl Index: every upstream ===

impl Index {
    /// Up to `count` repositories of every upstream, with its name, that have links or tags, in
    /// order, behind `after`.
    pub(in crate::store) fn all_repositories(
        &self,
        after: Option<(&str, &str)>,
        count: usize,
    ) -> Result<Vec<(String, String)>, Error> {
        let transaction: ReadTransaction = self.database.begin_read()?;
        let mut names = owned_names_in(&transaction.open_table(LINKS)?, after, count)?;
        names.append(&mut owned_names_in(&transaction.open_table(TAGS)?, after, count)?);
        Ok(names.into_iter().take(count).collect())
    }

    /// What a repository has, counting up to `most` rows of each kind.
    pub(in crate::store) fn share(
        &self,
        upstream: &str,
        repository: &Repository,
        most: usize,
    ) -> Result<Share, Error> {
        let transaction: ReadTransaction = self.database.begin_read()?;
        let (links, tags) = (transaction.open_table(LINKS)?, transaction.open_table(TAGS)?);
        let blobs = transaction.open_table(BLOBS)?;
        let prefix = format!("{upstream}\0{repository}\0");
        let mut share = Share::default();
        let is_its = |key: &[u8]| key.starts_with(prefix.as_bytes());
        for (number, row) in tags.range(prefix.as_bytes()..)?.enumerate() {
            let (key, value) = row?;
            if !is_its(key.value()) {
                break;
            }
            if number == most {
                share.at_least = true;
                break;
            }
            let is_there = TagRecord::decode(value.value()).is_some_and(|tag| !tag.is_gone());
            share.tags += u64::from(is_there);
        }
        for (number, row) in links.range(prefix.as_bytes()..)?.enumerate() {
            let (key, _) = row?;
            if !is_its(key.value()) {
                break;
            }
            if number == most {
                share.at_least = true;
                break;
            }
            let Some(key) = LinkKey::decode(key.value()) else { continue };
            // A link outlives the object that it was made for.
            let Some(record) = blobs.get(digest_key(&key.digest).as_slice())? else { continue };
            let Some(record) = BlobRecord::decode(record.value()) else { continue };
            share.objects += 1;
            share.bytes += record.size;
            share.used = share.used.max(Some(record.used()));
        }
        Ok(share)
    }
}

/// Goes from name to name, whoever owns it, however many rows each has.
fn owned_names_in(
    table: &impl ReadableTable<Bytes, Bytes>,
    after: Option<(&str, &str)>,
    count: usize,
) -> Result<BTreeSet<(String, String)>, Error> {
    let mut names = BTreeSet::new();
    let behind = |owner: &str, name: &str| format!("{owner}\0{name}{BEHIND}");
    let mut first = after.map(|(owner, name)| behind(owner, name)).unwrap_or_default();
    while names.len() < count {
        let Some(row) = table.range(first.as_bytes()..)?.next() else { break };
        let (key, _) = row?;
        let Ok(key) = std::str::from_utf8(key.value()) else { break };
        let mut parts = key.splitn(3, '\0');
        let (Some(owner), Some(name)) = (parts.next(), parts.next()) else { break };
        first = behind(owner, name);
        names.insert((owner.to_owned(), name.to_owned()));
    }
    Ok(names)
}

/// Goes from name to name, however many rows each has.
fn names_in(
    table: &impl ReadableTable<Bytes, Bytes>,
    upstream: &str,
    after: &str,
    count: usize,
) -> Result<BTreeSet<String>, Error> {
    let mut names = BTreeSet::new();
    let mut first = match after {
        "" => format!("{upstream}\0"),
        after => format!("{upstream}\0{after}{BEHIND}"),
    };
    while names.len() < count {
        let Some(row) = table.range(first.as_bytes()..)?.next() else { break };
        let (key, _) = row?;
        let mut parts = key.value().splitn(3, |byte| *byte == 0);
        let (Some(owner), Some(name)) = (parts.next(), parts.next()) else { break };
        let Ok(name) = std::str::from_utf8(name) else { break };
        if owner != upstream.as_bytes() {
            break;
        }
        first = format!("{upstream}\0{name}{BEHIND}");
        names.insert(name.to_owned());
    }
    Ok(names)
}

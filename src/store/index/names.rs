//! What the index knows of one upstream and of one repository, by name.

use std::collections::BTreeSet;

use redb::{ReadTransaction, ReadableDatabase, ReadableTable};

use super::{Bytes, Index, LINKS, TAGS, record::TagKey, record::TagRecord};
use crate::{
    protocol::{Repository, Tag},
    store::Error,
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

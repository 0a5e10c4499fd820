//! The scrub: published files are read again, slowly and for ever, and those
//! that are not what their name says are set aside.
//!
//! It begins with the files that the index misses, and ends each pass by
//! forgetting links and tags that lead nowhere. Where it stopped is remembered.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    sync::{Weak, atomic::Ordering},
    time::{Duration, Instant, SystemTime},
};

use rustix::fs::{Advice, fadvise};

use super::{
    Error, Store,
    index::{Index, TagRecord},
    keeper::Signal,
    recovery,
};
use crate::{
    metrics,
    protocol::{Digest, Hasher},
};

/// Read at a time; the rate is kept in steps of this.
const STEP_BYTES: usize = 256 * 1024;

/// A pass begins at most this often.
const PASS_EVERY: Duration = Duration::from_secs(24 * 60 * 60);

/// After the start, clients come first.
const BEGIN_AFTER: Duration = Duration::from_secs(5);

/// Rows looked at in one step.
const PAGE: usize = 256;

/// A tag that leads nowhere is forgotten once it was not asked for this long.
const TAG_IDLE: Duration = Duration::from_secs(24 * 60 * 60);

/// One that upstream has no more is remembered so long for what it named: longer than tags cool.
const GONE_IDLE: Duration = Duration::from_secs(90 * 24 * 60 * 60);

/// The note of the digest up to which a pass has come.
const NOTE: &str = "scrub";

/// A file that is read at a limited rate.
struct Slowly<'a> {
    signal: &'a Signal,
    store: &'a Weak<Store>,
}

/// Why a step of the scrub did not end well.
enum Ended {
    /// The store is closing.
    Stopped,
    /// It was switched off.
    Off,
    Failed(Error),
}

impl<E: Into<Error>> From<E> for Ended {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// The thread's life.
pub(super) fn run(store: &Weak<Store>, signal: &Signal) {
    if !signal.wait(BEGIN_AFTER, false) {
        return;
    }
    let mut is_first = true;
    loop {
        let started = Instant::now();
        if has_strays(store) || is_first {
            is_first = false;
            if matches!(adopt_all(store, signal), Err(Ended::Stopped)) {
                return;
            }
        }
        match pass(store, signal) {
            Err(Ended::Stopped) => return,
            Err(Ended::Failed(error)) => tracing::debug!(%error, "the scrub was interrupted"),
            Err(Ended::Off) | Ok(()) => {}
        }
        let was_off = rate(store) == 0;
        let is_on_again = || was_off && rate(store) > 0;
        while started.elapsed() < PASS_EVERY && !may_have_strays(store) && !is_on_again() {
            if !signal.wait(BEGIN_AFTER, false) {
                return;
            }
        }
    }
}

fn rate(store: &Weak<Store>) -> u64 {
    store.upgrade().map_or(0, |store| store.scrub_rate.load(Ordering::Relaxed))
}

fn may_have_strays(store: &Weak<Store>) -> bool {
    store.upgrade().is_some_and(|store| store.has_strays.load(Ordering::Acquire))
}

fn has_strays(store: &Weak<Store>) -> bool {
    store.upgrade().is_some_and(|store| store.has_strays.swap(false, Ordering::AcqRel))
}

/// Adopts the published files that the index misses.
fn adopt_all(store: &Weak<Store>, signal: &Signal) -> Result<(), Ended> {
    let shards: Vec<_> = upgraded(store)?.layout.shards().collect();
    for (algorithm, shard) in shards {
        if !signal.wait(Duration::ZERO, false) {
            return Err(Ended::Stopped);
        }
        let store = upgraded(store)?;
        let go_on = || signal.wait(Duration::ZERO, false);
        let adopt = |digest: &Digest| recovery::adopt(&store, digest, &go_on).map(drop);
        let found = recovery::unrecorded(&store, algorithm, &shard);
        if let Err(error) = found.and_then(|found| found.iter().try_for_each(adopt)) {
            tracing::warn!(shard = %shard.display(), %error, "files there were passed over");
        }
    }
    // What is left of those that were counted has gone meanwhile.
    upgraded(store)?.found_stray(u64::MAX);
    Ok(())
}

fn pass(weak: &Weak<Store>, signal: &Signal) -> Result<(), Ended> {
    if rate(weak) > 0 {
        let slowly = Slowly { signal, store: weak };
        let store = upgraded(weak)?;
        let mut after = noted(&store)?;
        drop(store);
        loop {
            let objects = upgraded(weak)?.objects(after.as_ref(), PAGE)?;
            let Some(last) = objects.last() else { break };
            after = Some(last.digest);
            for object in objects {
                let store = upgraded(weak)?;
                scrub(&store, &object.digest, &slowly)?;
                store.index()?.keep_note(NOTE, object.digest.to_string().into_bytes());
            }
        }
        upgraded(weak)?.index()?.keep_note(NOTE, Vec::new());
    }
    let store = upgraded(weak)?;
    sweep_links(&store, signal)?;
    sweep_tags(&store, signal)
}

fn upgraded(store: &Weak<Store>) -> Result<std::sync::Arc<Store>, Ended> {
    store.upgrade().ok_or(Ended::Stopped)
}

fn noted(store: &Store) -> Result<Option<Digest>, Error> {
    let note = store.index()?.note(NOTE)?.unwrap_or_default();
    Ok(std::str::from_utf8(&note).ok().and_then(|text| Digest::parse(text).ok()))
}

fn scrub(store: &Store, digest: &Digest, slowly: &Slowly<'_>) -> Result<(), Ended> {
    let file = match File::open(store.layout.blob(digest)) {
        // Evicted since it was listed; if not, whoever asks for it finds out.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        // It must not keep the scrub from what comes behind it.
        Err(error) => {
            tracing::warn!(%digest, %error, "an object could not be checked");
            return Ok(());
        }
        Ok(file) => file,
    };
    let is_open = store.open.get(digest).is_some();
    let problem = match slowly.hash(&file, digest)? {
        Ok(found) if found == *digest => None,
        Ok(found) => Some(format!("its bytes have the digest {found}")),
        Err(error) => Some(format!("it can't be read: {error}")),
    };
    if !is_open {
        // What nobody reads should not push out of memory what is read. Advice may be refused.
        let _ = fadvise(&file, 0, None, Advice::DontNeed);
    }
    if let Some(problem) = problem {
        store.set_aside(*digest, &problem);
    }
    Ok(())
}

/// Forgets what repositories had that is no longer stored; to learn it again costs a free HEAD.
fn sweep_links(store: &Store, signal: &Signal) -> Result<(), Ended> {
    let mut after = None;
    loop {
        let index = store.index()?;
        let links = index.links(after.as_ref(), PAGE)?;
        let Some((last, _)) = links.last() else { return Ok(()) };
        after = Some(last.clone());
        let mut gone = Vec::new();
        for (key, _) in links {
            if index.blob(&key.digest)?.is_none() && !store.partials.is_claimed(&key.digest) {
                gone.push(key);
            }
        }
        if !gone.is_empty() {
            index.unlink(gone)?;
        }
        if !signal.wait(Duration::from_millis(10), false) {
            return Err(Ended::Stopped);
        }
    }
}

/// Forgets tags whose manifests are gone and that nobody has asked for lately.
fn sweep_tags(store: &Store, signal: &Signal) -> Result<(), Ended> {
    let mut after = None;
    loop {
        let index = store.index()?;
        let tags = index.tags(after.as_ref(), PAGE)?;
        let Some((last, _)) = tags.last() else { return Ok(()) };
        after = Some(last.clone());
        for (key, record) in tags {
            if is_idle(&record, SystemTime::now())
                && is_gone(&index, Some(&record.digest))?
                && is_gone(&index, record.previous.as_ref())?
            {
                index.purge_tag(key)?;
            }
        }
        if !signal.wait(Duration::from_millis(10), false) {
            return Err(Ended::Stopped);
        }
    }
}

/// Whether nobody has asked for the tag lately.
fn is_idle(record: &TagRecord, now: SystemTime) -> bool {
    let idle = now.duration_since(record.last_heard()).unwrap_or_default();
    idle > if record.is_gone() { GONE_IDLE } else { TAG_IDLE }
}

fn is_gone(index: &Index, digest: Option<&Digest>) -> Result<bool, Error> {
    match digest {
        Some(digest) => Ok(index.blob(digest)?.is_none()),
        None => Ok(true),
    }
}

// === impl Slowly ===

impl Slowly<'_> {
    /// The digest of a file's bytes, or why it can't be read.
    fn hash(&self, file: &File, like: &Digest) -> Result<io::Result<Digest>, Ended> {
        let mut hasher = Hasher::new(like.algorithm());
        let mut buffer = vec![0; STEP_BYTES];
        let mut at = 0;
        loop {
            let read = match file.read_at(&mut buffer, at) {
                Ok(0) => return Ok(Ok(hasher.finish())),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Ok(Err(error)),
            };
            hasher.update(buffer.get(..read).unwrap_or_default());
            at += read as u64;
            metrics::SCRUBBED_BYTES.inc_by(read as u64);
            let bytes_per_second = rate(self.store);
            if bytes_per_second == 0 {
                return Err(Ended::Off);
            }
            let pause = Duration::from_secs(1).mul_f64(read as f64 / bytes_per_second as f64);
            if !self.signal.wait(pause, false) {
                return Err(Ended::Stopped);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Algorithm;

    const HOUR: Duration = Duration::from_secs(60 * 60);

    #[test]
    fn what_is_known_of_a_tag_outlives_its_manifests_for_a_while() {
        let now = SystemTime::now();
        let digest = Digest::of(Algorithm::Sha256, b"x");
        let named = |ago: Duration| TagRecord {
            digest,
            previous: None,
            validated: now - ago,
            moved: now - 1000 * HOUR,
        };
        assert!(!is_idle(&named(23 * HOUR), now));
        assert!(is_idle(&named(25 * HOUR), now));
        // They have no time at which upstream confirmed them.
        let moved = now - HOUR;
        assert!(!is_idle(&TagRecord { moved, ..named(HOUR) }.doubted(), now));
        assert!(!is_idle(&TagRecord::gone(digest, now - 80 * 24 * HOUR), now));
        assert!(is_idle(&TagRecord::gone(digest, now - 91 * 24 * HOUR), now));
    }
}

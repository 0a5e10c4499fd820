//! What the simulator has seen: counts by kind, and a log of requests in order of arrival.

use std::collections::{BTreeMap, HashMap, VecDeque};

use serde::{Deserialize, Serialize};

/// The log forgets the oldest request beyond this many.
const LOG_ENTRIES: usize = 100_000;

/// Requests by kind; answers 401 included. Control requests (`/_hub/`) are in none of these.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// `/v2/`.
    pub ping: u64,
    /// Manifest GETs, conditional ones too.
    pub manifest_get: u64,
    /// Manifest HEADs.
    pub manifest_head: u64,
    /// Blob GETs at the registry; most are redirected.
    pub blob_get: u64,
    /// Blob HEADs at the registry.
    pub blob_head: u64,
    /// GETs at the CDN.
    pub cdn_get: u64,
    /// HEADs at the CDN.
    pub cdn_head: u64,
    /// Token requests.
    pub token: u64,
    /// Tag lists.
    pub tags: u64,
    /// Referrers.
    pub referrers: u64,
    /// Anything else.
    pub other: u64,
    /// Pulls counted, those of payers without limit too.
    pub counted: u64,
    /// Answers 429, of either kind, by fault or by budget.
    pub refused_429: u64,
    /// Bytes of bodies handed to the connection, of all three servers.
    pub bytes_sent: u64,
    /// What is left to each account and address that has a limit and was seen.
    pub remaining: BTreeMap<String, u64>,
}

/// What a request was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// `/v2/`.
    Ping,
    /// GET of a manifest.
    ManifestGet,
    /// HEAD of a manifest.
    ManifestHead,
    /// GET of a blob at the registry.
    BlobGet,
    /// HEAD of a blob at the registry.
    BlobHead,
    /// GET of a blob at the CDN.
    CdnGet,
    /// HEAD of a blob at the CDN.
    CdnHead,
    /// A token.
    Token,
    /// A tag list.
    Tags,
    /// A referrers list.
    Referrers,
    /// Anything else.
    Other,
}

/// One request, as received and answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// What it was.
    pub kind: Kind,
    /// Such as `GET`.
    pub method: String,
    /// As sent.
    pub path: String,
    /// As sent, without the `?`.
    pub query: Option<String>,
    /// Of a registry request.
    pub repository: Option<String>,
    /// Tag or digest.
    pub reference: Option<String>,
    /// 0 until answered; stays 0 if the connection was dropped instead.
    pub status: u16,
    /// Whether an `Authorization` header was sent, good or not.
    pub authorization: bool,
    /// The account whose valid token was sent.
    pub account: Option<String>,
    /// `Range`.
    pub range: Option<String>,
    /// `Accept`, all headers, split at commas.
    pub accept: Vec<String>,
    /// `If-None-Match`.
    pub if_none_match: Option<String>,
    /// `User-Agent`.
    pub user_agent: Option<String>,
    /// Bytes of the body handed to the connection so far.
    pub bytes_sent: u64,
    /// `Host`.
    pub host: String,
    /// Address the request came from, or claims to by `X-Hub-Source`.
    pub source: String,
}

/// The books; entries are named by their number so that an answer finds its request.
#[derive(Debug, Default)]
pub(crate) struct Log {
    /// The number of the oldest entry kept.
    first: u64,
    entries: VecDeque<Request>,
    stats: Stats,
    by_reference: HashMap<(Kind, String), u64>,
}

// === impl Log ===

impl Log {
    /// Books a request and returns its number. A `challenged` one (lacking its token) stays out of
    /// the counts by reference, so that these tell fetches and not the dance before them.
    pub(crate) fn receive(&mut self, request: Request, challenged: bool) -> u64 {
        *self.stats.of(request.kind) += 1;
        if let (false, Some(reference)) = (challenged, request.reference.clone()) {
            *self.by_reference.entry((request.kind, reference)).or_default() += 1;
        }
        if self.entries.len() == LOG_ENTRIES {
            self.entries.pop_front();
            self.first += 1;
        }
        self.entries.push_back(request);
        self.first + self.entries.len() as u64 - 1
    }

    pub(crate) fn answered(&mut self, number: u64, status: u16) {
        self.stats.refused_429 += u64::from(status == 429);
        if let Some(request) = self.entry(number) {
            request.status = status;
        }
    }

    pub(crate) fn sent(&mut self, number: u64, bytes: u64) {
        self.stats.bytes_sent += bytes;
        if let Some(request) = self.entry(number) {
            request.bytes_sent += bytes;
        }
    }

    pub(crate) fn counted(&mut self) {
        self.stats.counted += 1;
    }

    pub(crate) fn stats(&self) -> Stats {
        self.stats.clone()
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.entries.iter().cloned().collect()
    }

    pub(crate) fn by_reference(&self, kind: Kind, reference: &str) -> u64 {
        self.by_reference.get(&(kind, reference.to_owned())).copied().unwrap_or(0)
    }

    pub(crate) fn reset(&mut self) {
        // Numbers go on, so that answers still under way don't land in another's entry.
        self.first += self.entries.len() as u64;
        self.entries.clear();
        self.stats = Stats::default();
        self.by_reference.clear();
    }

    fn entry(&mut self, number: u64) -> Option<&mut Request> {
        let place = number.checked_sub(self.first)?;
        self.entries.get_mut(usize::try_from(place).ok()?)
    }
}

impl Stats {
    /// All requests.
    pub fn requests(&self) -> u64 {
        let Self { ping, manifest_get, manifest_head, blob_get, blob_head, .. } = self;
        let Self { cdn_get, cdn_head, token, tags, referrers, other, .. } = self;
        let registry = ping + manifest_get + manifest_head + blob_get + blob_head;
        registry + cdn_get + cdn_head + token + tags + referrers + other
    }

    fn of(&mut self, kind: Kind) -> &mut u64 {
        match kind {
            Kind::Ping => &mut self.ping,
            Kind::ManifestGet => &mut self.manifest_get,
            Kind::ManifestHead => &mut self.manifest_head,
            Kind::BlobGet => &mut self.blob_get,
            Kind::BlobHead => &mut self.blob_head,
            Kind::CdnGet => &mut self.cdn_get,
            Kind::CdnHead => &mut self.cdn_head,
            Kind::Token => &mut self.token,
            Kind::Tags => &mut self.tags,
            Kind::Referrers => &mut self.referrers,
            Kind::Other => &mut self.other,
        }
    }
}

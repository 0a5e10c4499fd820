//! What is cached, good and bad.

use super::*;

/// The repositories of the busy server.
pub(super) fn repositories() -> Repositories {
    let names = [
        "library/alpine",
        "library/debian",
        "library/golang",
        "library/nginx",
        "library/node",
        "library/postgres",
        "library/python",
        "bitnami/redis-cluster",
        "grafana/grafana-oss",
    ];
    let row = |(index, name): (usize, &&str)| {
        let many = index as u64 + 2;
        Repository {
            upstream: Shown::new("docker.io"),
            name: Shown::new(name),
            tags: Count(many),
            objects: Some(Count(many * 13)),
            bytes: Some(Bytes(many * 173 * MIB)),
            is_more: index == 8,
            used: Some(at(i64::try_from(many * many * 137).unwrap_or(0))),
        }
    };
    Repositories {
        frame: frame(),
        refused: None,
        rows: names.iter().enumerate().map(row).collect(),
        next: Some("/repositories?after=docker.io%2Fgrafana".to_owned()),
        is_later: false,
        newcomer: None,
    }
}

/// One of them.
pub(super) fn repository() -> RepositoryPage {
    let platform = |name: &str, state, mib| Platform {
        name: Shown::new(name),
        state,
        bytes: Bytes(mib * MIB),
    };
    let tag = |name: &str, seed, state, freshness, is_pinned| Tag {
        name: Shown::new(name),
        reference: format!("docker.io/library/node:{name}"),
        digest: digest(seed),
        state,
        bytes: Bytes(388 * MIB),
        missing: Count(if state == Kept::Partial { 7 } else { 0 }),
        platforms: vec![
            platform("linux/amd64", Kept::Complete, 388),
            platform("linux/arm64/v8", Kept::Partial, 121),
            platform("linux/ppc64le", Kept::Absent, 0),
            platform("linux/s390x", Kept::Absent, 0),
        ],
        used: Some(at(312)),
        freshness,
        checked: Some(at(44)),
        moved: at(86_400 * 9),
        is_pinned,
    };
    RepositoryPage {
        frame: frame(),
        whole: repositories().rows.remove(4),
        reference: "docker.io/library/node".to_owned(),
        tags: vec![
            tag("22-bookworm-slim", 11, Kept::Complete, Freshness::Fresh(Some(Lasting(16))), true),
            tag("22.11.0", 12, Kept::Complete, Freshness::Immutable, false),
            tag("latest", 13, Kept::Complete, Freshness::Due, false),
            tag("lts-alpine3.20", 14, Kept::Partial, Freshness::Stale, false),
            Tag {
                platforms: Vec::new(),
                used: None,
                checked: None,
                bytes: Bytes(0),
                ..tag("20", 15, Kept::Absent, Freshness::Gone, false)
            },
        ],
        next: None,
        is_later: false,
    }
}

/// A repository and tags with names that no grammar would let pass.
pub(super) fn hostile_repository() -> RepositoryPage {
    let mut page = repository();
    page.whole.name = Shown::new(HOSTILE);
    page.reference = HOSTILE_NAME.to_owned();
    for tag in &mut page.tags {
        tag.name = Shown::new("x".repeat(128));
        tag.reference = HOSTILE_NAME.to_owned();
        tag.digest = Digest(HOSTILE_NAME.to_owned());
        tag.bytes = Bytes(u64::MAX);
        tag.platforms.iter_mut().for_each(|platform| platform.name = Shown::new(HOSTILE));
    }
    page
}

//! The files beside the pages: style, script and icon, compiled in.
//!
//! Their addresses carry a checksum of what they hold, so that a browser keeps
//! them for as long as it likes and never shows a new page in an old style.

use std::sync::LazyLock;

/// A file, and where it is.
#[derive(Debug)]
pub(crate) struct Asset {
    pub(crate) path: String,
    pub(crate) content_type: &'static str,
    pub(crate) text: &'static str,
}

/// How the pages look.
pub(crate) static STYLE: LazyLock<Asset> = LazyLock::new(|| {
    Asset::new("css", "text/css; charset=utf-8", include_str!("../../../templates/dashboard.css"))
});

/// What makes them live.
pub(crate) static SCRIPT: LazyLock<Asset> = LazyLock::new(|| {
    let text = include_str!("../../../templates/dashboard.js");
    Asset::new("js", "text/javascript; charset=utf-8", text)
});

/// The icon.
pub(crate) static ICON: LazyLock<Asset> = LazyLock::new(|| {
    Asset::new("svg", "image/svg+xml", include_str!("../../../templates/icon.svg"))
});

// === impl Asset ===

impl Asset {
    fn new(extension: &str, content_type: &'static str, text: &'static str) -> Self {
        let checksum = crc32fast::hash(text.as_bytes());
        Self { path: format!("/assets/{checksum:08x}.{extension}"), content_type, text }
    }

    /// The one at `path`.
    pub(crate) fn at(path: &str) -> Option<&'static Self> {
        [&*STYLE, &*SCRIPT, &*ICON].into_iter().find(|asset| asset.path == path)
    }
}

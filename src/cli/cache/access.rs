//! The two ways to a cache, behind one set of questions.

use std::{io, path::Path, sync::Arc};

use super::remote::Remote;
use crate::{
    cli::Source,
    config::Config,
    inventory::{
        BlobPage, Error, ImagePage, Inventory, MOST_PER_PAGE, PinPage, PinReport, PurgeReport,
        PurgeRequest, UnpinReport, UsageReport, VerifyStatus,
    },
    store::{self, Store},
};

/// A cache that can be asked.
pub(super) enum Access {
    /// Its directory is open here.
    Here(Arc<Inventory>, Arc<Store>),
    /// A server has it.
    There(Remote),
}

/// How often a server is asked whether it has counted.
const COUNTING: std::time::Duration = std::time::Duration::from_millis(300);

/// Why a command could not be carried out.
#[derive(Debug, thiserror::Error)]
pub(in crate::cli) enum Trouble {
    /// It was asked wrongly.
    #[error("{0}")]
    Usage(String),
    /// It did not work out.
    #[error("{0}")]
    Failed(String),
    /// The output can't be written.
    #[error("the output could not be written: {0}; where does it go?")]
    Output(#[from] io::Error),
}

// === impl Trouble ===

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        match error {
            Error::BadReference(_) => Self::Usage(error.to_string()),
            Error::Running | Error::Store(_) => Self::Failed(error.to_string()),
        }
    }
}

// === impl Access ===

impl Access {
    /// Opens the store that `source` leads to, or finds the server that has it open; asks the server
    /// that is named, where no store is.
    pub(super) fn open(config: &Config, source: &Source) -> Result<Self, Trouble> {
        if source.names_only_a_server() {
            return Ok(Self::There(Remote::new(&config.admin)?));
        }
        let directory = &config.store.directory;
        // Opening would create it, and an empty store answers every question wrongly.
        if !directory.is_dir() {
            return Err(Trouble::Failed(format!(
                "{}: there is no store here; name its directory with --data, or the \
                 configuration it is used with by --config",
                directory.display()
            )));
        }
        match Store::open(&config.store) {
            Ok(store) => {
                let store = Arc::new(store);
                let inventory = Inventory::new(Arc::clone(&store), config);
                Ok(Self::Here(Arc::new(inventory), store))
            }
            Err(store::Error::InUse { .. }) => Self::there(config, directory),
            Err(error) => Err(Trouble::Failed(error.to_string())),
        }
    }

    fn there(config: &Config, directory: &Path) -> Result<Self, Trouble> {
        let remote = Remote::new(&config.admin)?;
        let server = remote.server(directory)?;
        let own = crate::inventory::directory_id(directory);
        // What is purged here must not be another cache's.
        if own.is_none() || own != server.directory_id {
            return Err(Trouble::Failed(format!(
                "the server at {} uses {}, not {}; name the admin address of the one that does \
                 with --admin",
                config.admin.address,
                server.directory.display(),
                directory.display()
            )));
        }
        Ok(Self::There(remote))
    }

    /// Ends the use of the store; what is pending is written.
    pub(super) fn close(&self) {
        if let Self::Here(_, store) = self {
            store.close();
        }
    }

    pub(super) fn images(
        &self,
        matching: Option<&str>,
        after: Option<&str>,
        limit: usize,
    ) -> Result<ImagePage, Trouble> {
        match self {
            Self::Here(inventory, _) => Ok(inventory.images(matching, after, limit)?),
            Self::There(remote) => {
                let limit = limit.to_string();
                let query = [("match", matching), ("after", after), ("limit", Some(&*limit))];
                remote.get("images", &query)
            }
        }
    }

    pub(super) fn blobs(&self, after: Option<&str>, limit: usize) -> Result<BlobPage, Trouble> {
        match self {
            Self::Here(inventory, _) => Ok(inventory.blobs(after, limit)?),
            Self::There(remote) => {
                let limit = limit.to_string();
                remote.get("blobs", &[("after", after), ("limit", Some(&*limit))])
            }
        }
    }

    pub(super) fn usage(&self) -> Result<UsageReport, Trouble> {
        match self {
            Self::Here(inventory, _) => Ok(inventory.usage()?),
            Self::There(remote) => loop {
                // It counts for as long as it must, and does not keep who asks.
                let report: UsageReport = remote.get("usage", &[])?;
                if report.as_of.is_some() {
                    return Ok(report);
                }
                std::thread::sleep(COUNTING);
            },
        }
    }

    /// All pins, page by page.
    pub(super) fn pins(&self) -> Result<PinPage, Trouble> {
        let mut all = PinPage::default();
        loop {
            let after = all.next.take();
            let mut page: PinPage = match self {
                Self::Here(inventory, _) => inventory.pins(after.as_deref(), MOST_PER_PAGE)?,
                Self::There(remote) => {
                    let limit = MOST_PER_PAGE.to_string();
                    remote.get("pins", &[("after", after.as_deref()), ("limit", Some(&*limit))])?
                }
            };
            all.pins.append(&mut page.pins);
            all.next = page.next;
            if all.next.is_none() {
                return Ok(all);
            }
        }
    }

    pub(super) fn purge(&self, request: &PurgeRequest) -> Result<PurgeReport, Trouble> {
        match self {
            Self::Here(inventory, _) => Ok(inventory.purge(request)?),
            Self::There(remote) => remote.post("purge", request),
        }
    }

    pub(super) fn pin(&self, references: &[String]) -> Result<PinReport, Trouble> {
        match self {
            Self::Here(inventory, _) => Ok(inventory.pin(references)?),
            Self::There(remote) => {
                remote.post("pin", &serde_json::json!({ "references": references }))
            }
        }
    }

    pub(super) fn unpin(&self, references: &[String]) -> Result<UnpinReport, Trouble> {
        match self {
            Self::Here(inventory, _) => Ok(inventory.unpin(references)?),
            Self::There(remote) => {
                remote.post("unpin", &serde_json::json!({ "references": references }))
            }
        }
    }

    pub(super) fn start_verify(&self, repair: bool) -> Result<VerifyStatus, Trouble> {
        match self {
            Self::Here(inventory, _) => Ok(inventory.start_verify(repair)?),
            Self::There(remote) => remote.post("verify", &serde_json::json!({ "repair": repair })),
        }
    }

    pub(super) fn verify_status(&self) -> Result<VerifyStatus, Trouble> {
        match self {
            Self::Here(inventory, _) => Ok(inventory.verify_status()),
            Self::There(remote) => remote.get("verify", &[]),
        }
    }

    pub(super) fn cancel_verify(&self) -> Result<VerifyStatus, Trouble> {
        match self {
            Self::Here(inventory, _) => Ok(inventory.cancel_verify()),
            Self::There(remote) => remote.post("verify/cancel", &serde_json::json!({})),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_is_named_alone_is_asked_whatever_its_directory() {
        let config = Config::parse("store: { directory: /nowhere/at/all }", "test").unwrap();
        let admin = Some("127.0.0.1:7".to_owned());
        let mut source =
            Source { config: None, listen: None, admin, upstreams: vec![], data: None };
        assert!(matches!(Access::open(&config, &source), Ok(Access::There(_))));
        source.data = Some("/nowhere/at/all".into());
        assert!(matches!(Access::open(&config, &source), Err(Trouble::Failed(_))));
    }
}

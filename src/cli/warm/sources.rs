//! Where the images come from: the command line, lists, compose files, Kubernetes manifests.

use std::{
    collections::HashSet,
    env, fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

use clap::Args;

use super::{Found, compose, kubernetes, substitute};
use crate::warm::{MOST_IMAGES, parse_list};

/// The largest file that is read.
const MOST_BYTES: u64 = 16 << 20;

/// What to fetch.
#[derive(Debug, Args)]
pub(super) struct Sources {
    /// Images as clients name them: alpine:3.20, ghcr.io/org/app:1, alpine@sha256:...
    #[arg(value_name = "IMAGE")]
    images: Vec<String>,
    /// A file with an image in each line, # begins a comment; - reads standard input
    #[arg(long = "list", value_name = "FILE")]
    lists: Vec<PathBuf>,
    /// A compose file: the images of all its services, with ${VARIABLES} from the environment and .env
    #[arg(long = "compose", value_name = "FILE")]
    composes: Vec<PathBuf>,
    /// Kubernetes manifests, a file or a folder: the images of all containers in them
    #[arg(long = "kubernetes", value_name = "FILE|DIR")]
    manifests: Vec<PathBuf>,
}

// === impl Sources ===

impl Sources {
    /// All images, each once; the error names the file and the remedy.
    pub(super) fn read(&self) -> Result<Found, String> {
        let mut found = Found { images: self.images.clone(), notes: Vec::new() };
        for list in &self.lists {
            found.images.extend(parse_list(&text_of(list)?));
        }
        for file in &self.composes {
            let text = text_of(file)?;
            let beside = beside(file);
            let lookup = |name: &str| {
                let of_file = || beside.iter().find(|(key, _)| key == name);
                env::var(name).ok().or_else(|| of_file().map(|(_, value)| value.clone()))
            };
            found.add(file, compose::images(&text, &lookup))?;
        }
        for path in &self.manifests {
            let files =
                if is_stdin(path) { Ok(vec![path.clone()]) } else { kubernetes::files(path) };
            for file in files.map_err(|error| unreadable(path, &error))? {
                found.add(&file, kubernetes::images(&text_of(&file)?))?;
            }
        }
        let mut seen = HashSet::new();
        found.images.retain(|image| seen.insert(image.clone()));
        match found.images.len() {
            0 if self.is_empty() => {
                Err("no image is named; name some, or give --list, --compose or --kubernetes"
                    .into())
            }
            0 => Err("there is no image in what was named; is it the right file?".into()),
            count if count > MOST_IMAGES => Err(format!(
                "{count} images are more than {MOST_IMAGES}; warm them in several steps"
            )),
            _ => Ok(found),
        }
    }

    fn is_empty(&self) -> bool {
        self.images.is_empty()
            && self.lists.is_empty()
            && self.composes.is_empty()
            && self.manifests.is_empty()
    }
}

// === impl Found ===

impl Found {
    fn add(&mut self, file: &Path, more: Result<Self, String>) -> Result<(), String> {
        let name = file.display();
        let more = more.map_err(|problem| format!("{name}: {problem}"))?;
        self.images.extend(more.images);
        self.notes.extend(more.notes.into_iter().map(|note| format!("{name}: {note}")));
        Ok(())
    }
}

/// The variables of the `.env` file beside a compose file.
fn beside(file: &Path) -> Vec<(String, String)> {
    let folder = if is_stdin(file) { None } else { file.parent() };
    let path = folder.unwrap_or(Path::new("")).join(".env");
    let text = fs::metadata(&path).is_ok_and(|found| found.len() <= MOST_BYTES);
    let text = text.then(|| fs::read_to_string(&path).ok()).flatten();
    substitute::variables(&text.unwrap_or_default())
}

fn is_stdin(path: &Path) -> bool {
    path == Path::new("-")
}

fn text_of(path: &Path) -> Result<String, String> {
    let open = || -> io::Result<Box<dyn Read>> {
        if is_stdin(path) { Ok(Box::new(io::stdin())) } else { Ok(Box::new(fs::File::open(path)?)) }
    };
    let read = || -> io::Result<String> {
        let mut text = String::new();
        open()?.take(MOST_BYTES + 1).read_to_string(&mut text)?;
        if text.len() as u64 > MOST_BYTES {
            return Err(io::Error::other(format!("it has more than {MOST_BYTES} bytes")));
        }
        Ok(text)
    };
    read().map_err(|error| unreadable(path, &error))
}

fn unreadable(path: &Path, error: &io::Error) -> String {
    let remedy = match error.kind() {
        io::ErrorKind::NotFound => "correct the path",
        io::ErrorKind::PermissionDenied => "let this user read it",
        io::ErrorKind::InvalidData => "name a text file",
        _ => "name another",
    };
    format!("{}: {error}; {remedy}", path.display())
}

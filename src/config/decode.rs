//! From bytes to `RawConfig`: the file, UTF-8, YAML and the known keys.
//!
//! What doesn't fit is explained in `fault`; what the values mean is left to the domain types.

use std::fs;
use std::io;
use std::path::Path;

use super::fault::explain;
use super::problem::{ConfigError, Refusal};
use super::raw::RawConfig;

/// The text of the file.
pub(super) fn read_text(path: &Path) -> Result<String, ConfigError> {
    let unreadable = |source: io::Error| {
        let refusal = match source.kind() {
            io::ErrorKind::NotFound => {
                Refusal::new("there is no such file", "create it, or correct --config")
            }
            io::ErrorKind::IsADirectory => {
                Refusal::new("is a directory", "name the YAML file in it")
            }
            io::ErrorKind::PermissionDenied => {
                Refusal::new("may not be read", "let Roadstead's user read it")
            }
            io::ErrorKind::InvalidData => Refusal::new("is not UTF-8 text", "save it as UTF-8"),
            _ => Refusal::new(format!("can't be read: {source}"), "name a readable YAML file"),
        };
        ConfigError::Unreadable { origin: path.display().to_string(), refusal, source }
    };
    fs::read_to_string(path).map_err(unreadable)
}

/// The keys of the text; one without any content is all defaults.
pub(super) fn decode(text: &str, origin: &str) -> Result<RawConfig, ConfigError> {
    let text = text.trim_start_matches('\u{feff}');
    if is_blank(text) {
        return Ok(RawConfig::default());
    }
    let yaml = serde_yaml::Deserializer::from_str(text);
    serde_path_to_error::deserialize(yaml).map_err(|error| {
        let key = error.path().to_string();
        let problem = explain(origin, &key, error.inner());
        ConfigError::Invalid(vec![problem])
    })
}

/// Nothing but comments, blank lines and document markers.
fn is_blank(text: &str) -> bool {
    text.lines()
        .map(str::trim)
        .all(|line| line.is_empty() || line.starts_with('#') || line == "---" || line == "...")
}

#[cfg(test)]
mod tests {
    use super::super::testing::parsed;
    use super::super::{Config, ConfigError};

    #[test]
    fn a_file_without_content_is_all_defaults() {
        for text in ["", "\n\n", "# nothing\n", "---\n", "\u{feff}# bom\n", "{}", "store:\n"] {
            assert_eq!(parsed(text), parsed("{}"), "{text:?}");
        }
    }

    #[test]
    fn a_file_that_can_not_be_read_is_refused() {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let missing = folder.path().join("none.yaml");
        let binary = folder.path().join("binary.yaml");
        std::fs::write(&binary, [b'a', 0xff, b'\n']).expect("a temporary file can be written");
        for (path, what) in [
            (missing.as_path(), "there is no such file; create it"),
            (folder.path(), "is a directory; name the YAML file in it"),
            (binary.as_path(), "is not UTF-8 text; save it as UTF-8"),
        ] {
            let error = Config::load(path).expect_err("it can't be read");
            assert!(matches!(error, ConfigError::Unreadable { .. }));
            let line = error.to_string();
            assert!(line.starts_with(&format!("{}: {what}", path.display())), "{line}");
        }
    }
}

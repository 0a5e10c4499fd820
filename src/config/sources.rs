//! All that a configuration is made of: the file, the environment, the command line.
//!
//! Flags win over the environment, the environment over the file, the file over the defaults. They
//! are kept, so that all can be read anew while the server runs.

use std::ffi::OsString;
use std::path::PathBuf;

use serde_yaml::Value;

use super::environment;
use super::explain;
use super::fault::explain as told;
use super::origins::Origins;
use super::problem::{ConfigError, Report};
use super::raw::RawConfig;
use super::secret::Secret;
use super::{Config, Overrides, decode};

/// Where the configuration comes from.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    file: Option<PathBuf>,
    flags: Overrides,
    /// The variables, if the environment is looked at.
    variables: Vec<(String, Secret)>,
}

/// A configuration, and where each of its values comes from.
pub(super) struct Explained {
    pub(super) config: Config,
    pub(super) origins: Origins,
}

// === impl Sources ===

impl Sources {
    /// The file, if there is one, and the command line; the environment is not looked at.
    pub fn new(file: Option<PathBuf>, flags: Overrides) -> Self {
        Self { file, flags, variables: Vec::new() }
    }

    /// With these variables, of which those are looked at that begin with `ROADSTEAD_`.
    #[must_use]
    pub fn with_variables(
        mut self,
        variables: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Self {
        // What is no text is no value of ours; and its name would be refused by any means.
        let text = |(name, value): (OsString, OsString)| {
            let name = name.into_string().ok()?;
            let is_ours = name.starts_with(environment::PREFIX);
            is_ours.then(|| (name, Secret::new(value.to_string_lossy())))
        };
        self.variables = variables.into_iter().filter_map(text).collect();
        self.variables.sort_by(|(one, _), (other, _)| one.cmp(other));
        self
    }

    /// Reads and checks all of it.
    pub fn read(&self) -> Result<Config, ConfigError> {
        self.load().map(|explained| explained.config)
    }

    /// The effective configuration as YAML, each value with where it comes from behind it; secrets as
    /// `***`. In colours if `is_colourful`.
    pub fn explain(&self, is_colourful: bool) -> Result<String, ConfigError> {
        let Explained { config, origins } = self.load()?;
        Ok(explain::explain(&config.tree(), &origins, is_colourful))
    }

    /// The same of a text instead of the file; `origin` stands for its name.
    pub(super) fn parse(&self, text: &str, origin: &str) -> Result<Config, ConfigError> {
        self.build(text, origin).map(|explained| explained.config)
    }

    fn load(&self) -> Result<Explained, ConfigError> {
        match &self.file {
            Some(path) => self.build(&decode::read_text(path)?, &path.display().to_string()),
            None => self.build("", "defaults"),
        }
    }

    fn build(&self, text: &str, origin: &str) -> Result<Explained, ConfigError> {
        let raw = decode::decode(text, origin)?;
        let mut origins = Origins::of(text, origin);
        let tree = serde_yaml::to_value(&raw).expect("text, numbers and lists always make YAML");
        origins.complete(&tree, origin);
        let raw = match self.variables.as_slice() {
            [] => raw,
            variables => overlaid(tree, variables, &mut origins)?,
        };
        let report = Report::of(origins);
        let (file, line) = (report.scope(origin), report.scope("command line"));
        let config = Config::read(&file, &line, raw, &self.flags);
        if !report.is_empty() {
            return Err(report.into_error());
        }
        let mut origins = report.into_origins();
        self.note_flags(&mut origins);
        Ok(Explained { config, origins })
    }

    fn note_flags(&self, origins: &mut Origins) {
        let flags = &self.flags;
        let given = [
            (flags.listen.is_some(), "listen", "--listen"),
            (flags.admin.is_some(), "admin.address", "--admin"),
            (!flags.upstreams.is_empty(), "upstreams", "--upstream"),
            (flags.data.is_some(), "store.directory", "--data"),
        ];
        for (_, key, flag) in given.into_iter().filter(|(is_given, ..)| *is_given) {
            origins.flag(key, flag);
        }
    }
}

/// The file's keys with those of the environment over them.
fn overlaid(
    tree: Value,
    variables: &[(String, Secret)],
    origins: &mut Origins,
) -> Result<RawConfig, ConfigError> {
    // Plain values that are numbers are whole ones.
    let mut tree = environment::as_written(tree).unwrap_or_default();
    let problems = environment::overlay(&mut tree, variables, origins);
    if !problems.is_empty() {
        return Err(ConfigError::Invalid(problems));
    }
    decoded(tree).map_err(|(key, error)| {
        let mut problem = told("environment", &key, &error);
        problem.blame_variable(origins);
        ConfigError::Invalid(vec![problem])
    })
}

fn decoded(tree: Value) -> Result<RawConfig, (String, serde_yaml::Error)> {
    serde_path_to_error::deserialize(tree)
        .map_err(|error| (error.path().to_string(), error.into_inner()))
}

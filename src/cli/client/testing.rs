//! What the unit tests of the clients share.

use super::plan::Plan;
use super::reach::Reach;
use crate::config::Config;

pub(super) fn reach(config: &str, address: &str) -> Reach {
    let config = Config::parse(config, "test").unwrap();
    Reach::of(&config, Some(&address.parse().unwrap()), None).unwrap()
}

/// What becomes of `before`; a second run changes nothing.
pub(super) fn edited(plan: &Plan, path: &str, before: &str) -> String {
    let file = plan.files.iter().find(|file| file.path.to_str() == Some(path));
    let file = file.unwrap_or_else(|| panic!("no {path}"));
    let after = (file.edit)(before).unwrap();
    assert_eq!((file.edit)(&after).unwrap(), after, "a second run changes it");
    after
}

pub(super) fn refused(plan: &Plan, path: &str, before: &str) -> String {
    let file = plan.files.iter().find(|file| file.path.to_str() == Some(path)).unwrap();
    let said = (file.edit)(before).unwrap_err();
    assert_eq!(said.lines().count(), 1, "{said}");
    said
}

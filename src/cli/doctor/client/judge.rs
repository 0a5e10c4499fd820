//! What a pull and the counters say together.

use super::{
    super::finding::{Check, Finding},
    group,
    witness::Testimony,
};
use crate::cli::client::survey::Surveyed;

/// The remedy where a client's files don't name Roadstead.
const TELL: &str = "tell it of Roadstead: write its files (above), and have it read them again";

/// The finding on a pull by what is `shown`, with its `problem` if it failed.
pub(super) fn judge(
    surveyed: Surveyed,
    shown: &str,
    is_named: bool,
    problem: Option<&String>,
    testimony: Option<Testimony>,
) -> Finding {
    let check = Check(group(surveyed), "pull");
    match (problem, testimony) {
        (None, Some(Testimony::Came(count))) => {
            check.ok(shown, format!("came through Roadstead, which counted {count} requests of it"))
        }
        (None, Some(Testimony::Refused(count))) => check.fault(
            shown,
            format!(
                "succeeded, but not through Roadstead, which refused all {count} requests of it: the \
                 client went to the registry itself and says nothing of it (silent fallback)"
            ),
            "look into Roadstead's log, which says why, and at what `roadstead doctor` says on its host",
        ),
        (None, Some(Testimony::NoneCame)) => {
            let remedy = match is_named {
                true => {
                    "its settings name Roadstead, so look whether it is reached from here, whether its \
                     certificate is trusted, and whether the client runs since they were changed"
                }
                false => TELL,
            };
            let found = "succeeded, but not through Roadstead, which counted no request: the client went \
                         to the registry itself and says nothing of it (silent fallback)";
            check.fault(shown, found, remedy)
        }
        (None, Some(Testimony::Unsure)) => check.warning(
            shown,
            "succeeded, but others pull at the same time, and it can't be told whether it came through",
            "try again with a tag that nobody else pulls (--probe)",
        ),
        (None, None) => check.warning(
            shown,
            "succeeded; which way is not known, because the counters can't be watched",
            "say with --admin where Roadstead's admin listener is",
        ),
        (Some(problem), Some(Testimony::Came(_) | Testimony::Refused(_))) => check.fault(
            shown,
            format!("Roadstead was asked, and yet it failed: {problem}"),
            "look into Roadstead's log, and at what `roadstead doctor` says on its host",
        ),
        (Some(problem), _) => check.fault(
            shown,
            format!("failed, and Roadstead has not seen it: {problem}"),
            match is_named {
                true => {
                    "look whether the client's daemon runs, and whether Roadstead is reached from here"
                }
                false => TELL,
            },
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::super::finding::Level, *};

    #[test]
    fn a_pull_that_nobody_counted_is_the_silent_fallback() {
        let told = |is_named, problem: Option<&str>, testimony| {
            let problem = problem.map(str::to_owned);
            judge(Surveyed::Docker, "docker pull x", is_named, problem.as_ref(), testimony)
        };
        assert_eq!(told(true, None, Some(Testimony::Came(2.0))).level, Level::Ok);
        for (is_named, testimony) in [
            (true, Testimony::NoneCame),
            (false, Testimony::NoneCame),
            (true, Testimony::Refused(1.0)),
        ] {
            let fallback = told(is_named, None, Some(testimony));
            assert_eq!(fallback.level, Level::Fault);
            assert!(fallback.found.contains("silent fallback"), "{fallback:?}");
        }
        assert_eq!(told(true, None, None).level, Level::Warning);
        assert_eq!(told(true, None, Some(Testimony::Unsure)).level, Level::Warning);
        let failed = told(true, Some("denied"), Some(Testimony::Came(1.0)));
        assert!(failed.found.contains("Roadstead was asked") && failed.level == Level::Fault);
        assert_eq!(told(true, Some("denied"), None).level, Level::Fault);
    }
}

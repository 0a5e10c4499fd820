//! The API's paths and methods, and what a request to one asks for.

use http::{Method, StatusCode};
use serde::{Deserialize, de::DeserializeOwned};

use super::reply::Refused;
use crate::inventory::{MOST_PER_PAGE, PurgeRequest};

/// Items of a page where the request does not say.
const PER_PAGE: usize = 100;

/// A path of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Endpoint {
    Server,
    Usage,
    Images,
    Objects,
    Pins,
    Purge,
    Pin,
    Unpin,
    Verify,
    Cancel,
    Budget,
    Upstreams,
    Offline,
}

/// What is asked for, complete and valid but for its references.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Question {
    Server,
    Usage,
    Images { matching: Option<String>, after: Option<String>, limit: usize },
    Objects { after: Option<String>, limit: usize },
    Pins,
    Purge(PurgeRequest),
    Pin(Vec<String>),
    Unpin(Vec<String>),
    VerifyStatus,
    Verify { repair: bool },
    Cancel,
    Budget,
    Upstreams,
    Offline(Offline),
}

/// The body of offline.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Offline {
    pub(super) offline: bool,
    /// The one to switch; all, if it is not there.
    pub(super) upstream: Option<String>,
}

/// The body of pin and unpin.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct References {
    references: Vec<String>,
}

/// The body of verify, which may be empty.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Verify {
    repair: bool,
}

// === impl Endpoint ===

impl Endpoint {
    /// The endpoint at a path below the API's prefix.
    pub(super) fn at(path: &str) -> Result<Self, Refused> {
        Ok(match path {
            "" => Self::Server,
            "usage" => Self::Usage,
            "images" => Self::Images,
            "objects" => Self::Objects,
            "pins" => Self::Pins,
            "purge" => Self::Purge,
            "pin" => Self::Pin,
            "unpin" => Self::Unpin,
            "verify" => Self::Verify,
            "verify/cancel" => Self::Cancel,
            "budget" => Self::Budget,
            "upstreams" => Self::Upstreams,
            "offline" => Self::Offline,
            _ => {
                let message = "there are usage, images, objects, pins, purge, pin, unpin, verify, \
                               verify/cancel, budget, upstreams and offline";
                return Err(Refused::new(StatusCode::NOT_FOUND, "not_found", message));
            }
        })
    }

    /// `Allow`.
    pub(super) fn methods(self) -> &'static str {
        match self {
            Self::Server | Self::Usage | Self::Images | Self::Objects | Self::Pins => "GET, HEAD",
            Self::Budget | Self::Upstreams => "GET, HEAD",
            Self::Purge | Self::Pin | Self::Cancel | Self::Offline => "POST",
            Self::Unpin => "POST, DELETE",
            Self::Verify => "GET, HEAD, POST",
        }
    }

    pub(super) fn allows(self, method: &Method) -> bool {
        self.methods().split(", ").any(|allowed| allowed == method.as_str())
    }

    /// Reads the query, or the body of what changes something.
    pub(super) fn question(
        self,
        changes: bool,
        query: &str,
        body: &[u8],
    ) -> Result<Question, Refused> {
        Ok(match self {
            Self::Server => Question::Server,
            Self::Usage => Question::Usage,
            Self::Images => Question::Images {
                matching: parameter(query, "match"),
                after: parameter(query, "after"),
                limit: limit(query)?,
            },
            Self::Objects => {
                Question::Objects { after: parameter(query, "after"), limit: limit(query)? }
            }
            Self::Pins => Question::Pins,
            Self::Purge => Question::Purge(parse(body)?),
            Self::Pin => Question::Pin(parse::<References>(body)?.references),
            Self::Unpin => Question::Unpin(parse::<References>(body)?.references),
            Self::Verify if !changes => Question::VerifyStatus,
            Self::Verify if body.trim_ascii().is_empty() => Question::Verify { repair: false },
            Self::Verify => Question::Verify { repair: parse::<Verify>(body)?.repair },
            Self::Cancel => Question::Cancel,
            Self::Budget => Question::Budget,
            Self::Upstreams => Question::Upstreams,
            Self::Offline => Question::Offline(parse(body)?),
        })
    }
}

fn parameter(query: &str, name: &str) -> Option<String> {
    let mut pairs = url::form_urlencoded::parse(query.as_bytes());
    let found = pairs.find(|(key, value)| key == name && !value.is_empty());
    found.map(|(_, value)| value.into_owned())
}

fn limit(query: &str) -> Result<usize, Refused> {
    let Some(text) = parameter(query, "limit") else { return Ok(PER_PAGE) };
    match text.parse() {
        Ok(limit @ 1..=MOST_PER_PAGE) => Ok(limit),
        _ => Err(Refused::bad_request(format!(
            "limit={text:?} is not a number from 1 to {MOST_PER_PAGE}; write one"
        ))),
    }
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refused> {
    serde_json::from_slice(body).map_err(|error| {
        Refused::bad_request(format!("the body is not what this needs: {error}; see its fields"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_limited() {
        let question = |query| Endpoint::Images.question(false, query, b"");
        let expected = Question::Images {
            matching: Some("library/*".to_owned()),
            after: None,
            limit: PER_PAGE,
        };
        assert_eq!(question("match=library%2F*&after="), Ok(expected));
        assert!(question("limit=1000").is_ok());
        for wrong in ["limit=0", "limit=1001", "limit=many"] {
            assert_eq!(question(wrong).unwrap_err().status, StatusCode::BAD_REQUEST, "{wrong}");
        }
    }

    #[test]
    fn bodies_are_read_strictly() {
        let purge = |body: &str| Endpoint::Purge.question(true, "", body.as_bytes());
        let Ok(Question::Purge(request)) = purge(r#"{"references":["a"],"dry_run":true}"#) else {
            panic!("a good request");
        };
        assert!(request.dry_run && !request.all_tags);
        // A misspelt `dry_run` must not purge.
        assert!(purge(r#"{"references":["a"],"dryrun":true}"#).is_err());
        assert!(purge("").is_err());
        let verify = |body: &[u8]| Endpoint::Verify.question(true, "", body);
        assert_eq!(verify(b""), Ok(Question::Verify { repair: false }));
        assert_eq!(verify(br#"{"repair":true}"#), Ok(Question::Verify { repair: true }));
    }

    #[test]
    fn each_path_has_its_methods() {
        assert!(Endpoint::Unpin.allows(&Method::DELETE));
        assert!(!Endpoint::Purge.allows(&Method::GET));
        assert!(Endpoint::at("nothing").is_err());
    }
}

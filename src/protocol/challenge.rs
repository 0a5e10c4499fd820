//! `WWW-Authenticate`: what an upstream wants before it answers.
//!
//! Reads every spelling that RFC 9110 §11.6.1 allows and forgives the common wrong ones; what it
//! cannot read becomes `Other`. Whether a realm may be trusted with credentials is left to
//! `upstream/token`.

use super::list::is_token_char;

/// One challenge, reduced to what a registry client can answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Challenge {
    /// Fetch a token from `realm` (CNCF distribution, "Token Authentication Specification").
    Bearer {
        /// The token endpoint's URL, unchecked.
        realm: String,
        /// The service to name in the token request.
        service: Option<String>,
        /// The scope that was missing, such as `repository:library/alpine:pull`.
        scope: Option<String>,
        /// Why the token that was sent did not do (RFC 6750 §3.1).
        error: Option<String>,
    },
    /// Send user and password (RFC 7617).
    Basic {
        /// What the credentials are for; empty if upstream did not say.
        realm: String,
    },
    /// A scheme that we do not speak, or a `Bearer` without a realm.
    Other(String),
}

/// A challenge while its parameters are being read.
struct Draft {
    scheme: String,
    parameters: Vec<(String, String)>,
}

/// What is left of a line.
struct Cursor<'a> {
    rest: &'a str,
}

/// Reads every challenge of every line, in order. Lines continue one list (RFC 9110 §5.3), so a
/// parameter may stand on the line after its scheme.
pub fn parse_challenges<'a>(lines: impl IntoIterator<Item = &'a str>) -> Vec<Challenge> {
    let mut drafts: Vec<Draft> = Vec::new();
    for line in lines {
        read_line(Cursor { rest: line }, &mut drafts);
    }
    drafts.into_iter().map(Draft::finish).collect()
}

/// A token followed by `=` is a parameter of the challenge before it; any other begins a challenge.
fn read_line(mut cursor: Cursor<'_>, drafts: &mut Vec<Draft>) {
    loop {
        cursor.skip(is_separator);
        if cursor.rest.is_empty() {
            return;
        }
        let token = cursor.take(is_token_char);
        if token.is_empty() {
            // Not in the grammar: give up this element, keep the next.
            cursor.take(|c| c != ',');
        } else if let Some(value) = cursor.take_value() {
            if let Some(draft) = drafts.last_mut() {
                draft.parameters.push((token.to_ascii_lowercase(), value));
            }
        } else {
            drafts.push(Draft { scheme: token.to_owned(), parameters: Vec::new() });
            cursor.skip_token68();
        }
    }
}

fn is_separator(c: char) -> bool {
    matches!(c, ' ' | '\t' | ',')
}

fn is_whitespace(c: char) -> bool {
    matches!(c, ' ' | '\t')
}

// === impl Cursor ===

impl<'a> Cursor<'a> {
    /// Takes characters while `wanted` holds.
    fn take(&mut self, wanted: impl Fn(char) -> bool) -> &'a str {
        let length = self.rest.find(|c| !wanted(c)).unwrap_or(self.rest.len());
        let (taken, after) = self.rest.split_at_checked(length).unwrap_or((self.rest, ""));
        self.rest = after;
        taken
    }

    fn skip(&mut self, unwanted: impl Fn(char) -> bool) {
        self.take(unwanted);
    }

    /// `BWS "=" BWS ( token / quoted-string )` (RFC 9110 §11.2); takes nothing if there is no `=`.
    fn take_value(&mut self) -> Option<String> {
        let after = self.rest.trim_start_matches(is_whitespace).strip_prefix('=')?;
        self.rest = after.trim_start_matches(is_whitespace);
        if let Some(quoted) = self.rest.strip_prefix('"') {
            self.rest = quoted;
            return Some(self.take_quoted());
        }
        // A token by the grammar; real registries also leave URLs and scopes unquoted.
        Some(self.take(|c| !is_separator(c)).to_owned())
    }

    /// The inside of a `quoted-string` (RFC 9110 §5.6.4); if it never ends, the rest of the line.
    fn take_quoted(&mut self) -> String {
        let mut value = String::new();
        let mut characters = self.rest.chars();
        while let Some(c) = characters.next() {
            match c {
                '"' => break,
                '\\' => value.extend(characters.next()),
                _ => value.push(c),
            }
        }
        self.rest = characters.as_str();
        value
    }

    /// Skips `1*SP token68` when it ends the element (RFC 9110 §11.2), as in `Negotiate oYH…==`.
    fn skip_token68(&mut self) {
        let is_token68 = |c: char| c.is_ascii_alphanumeric() || "-._~+/".contains(c);
        let start = self.rest.trim_start_matches(is_whitespace);
        let after = start.trim_start_matches(is_token68);
        let end = after.trim_start_matches('=').trim_start_matches(is_whitespace);
        if after.len() < start.len() && (end.is_empty() || end.starts_with(',')) {
            self.rest = end;
        }
    }
}

// === impl Draft ===

impl Draft {
    fn finish(self) -> Challenge {
        if self.scheme.eq_ignore_ascii_case("basic") {
            return Challenge::Basic { realm: self.parameter("realm").unwrap_or_default() };
        }
        let realm = self.parameter("realm").filter(|realm| !realm.is_empty());
        match realm {
            Some(realm) if self.scheme.eq_ignore_ascii_case("bearer") => Challenge::Bearer {
                realm,
                service: self.parameter("service"),
                scope: self.parameter("scope"),
                error: self.parameter("error"),
            },
            _ => Challenge::Other(self.scheme),
        }
    }

    /// The first parameter of that name; a second one is not allowed and not believed.
    fn parameter(&self, name: &str) -> Option<String> {
        self.parameters.iter().find(|(it, _)| it == name).map(|(_, value)| value.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn one(line: &str) -> Vec<Challenge> {
        parse_challenges([line])
    }

    fn basic(realm: &str) -> Challenge {
        Challenge::Basic { realm: realm.to_owned() }
    }

    fn other(scheme: &str) -> Challenge {
        Challenge::Other(scheme.to_owned())
    }

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Challenge {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        Challenge::Bearer {
            realm: realm.to_owned(),
            service: owned(service),
            scope: owned(scope),
            error: None,
        }
    }

    fn hub() -> Challenge {
        let scope = Some("repository:library/alpine:pull,push");
        bearer("https://auth.docker.io/token", Some("registry.docker.io"), scope)
    }

    #[test]
    fn docker_hubs_challenge_is_read() {
        let line = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/alpine:pull,push""#;
        assert_eq!(one(line), [hub()]);
    }

    #[test]
    fn case_order_and_whitespace_do_not_matter() {
        let line = "  bEARER\t SCOPE = \"repository:library/alpine:pull,push\" ,, Service=registry.docker.io\t,realm =\t\"https://auth.docker.io/token\" , ";
        assert_eq!(one(line), [hub()]);
    }

    #[test]
    fn several_challenges_share_a_line() {
        let line =
            r#"Newauth realm="apps", type=1, title="Login to \"apps\"", Basic realm="simple""#;
        assert_eq!(one(line), [other("Newauth"), basic("simple")]);
        assert_eq!(one("Negotiate, Basic realm=x"), [other("Negotiate"), basic("x")]);
        assert_eq!(one("Basic realm=x, Negotiate"), [basic("x"), other("Negotiate")]);
    }

    #[test]
    fn several_lines_are_one_list() {
        let lines = [r#"Basic realm="a""#, r#"Bearer realm="https://b/""#];
        assert_eq!(parse_challenges(lines), [basic("a"), bearer("https://b/", None, None)]);
        let split = [r#"Bearer realm="https://b/""#, "service=s"];
        assert_eq!(parse_challenges(split), [bearer("https://b/", Some("s"), None)]);
    }

    #[test]
    fn token68_belongs_to_its_scheme() {
        assert_eq!(one("Negotiate oYH/+a.b==, Basic realm=x"), [other("Negotiate"), basic("x")]);
        assert_eq!(one("NTLM abc"), [other("NTLM")]);
    }

    #[test]
    fn escapes_are_undone_and_commas_stay_inside_quotes() {
        assert_eq!(one(r#"Basic realm="a\"b\\c, d=e""#), [basic(r#"a"b\c, d=e"#)]);
    }

    #[test]
    fn unquoted_urls_are_forgiven() {
        let line = "Bearer realm=https://b/token?x=y,service=s";
        assert_eq!(one(line), [bearer("https://b/token?x=y", Some("s"), None)]);
    }

    #[test]
    fn missing_commas_between_parameters_are_forgiven() {
        let line = r#"Bearer realm="https://b/" service="s""#;
        assert_eq!(one(line), [bearer("https://b/", Some("s"), None)]);
    }

    #[test]
    fn the_reason_of_a_refused_token_is_kept() {
        let challenges = one(r#"Bearer realm="r",error="invalid_token""#);
        let [Challenge::Bearer { error, .. }] = challenges.as_slice() else {
            panic!("one bearer challenge, not {challenges:?}");
        };
        assert_eq!(error.as_deref(), Some("invalid_token"));
    }

    #[test]
    fn a_second_realm_is_not_believed() {
        assert_eq!(one("Basic realm=first, realm=second"), [basic("first")]);
    }

    #[test]
    fn a_bearer_without_a_realm_cannot_be_answered() {
        assert_eq!(one("Bearer service=s"), [other("Bearer")]);
        assert_eq!(one("Bearer realm=\"\""), [other("Bearer")]);
        assert_eq!(one("Basic"), [basic("")]);
    }

    #[test]
    fn broken_lines_give_what_they_still_say() {
        assert_eq!(one(r#"Basic realm="open"#), [basic("open")]);
        assert_eq!(one(r#"Basic realm="open\"#), [basic("open")]);
        assert_eq!(one("@@@, Basic realm=x"), [basic("x")]);
        assert_eq!(one("realm=x"), []);
        assert_eq!(one(" , ,"), []);
    }

    fn quote(text: &str) -> String {
        text.replace('\\', "\\\\").replace('"', "\\\"")
    }

    proptest! {
        #[test]
        fn any_quoted_text_survives(realm in "[ -~]{1,30}", service in "[ -~]{0,30}") {
            let line = format!("Bearer realm=\"{}\", service=\"{}\"", quote(&realm), quote(&service));
            prop_assert_eq!(one(&line), [bearer(&realm, Some(&service), None)]);
        }

        #[test]
        fn no_lines_panic(lines in proptest::collection::vec(".{0,40}|[a-zB= ,\"\\\\]{0,40}", 0..4)) {
            let _ = parse_challenges(lines.iter().map(String::as_str));
        }
    }
}

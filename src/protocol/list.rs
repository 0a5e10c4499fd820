//! Comma-separated header lists (RFC 9110 §5.6.1), the part which every list field shares.
//!
//! Commas inside quoted strings do not split; empty elements vanish; elements come trimmed.
//! What an element means is left to its own field's file.

/// What a backslash does inside a quoted string.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Escapes {
    /// `quoted-string`, RFC 9110 §5.6.4: the next character is taken literally.
    Quoted,
    /// `opaque-tag`, RFC 9110 §8.8.3: a backslash is a character like another.
    None,
}

/// Iterates over the non-empty elements of one field line, split at `separator`.
pub(super) fn elements(line: &str, separator: char, escapes: Escapes) -> Elements<'_> {
    Elements { rest: Some(line), separator, escapes }
}

/// The iterator of [`elements`].
#[derive(Debug)]
pub(super) struct Elements<'a> {
    /// What is still to be read; `None` once the last element was handed out.
    rest: Option<&'a str>,
    separator: char,
    escapes: Escapes,
}

// === impl Elements ===

impl<'a> Iterator for Elements<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        loop {
            let rest = self.rest?;
            let cut = first_separator(rest, self.separator, self.escapes);
            let element = match cut.and_then(|at| rest.split_at_checked(at)) {
                Some((element, tail)) => {
                    self.rest = tail.strip_prefix(self.separator);
                    element
                }
                None => {
                    self.rest = None;
                    rest
                }
            };
            let element = trim_ows(element);
            if !element.is_empty() {
                return Some(element);
            }
        }
    }
}

/// Removes optional whitespace, which is only space and tab (RFC 9110 §5.6.3).
pub(super) fn trim_ows(text: &str) -> &str {
    text.trim_matches([' ', '\t'])
}

/// Tells whether `c` may stand in a `token` (RFC 9110 §5.6.2).
pub(super) fn is_token_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)
}

fn first_separator(text: &str, separator: char, escapes: Escapes) -> Option<usize> {
    let mut quoted = false;
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted && escapes == Escapes::Quoted => escaped = true,
            '"' => quoted = !quoted,
            _ if c == separator && !quoted => return Some(at),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(line: &str) -> Vec<&str> {
        elements(line, ',', Escapes::Quoted).collect()
    }

    #[test]
    fn elements_are_trimmed_and_empty_ones_vanish() {
        assert_eq!(split(" a ,, b\t,"), ["a", "b"]);
        assert!(split(" , ,").is_empty());
    }

    #[test]
    fn a_comma_inside_quotes_does_not_split() {
        assert_eq!(split(r#"a="x,y", b"#), [r#"a="x,y""#, "b"]);
    }

    #[test]
    fn an_escaped_quote_does_not_end_the_string() {
        assert_eq!(split(r#""a\",b",c"#), [r#""a\",b""#, "c"]);
    }

    #[test]
    fn a_backslash_in_an_entity_tag_escapes_nothing() {
        let tags: Vec<_> = elements(r#""a\","b""#, ',', Escapes::None).collect();
        assert_eq!(tags, [r#""a\""#, r#""b""#]);
    }

    #[test]
    fn an_unterminated_quote_takes_the_rest() {
        assert_eq!(split(r#"a, "b, c"#), ["a", r#""b, c"#]);
    }
}

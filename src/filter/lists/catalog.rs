//! Upstream's list of repositories, as far as they may be pulled through us.

use bytes::Bytes;
use serde_json::{Value, json};

use crate::{config::Upstream, upstream::List};

/// The list with the names that clients may use here, as they are to use them; `None` if it is none.
pub(super) fn for_clients(list: List, config: &Upstream) -> Option<List> {
    let document: Value = serde_json::from_slice(&list.body).ok()?;
    let names = match document.get("repositories")? {
        Value::Array(names) => names.iter().filter_map(Value::as_str).collect(),
        // An empty list of distribution's.
        Value::Null => Vec::new(),
        _ => return None,
    };
    let names: Vec<_> = names.into_iter().filter_map(|name| name_here(name, config)).collect();
    let body = Bytes::from(json!({ "repositories": names }).to_string());
    Some(List { body, ..list })
}

fn name_here<'a>(name: &'a str, config: &Upstream) -> Option<&'a str> {
    let name = match &config.prefix {
        Some(prefix) => name.strip_prefix(prefix.as_str())?.strip_prefix('/')?,
        None => name,
    };
    (config.allow.matches(name) && !config.deny.matches(name)).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn names(body: &str, keys: &str) -> Option<String> {
        let text = format!("upstreams: [{{name: r, url: 'https://r.example', {keys}}}]");
        let config = Config::parse(&text, "test").unwrap();
        let body = Bytes::from(body.to_owned());
        let list = List { content_type: None, link: None, filters: None, body };
        let list = for_clients(list, &config.upstreams[0])?;
        Some(String::from_utf8(list.body.to_vec()).unwrap())
    }

    #[test]
    fn what_may_not_be_pulled_is_not_listed() {
        let all = r#"{"repositories":["a/b","a/secret","c/d","team/a/b"]}"#;
        let keys = "allow: ['a/*'], deny: ['*/secret']";
        assert_eq!(names(all, keys).unwrap(), r#"{"repositories":["a/b"]}"#);
        assert_eq!(names(all, "prefix: team").unwrap(), r#"{"repositories":["a/b"]}"#);
        let none = r#"{"repositories":null}"#;
        assert_eq!(names(none, keys).unwrap(), r#"{"repositories":[]}"#);
        for other in ["<html>", "{}", r#"{"repositories":"a/b"}"#] {
            assert_eq!(names(other, keys), None, "{other}");
        }
    }
}

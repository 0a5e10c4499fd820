//! Values in the query of a URL.

/// A value as it stands in a query.
pub fn encoded(value: &str) -> String {
    url::form_urlencoded::byte_serialize(value.as_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_ends_nothing_in_the_query_that_it_stands_in() {
        assert_eq!(encoded("registry.lan"), "registry.lan");
        assert_eq!(encoded("a&b=c é"), "a%26b%3Dc+%C3%A9");
    }
}

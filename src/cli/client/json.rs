//! Changes to a JSON file that leave the rest of its text as it is.

use jsonc_parser::ParseOptions;
use jsonc_parser::cst::{CstInputValue, CstNode, CstObject, CstRootNode};

/// A JSON object being changed.
pub(super) struct Json {
    root: CstRootNode,
    object: CstObject,
}

/// Where in a list something new goes.
pub(super) enum At {
    Start,
    End,
}

// === impl Json ===

impl Json {
    /// Parses what is there as strictly as a client would; nothing stands for `{}`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let text = if text.trim().is_empty() { "{\n}\n" } else { text };
        let strict: serde_json::Value = serde_json::from_str(text)
            .map_err(|error| format!("is not JSON: {error}; mend or remove it"))?;
        let unfit = || "is not a JSON object; mend or remove it".to_owned();
        if !strict.is_object() {
            return Err(unfit());
        }
        let root = CstRootNode::parse(text, &ParseOptions::default())
            .map_err(|error| format!("is not JSON: {error}; mend or remove it"))?;
        let object = root.object_value().ok_or_else(unfit)?;
        Ok(Self { root, object })
    }

    /// Sees to it that the list `key` has `value`.
    pub(super) fn list(&self, key: &str, value: &str, at: At) -> Result<(), String> {
        let new = CstInputValue::String(value.to_owned());
        let Some(property) = self.object.get(key) else {
            self.object.append(key, CstInputValue::Array(vec![new]));
            return Ok(());
        };
        let list = property
            .array_value()
            .ok_or_else(|| format!("`{key}` is not a list; make it one, or remove it"))?;
        let elements = list.elements();
        if !elements.iter().any(|element| is_same(element, value)) {
            let index = if matches!(at, At::Start) { 0 } else { elements.len() };
            list.insert(index, new);
        }
        Ok(())
    }

    /// The texts of the list `key`; none where there is no such list.
    pub(super) fn texts(&self, key: &str) -> Vec<String> {
        let list = self.object.get(key).and_then(|property| property.array_value());
        let elements = list.into_iter().flat_map(|list| list.elements());
        elements.filter_map(|it| it.as_string_lit()?.decoded_value().ok()).collect()
    }

    /// Takes `value` out of the list `key`, where it is.
    pub(super) fn unlist(&self, key: &str, value: &str) {
        let list = self.object.get(key).and_then(|property| property.array_value());
        let elements = list.into_iter().flat_map(|list| list.elements());
        elements.filter(|element| is_same(element, value)).for_each(CstNode::remove);
    }

    pub(super) fn into_text(self) -> String {
        self.root.to_string()
    }
}

/// Whether an element is this text; a URL may end with a slash.
fn is_same(element: &CstNode, value: &str) -> bool {
    let text = element.as_string_lit().and_then(|text| text.decoded_value().ok());
    text.is_some_and(|text| text.trim_end_matches('/') == value)
}

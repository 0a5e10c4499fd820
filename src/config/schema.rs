//! The JSON Schema of the configuration: for editors, and for what needs to know every key.
//!
//! It is made from the types that read the file, so that it knows the same keys. It can't know what
//! the domain types refuse: `roadstead check` does.

use std::sync::OnceLock;

use schemars::generate::SchemaSettings;
use serde_json::{Value, json};

use super::raw::RawConfig;

/// The schema, as `conf/roadstead.schema.json` has it.
pub fn schema() -> &'static Value {
    static SCHEMA: OnceLock<Value> = OnceLock::new();
    SCHEMA.get_or_init(|| {
        let settings = SchemaSettings::draft07().with(|settings| settings.inline_subschemas = true);
        let mut schema = settings.into_generator().into_root_schema_for::<RawConfig>();
        schema.insert("title".to_owned(), json!("Roadstead"));
        let description = json!("The configuration of Roadstead, a cache for OCI registries.");
        schema.insert("description".to_owned(), description);
        schema.to_value()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(path: &str, schema: &Value, visit: &mut impl FnMut(&str, &Value)) {
        for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.{name}");
            visit(&path, inner);
            walk(&path, inner, visit);
            if inner["items"].is_object() {
                walk(&path, &inner["items"], visit);
            }
        }
    }

    #[test]
    fn every_key_is_described_and_no_other_is_known() {
        let mut keys = 0;
        walk("", schema(), &mut |path, inner| {
            keys += 1;
            assert!(inner["description"].is_string(), "{path} is not described");
            if inner["properties"].is_object() {
                assert_eq!(inner["additionalProperties"], json!(false), "{path}");
            }
        });
        assert!(keys > 90, "{keys}");
    }
}

//! The forms of plain values, as an editor may check them; `quantity` and its neighbours read them.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::RawByPattern;

/// Bytes: `100GiB`.
pub(in crate::config) struct Size;

/// A duration: `90s`.
pub(in crate::config) struct Time;

/// A whole number.
pub(in crate::config) struct Count;

/// A share or a number: `10%`.
pub(in crate::config) struct Reserve;

const SIZE: &str = r"^\s*[0-9]+\s*(B|KiB|MiB|GiB|TiB|kB|KB|MB|GB|TB)?\s*$";
const TIME: &str = r"^\s*([0-9]+(ms|s|m|h|d|w)\s*)+$";

// === impl JsonSchema ===

impl JsonSchema for Size {
    fn schema_name() -> Cow<'static, str> {
        "Size".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "integer"], "pattern": SIZE, "minimum": 0 })
    }
}

impl JsonSchema for Time {
    fn schema_name() -> Cow<'static, str> {
        "Time".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": TIME })
    }
}

impl JsonSchema for Count {
    fn schema_name() -> Cow<'static, str> {
        "Count".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["integer", "string"], "pattern": "^[0-9]+$", "minimum": 0 })
    }
}

impl JsonSchema for Reserve {
    fn schema_name() -> Cow<'static, str> {
        "Reserve".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "integer"], "pattern": "^[0-9]+\\s*%?$", "minimum": 0 })
    }
}

impl JsonSchema for RawByPattern {
    fn schema_name() -> Cow<'static, str> {
        "TimeByPattern".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let each = json_schema!({ "type": "string", "pattern": TIME });
        json_schema!({ "type": ["string", "object"], "pattern": TIME, "additionalProperties": each })
    }
}

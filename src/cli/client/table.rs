//! Changes to a TOML file that leave the rest of its text as it is.

use toml_edit::{Array, DocumentMut, Item, Table, Value};

/// Parses what is there.
pub(super) fn parse(text: &str) -> Result<DocumentMut, String> {
    text.parse::<DocumentMut>().map_err(|error| {
        let line = error.span().map_or(0, |span| {
            text.as_bytes().iter().take(span.start).filter(|byte| **byte == b'\n').count()
        });
        let what = error.message().lines().collect::<Vec<_>>().join(" ");
        format!("line {}: is not TOML: {what}; mend or remove it", line + 1)
    })
}

/// The table `key` in `parent`, made if it is missing; its headline is written only if it comes to
/// have keys of its own.
pub(super) fn child<'a>(parent: &'a mut Table, key: &str) -> Result<&'a mut Table, String> {
    let new = || {
        let mut table = Table::new();
        table.set_implicit(true);
        Item::Table(table)
    };
    parent
        .entry(key)
        .or_insert_with(new)
        .as_table_mut()
        .ok_or_else(|| format!("`{key}` is not a [table]; write it as one"))
}

/// Sees to it that the list `key` begins with `value`, or has it anywhere.
pub(super) fn list(table: &mut Table, key: &str, value: &str) -> Result<(), String> {
    let list = table
        .entry(key)
        .or_insert_with(|| Item::Value(Value::Array(Array::new())))
        .as_array_mut()
        .ok_or_else(|| format!("`{key}` is not a list; make it one, or remove it"))?;
    if !list.iter().any(|item| item.as_str() == Some(value)) {
        list.insert(0, value);
        // What was first has no space before it.
        if let Some(next) = list.get_mut(1)
            && next.decor().prefix().is_none_or(|space| space.as_str() == Some(""))
        {
            next.decor_mut().set_prefix(" ");
        }
    }
    Ok(())
}

/// Sets a key unless it has this value.
pub(super) fn set(table: &mut Table, key: &str, value: impl Into<Value>) {
    let value = value.into();
    let is_same = |item: &Item| match (item.as_value(), &value) {
        (Some(Value::String(a)), Value::String(b)) => a.value() == b.value(),
        (Some(Value::Boolean(a)), Value::Boolean(b)) => a.value() == b.value(),
        _ => false,
    };
    if !table.get(key).is_some_and(is_same) {
        table.insert(key, Item::Value(value));
    }
}

/// The first key of a document without any; comments that it may have come before.
pub(super) fn first(document: &mut DocumentMut, key: &str, value: impl Into<Value>) {
    let comments = document.trailing().as_str().unwrap_or_default().to_owned();
    let line = if comments.is_empty() || comments.ends_with('\n') { "" } else { "\n" };
    document.insert(key, Item::Value(value.into()));
    if let Some(mut key) = document.key_mut(key) {
        key.leaf_decor_mut().set_prefix(format!("{comments}{line}"));
    }
    document.set_trailing("");
}

/// Takes away a key that is true.
pub(super) fn unset(table: &mut Table, key: &str) {
    if table.get(key).and_then(Item::as_bool) == Some(true) {
        table.remove(key);
    }
}

/// The text, in which new tables come after everything that was there, its last comments too.
pub(super) fn print(mut document: DocumentMut) -> String {
    let last = last_position(document.as_table());
    let mut end = document.trailing().as_str().unwrap_or_default().to_owned();
    let mut next = last;
    settle(document.as_table_mut(), &mut next, &mut end);
    if next != last {
        document.set_trailing("");
    }
    document.to_string()
}

fn last_position(table: &Table) -> isize {
    let inner = table.iter().flat_map(|(_, item)| match item {
        Item::Table(table) => vec![last_position(table)],
        Item::ArrayOfTables(tables) => tables.iter().map(last_position).collect(),
        _ => Vec::new(),
    });
    inner.chain(table.position()).max().unwrap_or(0)
}

/// Puts tables that have no place in the text behind all others; the first of them comes after `end`.
fn settle(table: &mut Table, next: &mut isize, end: &mut String) {
    for (_, item) in table.iter_mut() {
        let Item::Table(table) = item else { continue };
        let is_shown = table.iter().any(|(_, item)| item.is_value());
        if is_shown && table.position().is_none() {
            *next += 1;
            table.set_position(Some(*next));
            let before = std::mem::take(end);
            if !before.is_empty() {
                let line = if before.ends_with('\n') { "" } else { "\n" };
                let gap = if before.trim().is_empty() { "" } else { "\n" };
                table.decor_mut().set_prefix(format!("{before}{line}{gap}"));
            }
        }
        settle(table, next, end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_file_is_told_with_its_line() {
        let said = parse("a = 1\nb =\n").unwrap_err();
        assert!(said.starts_with("line 2: is not TOML: "), "{said}");
        assert_eq!(said.lines().count(), 1);
    }

    #[test]
    fn lists_and_keys_change_only_where_they_differ() {
        let text = "a = [ 'x', \"y\" ] # kept\nb = 'same'\n";
        let mut document = parse(text).unwrap();
        list(&mut document, "a", "y").unwrap();
        set(&mut document, "b", "same");
        assert_eq!(document.to_string(), text);
        list(&mut document, "a", "z").unwrap();
        set(&mut document, "b", "other");
        let after = document.to_string();
        assert!(after.contains("\"z\"") && after.contains("'x', \"y\" ] # kept"), "{after}");
        assert!(list(&mut document, "b", "z").unwrap_err().contains("`b` is not a list"));
    }
}

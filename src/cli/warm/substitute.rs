//! Variables in a compose file: `$NAME`, `${NAME}`, `${NAME:-default}` and their kin.
//!
//! As the compose specification has them ("Interpolation"), except that a
//! variable which is not set and has no default is an error: an image without a
//! part of its name is never what was meant.

/// Defaults within defaults.
const MOST_DEEP: usize = 16;

/// What a variable stands for.
pub(super) type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// `text` with all variables put in; the error says which can't be, and what to do.
pub(super) fn substitute(text: &str, lookup: Lookup<'_>) -> Result<String, String> {
    put_in(text, lookup, 0)
}

fn put_in(text: &str, lookup: Lookup<'_>, depth: usize) -> Result<String, String> {
    if depth > MOST_DEEP {
        return Err("its defaults are nested too deeply; set the variable".to_owned());
    }
    let mut whole = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        whole.push_str(before);
        if let Some(after) = after.strip_prefix('$') {
            whole.push('$');
            rest = after;
        } else if let Some(inside) = after.strip_prefix('{') {
            let end = closing(inside).ok_or_else(|| {
                format!("`${{{inside}` has no closing brace; add it, or write $$ for a dollar")
            })?;
            let (expression, after) = inside.split_at(end);
            whole.push_str(&value(expression, lookup, depth)?);
            rest = after.strip_prefix('}').unwrap_or(after);
        } else {
            let (name, after) = name(after);
            if name.is_empty() {
                return Err("a dollar stands before no name; write $$ for one".to_owned());
            }
            whole.push_str(&lookup(name).ok_or_else(|| unset(name))?);
            rest = after;
        }
    }
    whole.push_str(rest);
    Ok(whole)
}

/// What `NAME`, `NAME:-default` and so on between braces stand for.
fn value(expression: &str, lookup: Lookup<'_>, depth: usize) -> Result<String, String> {
    let (name, rest) = name(expression);
    if name.is_empty() {
        return Err(format!("`${{{expression}}}` names no variable; correct it"));
    }
    let set = lookup(name);
    let word = |word: &str| put_in(word, lookup, depth + 1);
    // With a colon, a variable that is empty counts as not set.
    let (set, operator) = match rest.strip_prefix(':') {
        Some(operator) => (set.filter(|value| !value.is_empty()), operator),
        None => (set, rest),
    };
    let mut characters = operator.chars();
    match (characters.next(), set) {
        (None, set) if rest.is_empty() => set.ok_or_else(|| unset(name)),
        (Some('-'), Some(value)) | (Some('?'), Some(value)) => Ok(value),
        (Some('-'), None) => word(characters.as_str()),
        (Some('?'), None) => {
            let why = word(characters.as_str())?;
            Err(if why.is_empty() { unset(name) } else { format!("{}: {why}", unset(name)) })
        }
        (Some('+'), Some(_)) => word(characters.as_str()),
        (Some('+'), None) => Ok(String::new()),
        _ => Err(format!("`${{{expression}}}` is no expression that compose knows; correct it")),
    }
}

/// The place of the brace that closes what begins here.
fn closing(text: &str) -> Option<usize> {
    let mut depth = 0_usize;
    let mut before = ' ';
    for (place, c) in text.char_indices() {
        match c {
            '{' if before == '$' => depth += 1,
            '}' if depth == 0 => return Some(place),
            '}' => depth -= 1,
            _ => {}
        }
        before = c;
    }
    None
}

/// A variable's name, and what follows it.
fn name(text: &str) -> (&str, &str) {
    let is_first = |c: char| c.is_ascii_alphabetic() || c == '_';
    let is_next = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if !text.starts_with(is_first) {
        return ("", text);
    }
    text.split_at(text.find(|c| !is_next(c)).unwrap_or(text.len()))
}

fn unset(name: &str) -> String {
    format!("{name} is not set; export it, or write it into .env beside the file")
}

/// `NAME=value` lines of an `.env` file: comments, quotes and `export` as compose takes them.
pub(super) fn variables(text: &str) -> Vec<(String, String)> {
    let variable = |line: &str| {
        let line = line.trim();
        let line = line.strip_prefix("export ").unwrap_or(line);
        let (key, value) = line.split_once('=')?;
        let key = key.trim();
        if name(key) != (key, "") || key.is_empty() {
            return None;
        }
        Some((key.to_owned(), unquoted(value.trim()).to_owned()))
    };
    text.lines().filter_map(variable).collect()
}

fn unquoted(value: &str) -> &str {
    for quote in ['"', '\''] {
        if let Some(inside) = value.strip_prefix(quote)
            && let Some((inside, _)) = inside.split_once(quote)
        {
            return inside;
        }
    }
    value.split(" #").next().unwrap_or_default().trim_end()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lookup(name: &str) -> Option<String> {
        match name {
            "TAG" => Some("3.20".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        }
    }

    #[test]
    fn variables_and_their_defaults_are_put_in() {
        for (text, expected) in [
            ("alpine", "alpine"),
            ("alpine:$TAG", "alpine:3.20"),
            ("alpine:${TAG}-slim", "alpine:3.20-slim"),
            ("a:${NONE:-1}", "a:1"),
            ("a:${EMPTY:-1}", "a:1"),
            ("a${EMPTY-1}", "a"),
            ("a:${NONE-1}", "a:1"),
            ("a:${TAG:-1}", "a:3.20"),
            ("${NONE:-${OTHER:-b:${TAG}}}", "b:3.20"),
            ("a${TAG:+:x}", "a:x"),
            ("a${NONE:+:x}", "a"),
            ("a:${TAG:?say which}", "a:3.20"),
            ("a$$b", "a$b"),
            ("${NONE:-a-b}", "a-b"),
        ] {
            assert_eq!(substitute(text, &lookup), Ok(expected.to_owned()), "{text}");
        }
    }

    #[test]
    fn what_is_not_set_is_told_and_what_is_wrong_too() {
        for (text, said) in [
            ("a:$NONE", "NONE is not set; export it"),
            ("a:${NONE}", "NONE is not set"),
            ("a:${NONE:?say which}", "say which"),
            ("a:${EMPTY:?}", "EMPTY is not set"),
            ("a:${TAG", "no closing brace"),
            ("a:$", "write $$"),
            ("a:${}", "names no variable"),
            ("a:${TAG!x}", "no expression"),
        ] {
            let error = substitute(text, &lookup).unwrap_err();
            assert!(error.contains(said), "{text}: {error}");
        }
        let deep = "${A:-".repeat(20) + &"}".repeat(20);
        assert!(substitute(&deep, &lookup).unwrap_err().contains("too deeply"));
    }

    #[test]
    fn an_env_file_is_read_as_compose_reads_it() {
        let text = "# tags\nTAG=3.20\nexport A = 'b c' # d\nB=\"x#y\"\nC=d # e\n=x\n9=y\nbad\n";
        let expected = [("TAG", "3.20"), ("A", "b c"), ("B", "x#y"), ("C", "d")];
        let expected = expected.map(|(key, value)| (key.to_owned(), value.to_owned()));
        assert_eq!(variables(text), expected);
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,200}", braces in "[${}:A?+-]{0,60}") {
            let _ = (substitute(&text, &lookup), substitute(&braces, &lookup), variables(&text));
        }
    }
}

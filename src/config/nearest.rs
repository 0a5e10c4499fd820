//! The word that a mistyped word was probably meant to be.
//!
//! Used for unknown keys and unknown values; a guess is offered only when it is close.

use super::problem::{Refusal, quoted};

/// The known word nearest to `word`, if at most a third of it is mistyped.
pub(super) fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    known
        .iter()
        .map(|candidate| (distance(word, candidate), *candidate))
        .filter(|(typos, candidate)| *typos <= candidate.len().div_ceil(3))
        .min_by_key(|(typos, _)| *typos)
        .map(|(_, candidate)| candidate)
}

/// One word out of a closed list, as the value that stands beside it.
pub(super) fn choose<T: Copy>(word: &str, choices: &[(&str, T)]) -> Result<T, Refusal> {
    if let Some((_, value)) = choices.iter().find(|(name, _)| *name == word) {
        return Ok(*value);
    }
    let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
    Err(Refusal::new(
        format!("{} is not a known value", quoted(word)),
        format!("write {}", names.join(" or ")),
    ))
}

/// Levenshtein's edit distance, over characters.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (removed, x) in a.chars().enumerate() {
        let mut left = removed + 1;
        let mut next = vec![left];
        for ((y, diagonal), above) in b.iter().zip(&row).zip(row.iter().skip(1)) {
            let replaced = diagonal + usize::from(x != *y);
            left = replaced.min(left + 1).min(above + 1);
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_single_edits() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("abc", ""), 3);
        assert_eq!(distance("same", "same"), 0);
    }

    #[test]
    fn a_typo_finds_its_word_and_nonsense_finds_none() {
        let known = ["fresh_for", "serve_stale_for", "immutable"];
        assert_eq!(nearest("fresh_fro", &known), Some("fresh_for"));
        assert_eq!(nearest("zebra", &known), None);
    }
}

//! A list of images: one in a line, `#` begins a comment.

/// The images of a list, in its order.
pub fn parse_list(text: &str) -> Vec<String> {
    let text = text.trim_start_matches('\u{feff}');
    let image = |line: &str| line.split('#').next().unwrap_or_default().trim().to_owned();
    text.lines().map(image).filter(|image| !image.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_blank_lines_are_no_images() {
        let text =
            "\u{feff}# nightly\r\nalpine:3.20\r\n\n  ghcr.io/org/app:1   # the app\n#\n\tb\n";
        assert_eq!(parse_list(text), ["alpine:3.20", "ghcr.io/org/app:1", "b"]);
        assert!(parse_list("").is_empty() && parse_list("#\n\n").is_empty());
    }
}

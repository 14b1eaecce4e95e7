//! What the guides show, for tests that run it.

/// The block of `language` in a guide, with these instead of its own words.
#[track_caller]
pub(crate) fn block(guide: &str, language: &str, instead: &[(&str, &str)]) -> String {
    let (_, rest) = guide.split_once(&format!("```{language}\n")).unwrap();
    let (block, _) = rest.split_once("```").unwrap();
    instead
        .iter()
        .fold(block.to_owned(), |block, (word, other)| {
            assert!(block.contains(word), "{word} in {block}");
            block.replace(word, other)
        })
}

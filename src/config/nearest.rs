//! "Did you mean": the known word with the fewest edits, when few enough.

/// The word of `words` closest to `given`, unless more than a third of it would have to change.
pub fn nearest<'a>(given: &str, words: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = (given.len() / 3).max(1);
    let distances = words.into_iter().map(|word| (edits(given, word), word));
    distances.min().filter(|(distance, _)| *distance <= allowed).map(|(_, word)| word)
}

/// Insertions, deletions, replacements and swaps of neighbours that turn `a` into `b`, over bytes.
fn edits(a: &str, b: &str) -> usize {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let mut before_last = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let replaced = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = replaced.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before_last[j - 2] + 1);
            }
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_are_counted() {
        for (a, b, want) in [("", "", 0), ("", "abc", 3), ("abc", "", 3), ("abc", "abc", 0), ("abc", "acb", 1)] {
            assert_eq!(edits(a, b), want, "{a} {b}");
        }
        assert_eq!(edits("proxy_lisen", "proxy_listen"), 1);
        assert_eq!(edits("kitten", "sitting"), 3);
    }

    #[test]
    fn the_closest_word_is_found_and_a_far_one_is_not() {
        let words = ["proxy_listen", "admin_listen", "prefix", "user"];
        for (given, want) in [
            ("porxy_listen", Some("proxy_listen")),
            ("admin_lsiten", Some("admin_listen")),
            ("prefx", Some("prefix")),
            ("usr", Some("user")),
            ("colour", None),
            ("", None),
        ] {
            assert_eq!(nearest(given, words), want, "{given}");
        }
    }
}

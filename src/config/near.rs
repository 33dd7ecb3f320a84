//! Which known word did a mistyped one mean?
#![forbid(unsafe_code)]

/// The candidate with the fewest typing slips, if they are few for its length.
pub(super) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let slips = |candidate: &&str| slips(word, candidate);
    let best = candidates.into_iter().min_by_key(slips)?;
    let allowed = word.chars().count().max(best.chars().count()) / 3;
    (slips(&best) <= allowed).then_some(best)
}

/// Insertions, deletions, replacements and swaps of neighbours between two words (optimal string alignment).
fn slips(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(WORD_MAX).collect(), b.chars().collect());
    let mut before = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for (i, &from) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, &to) in b.iter().enumerate() {
            let mut fewest = (above[j] + usize::from(from != to)).min(above[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && a[i - 1] == to && from == b[j - 1] {
                fewest = fewest.min(before[j - 1] + 1);
            }
            row.push(fewest);
        }
        before = core::mem::replace(&mut above, row);
    }
    above[b.len()]
}

const WORD_MAX: usize = 64; // no known word is longer

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_a_letter_more_less_other_or_swapped() {
        assert_eq!(slips("ports", "port"), 1);
        assert_eq!(slips("prots", "ports"), 1);
        assert_eq!(slips("pxrts", "ports"), 1);
        assert_eq!(slips("", "ports"), 5);
    }

    #[test]
    fn far_words_are_nobody_s_neighbours() {
        assert_eq!(nearest("tls", ["tcp", "udp"]), None);
        assert_eq!(nearest("secret", ["secrets", "secret_file"]), Some("secrets"));
        assert_eq!(nearest("x", []), None);
    }
}

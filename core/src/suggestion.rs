//! Near names, for "did you mean".

/// The candidate nearest to `name`, if it is near enough to be what was meant. Upper and lower case count as alike.
///
/// ```
/// assert_eq!(syncline_core::nearest_name("lits", &["lists", "todos"]), Some("lists"));
/// assert_eq!(syncline_core::nearest_name("users", &["lists", "todos"]), None);
/// ```
pub fn nearest_name<'a>(name: &str, candidates: &[&'a str]) -> Option<&'a str> {
    let name = name.to_lowercase();
    let limit = (name.chars().count() / 3).clamp(1, 3);
    candidates
        .iter()
        .map(|candidate| (distance(&name, &candidate.to_lowercase(), limit), *candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Edits (insert, remove, replace, swap of neighbours) that turn `a` into `b`; anything above `limit` may be inexact.
fn distance(a: &str, b: &str, limit: usize) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    if a.len().abs_diff(b.len()) > limit {
        return limit + 1;
    }
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                let mut best = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
                if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                    best = best.min(rows[i - 2][j - 2] + 1);
                }
                best
            };
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_near_names_are_suggested() {
        let keys = ["query", "queries", "priority", "auto_subscribe"];
        assert_eq!(nearest_name("qeury", &keys), Some("query"));
        assert_eq!(nearest_name("autosubscribe", &keys), Some("auto_subscribe"));
        assert_eq!(nearest_name("Priority", &keys), Some("priority"));
        assert_eq!(nearest_name("data", &keys), None);
    }
}

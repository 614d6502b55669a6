//! Splits that are a share of the images of `train`, drawn class by class.

use std::collections::BTreeMap;

use super::entry::Entry;
use crate::{config::Split, identity::Digest};

/// Moves a share of the images of `train` into each split of `shares`, class by class, in the order of digests of their
/// paths. So the draw depends on the paths alone, and an image that is added moves at most one other.
///
/// Of a class, a split gets its share rounded half up, but at least one image while `train` keeps one.
pub(super) fn draw(entries: &mut [Entry], labels: &[i64], shares: &[(Split, f64)]) {
    let mut classes: BTreeMap<i64, Vec<usize>> = BTreeMap::new();
    for (row, label) in labels.iter().enumerate().filter(|(row, _)| entries[*row].split == Split::Train) {
        classes.entry(*label).or_default().push(row);
    }
    if shares.is_empty() {
        return;
    }
    for rows in classes.values_mut() {
        rows.sort_by_cached_key(|row| Digest::new("share").text(&entries[*row].path).id());
        let mut left = rows.iter().copied();
        for (split, share) in shares {
            let wanted = (share * rows.len() as f64 + 0.5).floor().max(1.0) as usize;
            let count = wanted.min(left.len().saturating_sub(1));
            left.by_ref().take(count).for_each(|row| entries[row].split = *split);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            entry::{File, Origin},
            label::Label,
        },
        *,
    };

    fn drawn(sizes: &[usize], shares: &[(Split, f64)]) -> Vec<String> {
        let (mut entries, mut labels) = (Vec::new(), Vec::new());
        for (label, size) in (0..).zip(sizes) {
            entries.extend((0..*size).map(|image| Entry {
                path: format!("{label}/{image}.png"),
                label: Label::Number(label),
                split: Split::Train,
                origin: Origin { file: "".into(), line: None },
                file: File::NotLookedUp,
            }));
            labels.extend(vec![label; *size]);
        }
        draw(&mut entries, &labels, shares);
        let drawn = entries.iter().filter(|entry| entry.split != Split::Train);
        drawn.map(|entry| format!("{} {}", entry.split.as_str(), entry.path)).collect()
    }

    #[test]
    fn a_share_is_drawn_class_by_class() {
        let count = |drawn: &[String], prefix: &str| drawn.iter().filter(|row| row.starts_with(prefix)).count();
        let both = [(Split::Validation, 0.1), (Split::Test, 0.25)];
        let found = drawn(&[100, 3, 2, 1], &both);
        for (prefix, images) in [
            ("validation 0/", 10),
            ("test 0/", 25),
            ("validation 1/", 1),
            ("test 1/", 1),
            ("validation 2/", 1),
            ("test 2/", 0),
            ("validation 3/", 0),
        ] {
            assert_eq!(count(&found, prefix), images, "{prefix}");
        }
        assert!(drawn(&[100], &[]).is_empty());
        // Images that are added change the draw of the others by their share alone.
        let (small, large) = (drawn(&[100], &both[..1]), drawn(&[120], &both[..1]));
        assert!(small.iter().filter(|row| large.contains(row)).count() >= 7, "{small:?} {large:?}");
    }
}

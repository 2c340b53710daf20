//! Which wheels share a layer: heavy ones alone, the tail together, within a budget.
//!
//! Deterministic, and stable: a new version of one small wheel moves no other to another layer, and a new version of a
//! heavy one changes its own layer only. It knows names and sizes, and nothing of what is in a wheel.

use crate::digest::Digest;

/// What is grouped. Sizes are of the wheel files, in bytes: what a layer costs to push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Item<'a> {
    /// The normalised name of the distribution; unique among the items.
    pub name: &'a str,
    pub size: u64,
}

/// From this size a wheel has a layer of its own. Below it, a layer's own cost (a request or two per push and pull) is more
/// than what sending it again with its neighbours costs.
const HEAVY: u64 = 4 << 20;
/// About how large one layer of the tail becomes.
const TAIL: u64 = 24 << 20;

/// Groups of indices into `items`, lowest layer first: heavy ones by name, then the tail's. At most `budget` groups, which
/// is at least 2.
pub fn group(items: &[Item<'_>], budget: usize) -> Vec<Vec<usize>> {
    let budget = budget.max(2);
    let mut order: Vec<usize> = (0..items.len()).collect();
    order.sort_by_key(|index| items[*index].name);
    let (mut heavy, mut tail): (Vec<usize>, Vec<usize>) =
        order.into_iter().partition(|index| items[*index].size >= HEAVY);

    // Over budget, the lightest of the heavy ones join the tail.
    let most = budget - 1;
    if heavy.len() > most {
        heavy.sort_by_key(|index| (std::cmp::Reverse(items[*index].size), items[*index].name));
        tail.extend(heavy.split_off(most));
        heavy.sort_by_key(|index| items[*index].name);
        tail.sort_by_key(|index| items[*index].name);
    }

    // A wheel's place in the tail follows from its name alone, so that none moves when another changes. Only when the
    // tail doubles does it divide again.
    let size: u64 = tail.iter().map(|index| items[*index].size).sum();
    let wanted = (size / TAIL).max(1).next_power_of_two() as usize;
    let room = budget - heavy.len();
    let buckets = wanted.min(if room.is_power_of_two() {
        room
    } else {
        room.next_power_of_two() / 2
    });
    let mut tails = vec![Vec::new(); buckets];
    for index in tail {
        let digest = Digest::of(items[index].name.as_bytes());
        tails[usize::from(digest.bytes()[0]) % buckets].push(index);
    }
    let mut groups: Vec<Vec<usize>> = heavy.into_iter().map(|index| vec![index]).collect();
    groups.extend(tails.into_iter().filter(|tail| !tail.is_empty()));
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: u64 = 1 << 20;

    fn named<'a>(groups: &[Vec<usize>], items: &[Item<'a>]) -> Vec<Vec<&'a str>> {
        let names = |group: &Vec<usize>| group.iter().map(|index| items[*index].name).collect();
        groups.iter().map(names).collect()
    }

    #[test]
    fn heavy_ones_are_alone_and_the_tail_is_together() {
        let items = [("six", 1), ("numpy", 20 * MB), ("click", 2), ("pandas", 12 * MB)];
        let mut items = items.map(|(name, size)| Item { name, size });
        let expected = vec![vec!["numpy"], vec!["pandas"], vec!["click", "six"]];
        assert_eq!(named(&group(&items, 60), &items), expected);
        items.reverse();
        assert_eq!(named(&group(&items, 60), &items), expected);
        assert_eq!(group(&[], 60), Vec::<Vec<usize>>::new());
    }

    #[test]
    fn the_budget_holds_and_everything_is_in_once() {
        let names: Vec<String> = (0..300).map(|number| format!("p{number}")).collect();
        for budget in [2, 3, 7, 60] {
            let item = |(index, name): (usize, &'_ String)| (name.clone(), (index as u64 % 9) * MB);
            let sized: Vec<(String, u64)> = names.iter().enumerate().map(item).collect();
            let items: Vec<Item<'_>> = sized
                .iter()
                .map(|(name, size)| Item { name, size: *size })
                .collect();
            let groups = group(&items, budget);
            assert!(groups.len() <= budget, "{} of {budget}", groups.len());
            let mut all = groups.concat();
            all.sort_unstable();
            assert_eq!(all, (0..300).collect::<Vec<_>>());
        }
    }

    #[test]
    fn one_small_change_moves_nobody() {
        let names: Vec<String> = (0..100).map(|number| format!("p{number}")).collect();
        let items: Vec<Item<'_>> = names
            .iter()
            .map(|name| Item {
                name,
                size: 700 << 10,
            })
            .collect();
        let mut changed = items.clone();
        changed[17].size += 5000;
        assert_eq!(group(&items, 60), group(&changed, 60));
        let without: Vec<Item<'_>> = items.iter().copied().filter(|item| item.name != "p17").collect();
        let before = named(&group(&items, 60), &items);
        let after = named(&group(&without, 60), &without);
        let differing = before
            .iter()
            .zip(&after)
            .filter(|(one, other)| one != other)
            .count();
        assert_eq!((before.len(), differing), (after.len(), 1));
    }
}

use std::{collections::BTreeMap, ops::Bound};

use proptest::prelude::*;
use tree::{Entries, Kind, LayerPath, Node};

use crate::sample::path;

/// What is done to a map, with a number that stands for a path.
#[derive(Clone, Debug)]
enum Change {
    Insert(u16),
    InOrder(u16, u16),
    Remove(u16),
    KeepEvery(u16),
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let number = 0..600u16;
    let change = prop_oneof![
        4 => number.clone().prop_map(Change::Insert),
        2 => (number.clone(), 1..200u16).prop_map(|(first, count)| Change::InOrder(first, count)),
        3 => number.prop_map(Change::Remove),
        1 => (1..4u16).prop_map(Change::KeepEvery),
    ];
    prop::collection::vec(change, 0..60)
}

fn bound(kind: u8, at: &LayerPath) -> Bound<&[u8]> {
    match kind {
        0 => Bound::Included(at.as_bytes()),
        1 => Bound::Excluded(at.as_bytes()),
        _ => Bound::Unbounded,
    }
}

proptest! {
    #[test]
    fn entries_are_a_map(changes in changes(), from in 0..600u16, span in 1..600u16, kinds in (0..3u8, 0..3u8)) {
        let path = |number: u16| path(&format!("{number:04}"));
        let (mut entries, mut map) = (Entries::new(), BTreeMap::new());
        for (time, change) in changes.into_iter().enumerate() {
            let node = Node { uid: time as u32, ..Node::new(Kind::Fifo, 0) };
            match change {
                Change::Insert(at) => {
                    prop_assert_eq!(entries.insert(path(at), node.clone()), map.insert(path(at), node));
                }
                Change::InOrder(first, count) => {
                    let some = (first..first + count).map(|at| (path(at), node.clone()));
                    entries.extend(some.clone());
                    map.extend(some);
                }
                Change::Remove(at) => prop_assert_eq!(entries.remove(&path(at)), map.remove(&path(at))),
                Change::KeepEvery(nth) => {
                    let stays = |path: &LayerPath| path.as_bytes().iter().map(|b| u16::from(*b)).sum::<u16>() % nth == 0;
                    entries.retain(|path, _| stays(path));
                    map.retain(|path, _| stays(path));
                }
            }
            prop_assert_eq!(entries.len(), map.len());
        }
        prop_assert_eq!(entries.is_empty(), map.is_empty());
        prop_assert!(entries.iter().eq(map.iter()));
        prop_assert!(entries.keys().rev().eq(map.keys().rev()));
        prop_assert_eq!(entries.last_key_value(), map.last_key_value());
        let (from, to) = (path(from), path(from + span));
        let bounds = (bound(kinds.0, &from), bound(kinds.1, &to));
        prop_assert!(entries.range(bounds).eq(map.range::<[u8], _>(bounds)));
        prop_assert!(entries.range(bounds).rev().eq(map.range::<[u8], _>(bounds).rev()));
        let turned = (Bound::Included(to.as_bytes()), Bound::Included(from.as_bytes()));
        prop_assert_eq!(entries.range(turned).count(), 0);
        for number in 0..600 {
            prop_assert_eq!(entries.get(&path(number)), map.get(&path(number)));
        }
        entries.values_mut().for_each(|node| node.gid = 7);
        map.values_mut().for_each(|node| node.gid = 7);
        prop_assert_eq!(&entries, &map.clone().into_iter().collect::<Entries>());
        prop_assert!(entries.into_iter().eq(map));
    }
}

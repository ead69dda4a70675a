//! Worlds with one fingerprint are one world: whichever of them a search goes on with, the same follows.
//!
//! ```text
//!   explored, the oldest world first ──▶ fingerprint ─▶ fingerprints that follow ─┐
//!             the newest world first ──▶ fingerprint ─▶ fingerprints that follow ─┼─ equal
//!             one or another ──────────▶ fingerprint ─▶ fingerprints that follow ─┘
//! ```
//!
//! A model leaves out of its fingerprints what no rule reads. If that is one thing too many, a world is never looked at
//! because another with its fingerprint was there before, and what is found depends on the order. Different orders come
//! to a fingerprint by different paths, so mostly with different worlds behind it. Properties are asked of every world
//! that is come to, also of those whose fingerprint is known already.

use std::collections::btree_map::Entry;
use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, VecDeque};
use std::fmt::Debug;
use std::hash::{Hash, Hasher};

use stateright::{Expectation, Model};

/// A world: the one before it with the step from there, and what follows it.
struct Reached<A> {
    from: Option<(u64, A)>,
    next: BTreeMap<u64, A>,
}

type Explored<A> = BTreeMap<u64, Reached<A>>;

fn fingerprint(world: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    world.hash(&mut hasher);
    hasher.finish()
}

/// Every world within the bounds. `pick` says which of so many waiting worlds comes next.
fn explored<M: Model>(model: &M, mut pick: impl FnMut(usize) -> usize) -> Explored<M::Action>
where
    M::State: Hash,
    M::Action: Clone + Debug,
{
    let mut properties = model.properties();
    properties.retain(|property| property.expectation == Expectation::Always);
    let mut waiting: VecDeque<M::State> = model.init_states().into();
    let first = |world| (fingerprint(world), Reached { from: None, next: BTreeMap::new() });
    let mut all: Explored<M::Action> = waiting.iter().map(first).collect();
    let mut steps = vec![];
    while let Some(world) = waiting.swap_remove_front(pick(waiting.len())) {
        let at = fingerprint(&world);
        model.actions(&world, &mut steps);
        let mut next = BTreeMap::new();
        for step in steps.drain(..) {
            let Some(follows) = model.next_state(&world, step.clone()) else { continue };
            let to = fingerprint(&follows);
            let violated = properties.iter().find(|property| !(property.condition)(model, &follows));
            let way = || format!("{}  {step:?}", path(&all, at));
            assert!(violated.is_none(), "violated: {}\n{}", violated.map_or("", |property| property.name), way());
            if let Entry::Vacant(place) = all.entry(to) {
                place.insert(Reached { from: Some((at, step.clone())), next: BTreeMap::new() });
                waiting.push_back(follows);
            }
            // A step that changes nothing may as well not be there.
            if to != at {
                next.insert(to, step);
            }
        }
        all.entry(at).and_modify(|seen| seen.next = next);
    }
    all
}

/// The steps to a world, one on each line.
fn path<A: Debug>(all: &Explored<A>, mut to: u64) -> String {
    let mut steps = vec![];
    while let Some((from, step)) = all.get(&to).and_then(|seen| seen.from.as_ref()) {
        steps.push(format!("  {step:?}\n"));
        to = *from;
    }
    steps.into_iter().rev().collect()
}

/// Whatever the order, the same follows each fingerprint.
pub(crate) fn fingerprints_suffice<M: Model>(name: &str, model: &M)
where
    M::State: Hash,
    M::Action: Clone + Debug,
{
    let oldest_first = explored(model, |_| 0);
    println!("{name:<42} {:>9} unique states, in three orders", oldest_first.len());
    compare(name, &oldest_first, &explored(model, |waiting| waiting.saturating_sub(1)));
    // Knuth's generator for 64 bits (MMIX), the same each time.
    let mut random = 1_u64;
    let somewhere = |waiting: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as usize % waiting.max(1)
    };
    compare(name, &oldest_first, &explored(model, somewhere));
}

fn compare<A: Debug>(name: &str, one: &Explored<A>, other: &Explored<A>) {
    let differs = |at: &u64| {
        let (seen, there) = (one.get(at)?, other.get(at)?);
        let left = seen.next.iter().find(|(to, _)| !there.next.contains_key(to)).map(|(_, step)| step);
        let right = there.next.iter().find(|(to, _)| !seen.next.contains_key(to)).map(|(_, step)| step);
        let ways = || format!("{}then {left:?}, and\n{}then {right:?}", path(one, *at), path(other, *at));
        (left.is_some() || right.is_some()).then(ways)
    };
    let shortest = one.keys().filter_map(differs).min_by_key(String::len);
    assert!(shortest.is_none(), "{name}: one fingerprint, and other worlds follow:\n{}", shortest.unwrap_or_default());
    assert_eq!(one.len(), other.len(), "{name}: one order comes to more worlds than the other");
}

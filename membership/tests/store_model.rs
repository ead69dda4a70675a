//! The model of what consumers keep: every interleaving of late, repeated and reordered requests, of lives that are
//! suspected, fenced and begun anew, of sessions that end and do not know it, within bounds, driven through the
//! production rules. `support/store_world.rs` draws the world that they act in.
//!
//! `QUORATE_MODEL=full cargo test --release -p quorate-membership --test store_model -- --nocapture` explores wider
//! bounds. Beside what must always hold stand situations that must be reached, or the run has shown nothing.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a helper of tests stops the test")]

#[path = "support/store_bounds.rs"]
mod bounds;
#[path = "support/store_checks.rs"]
mod checks;
#[path = "support/store_moves.rs"]
mod moves;
#[path = "support/same.rs"]
mod same;
#[path = "support/store_view.rs"]
mod view;
#[path = "support/store_world.rs"]
mod world;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use checks::{Situation, Wrong};
use moves::Step;
use quorate_membership::*;
use stateright::{Checker, HasDiscoveries, Model, Path, Property};
use world::{Bounds, LOCKS, SECOND, World};

struct Consumers {
    bounds: Bounds,
    seen: AtomicU32,
}

const HELD: &str = "of lives that may still act, at most one was granted a lock and has not released it";
const TOKENS: &str = "tokens of a lock strictly grow, each the revision of its grant";
const SUPERSEDED: &str = "nothing that is bound to a superseded token is accepted";
const LOST: &str = "an item is gone only by an acknowledgement of who had taken it";
const GIVEN: &str = "no item is given out twice under one token";
const COMPARED: &str = "a comparison counts for the version that is there";
const ONCE: &str = "a request takes effect once, and never once it was settled";

impl Model for Consumers {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        let voters = (1..=3).map(NodeId::new);
        let first = |node| Identity::new(node, Incarnation::new(1));
        let mut commands = vec![
            Command::Found { cluster: ClusterId::new(1) },
            Command::Configure { configuration: Configuration::uniform(voters.clone(), []) },
        ];
        commands.extend((1..=3).map(|node| moves::join(node, 1, 1)));
        commands.extend(voters.map(|node| Command::Activate { who: first(node) }));
        commands.push(Command::ActivateLeader { leader: NodeId::new(2), nonce: Nonce::new(99) });
        let mut cluster = ClusterState::new();
        for (command, revision) in commands.iter().zip(1..) {
            let events = apply(&mut cluster, Revision::new(revision), command);
            assert!(matches!(&events, Ok(events) if !events.is_empty()), "{command:?}: {events:?}");
        }
        vec![World::at_work(cluster)]
    }

    fn actions(&self, state: &World, actions: &mut Vec<Step>) {
        state.steps(&self.bounds, actions);
    }

    fn next_state(&self, state: &World, step: Step) -> Option<World> {
        let (next, seen) = state.after(&step, &self.bounds);
        if seen != 0 {
            self.seen.fetch_or(seen, Ordering::Relaxed);
        }
        next
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::<Self>::always(HELD, |_, world| {
                let lives = &world.actors[..=SECOND];
                (0..LOCKS).all(|lock| lives.iter().filter(|life| life.may_act_under(lock)).count() <= 1)
            }),
            Property::<Self>::always(TOKENS, |_, world| !world.is_wrong(Wrong::Token)),
            Property::<Self>::always(SUPERSEDED, |_, world| !world.is_wrong(Wrong::Superseded)),
            Property::<Self>::always(LOST, |_, world| !world.is_wrong(Wrong::Lost)),
            Property::<Self>::always(GIVEN, |_, world| !world.is_wrong(Wrong::GivenTwice)),
            Property::<Self>::always(COMPARED, |_, world| !world.is_wrong(Wrong::Compared)),
            Property::<Self>::always(ONCE, |_, world| !world.is_wrong(Wrong::Twice)),
            Property::<Self>::always("the events rebuild the state (I17)", |_, world| !world.is_wrong(Wrong::Rebuilt)),
            Property::<Self>::always("nothing concluded under an earlier activation takes effect (I9)", |_, world| {
                !world.is_wrong(Wrong::StaleConclusion)
            }),
            Property::<Self>::always("nobody who may hold a lock is overtaken in its line", |_, world| {
                !world.is_wrong(Wrong::Overtaken)
            }),
            Property::<Self>::always("nobody who may hold a free lock waits for it", |_, world| {
                let may = |lock: &Lock| lock.waiters().any(|waiter| world.cluster.may_hold(waiter.holder));
                world.cluster.store().locks().all(|(_, lock)| !lock.is_free() || !may(lock))
            }),
            Property::<Self>::always("a lock that is held back is held by nobody", |_, world| {
                world.cluster.store().locks().all(|(_, lock)| lock.grant.is_none() || lock.delay.is_none())
            }),
            Property::<Self>::always(
                "who is over holds nothing, waits for nothing, and nothing is bound to it",
                |_, w| {
                    let over = |holder: Holder| match holder {
                        Holder::Life(who) => w.cluster.has_ended(who),
                        Holder::Session(session) => w.cluster.store().session(session).is_none(),
                    };
                    let store = w.cluster.store();
                    let held = store.locks().filter_map(|(_, lock)| Some(lock.grant?.holder));
                    let waits = store.locks().flat_map(|(_, lock)| lock.waiters().map(|waiter| waiter.holder));
                    let bound = store.records("").filter_map(|(_, record)| record.bound);
                    !held.chain(waits).chain(bound).any(over)
                },
            ),
        ]
    }
}

struct Found {
    wrong: Option<(&'static str, String)>,
    missing: Vec<Situation>,
}

/// One exploration at a time: each has both cores and the memory to itself, and its seconds mean something.
static TURN: Mutex<()> = Mutex::new(());

/// Explores a configuration; prints what that took.
#[expect(clippy::disallowed_methods, reason = "says how long the exploration took")]
fn explore(bounds: Bounds, threads: usize) -> Found {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let begun = std::time::Instant::now();
    let model = Consumers { bounds, seen: AtomicU32::new(0) };
    let checker = model.checker().threads(threads).finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let (unique, total, depth) = (checker.unique_state_count(), checker.state_count(), checker.max_depth());
    let seconds = begun.elapsed().as_secs_f64();
    println!("{:<42} {unique:>9} unique states, {total:>10} in all, depth {depth:>3}, {seconds:>6.1} s", bounds.name);
    let seen = checker.model().seen.load(Ordering::Relaxed);
    let missing = bounds.reaches.iter().copied().filter(|what| seen & (1 << *what as u32) == 0).collect();
    let wrong = checker.discoveries().into_values().map(|path| told(checker.model(), path));
    Found { wrong: wrong.min_by_key(|(_, steps)| steps.len()).map(|(name, steps)| (name, steps.concat())), missing }
}

/// The path up to where the first property is violated, with what each entry brought about, and that property.
fn told(model: &Consumers, path: Path<World, Step>) -> (&'static str, Vec<String>) {
    let properties = model.properties();
    let mut steps = vec![];
    for (world, step) in path.into_vec() {
        if let Some(violated) = properties.iter().find(|property| !(property.condition)(model, &world)) {
            return (violated.name, steps);
        }
        let Some(step) = step else { break };
        let events = match &step {
            Step::Append(command) | Step::Restart(command) | Step::Reboot(command) => {
                decide(&world.cluster, world.cluster.revision().next(), command).unwrap_or_default()
            }
            _ => vec![],
        };
        let events: String = events.iter().map(|event| format!("      {event}\n")).collect();
        steps.push(format!("  {step:?}\n{events}"));
    }
    ("nothing", steps)
}

/// Every property holds, and everything that the configuration is for is reached. A violation is looked for once more
/// with one thread, which finds the same trace each time, and none shorter exists. If one order of exploring finds it
/// and the other does not, the fingerprint leaves out something that matters, and the trace stands all the same.
fn holds(bounds: Bounds) {
    let found = explore(bounds, 2);
    if let Some(first) = found.wrong {
        let (name, trace) = explore(bounds, 1).wrong.unwrap_or(first);
        panic!("violated: {name}\n{}: {bounds:?}\n{trace}", bounds.name);
    }
    assert!(found.missing.is_empty(), "{}: never reached, so nothing was shown: {:?}", bounds.name, found.missing);
}

fn is_full() -> bool {
    std::env::var_os("QUORATE_MODEL").is_some_and(|wanted| wanted == "full")
}

/// The small bounds for every `cargo test`, and for `make model` the wide ones too.
fn hold(small: &[Bounds], wide: &[Bounds]) {
    small.iter().for_each(|bounds| holds(*bounds));
    wide.iter().filter(|_| is_full()).for_each(|bounds| holds(*bounds));
}

/// What is left out of the fingerprints is read by no rule and by no property.
#[test]
fn worlds_with_one_fingerprint_are_one_world() {
    use bounds::{compare, locks, queue, sessions};
    let small = [locks::LEFT, compare::BARE, sessions::FENCED];
    let wide = [locks::FENCED, locks::PROCESS_BOUND, queue::HANDED, compare::GUARDED, sessions::ENDED];
    for bounds in small.iter().chain(wide.iter().filter(|_| is_full())) {
        let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        same::fingerprints_suffice(bounds.name, &Consumers { bounds: *bounds, seen: AtomicU32::new(0) });
    }
}

#[test]
fn a_lock_has_one_holder_that_may_act() {
    use bounds::locks::*;
    hold(&[FENCED, LEFT, PROCESS_BOUND], &[FENCED_FULL, LED_FULL, LEFT_FULL, PROCESS_BOUND_FULL]);
}

#[test]
fn a_queue_loses_nothing_when_its_lock_is_handed_over() {
    use bounds::queue::*;
    hold(&[HANDED], &[HANDED_FULL]);
}

#[test]
fn a_write_counts_for_what_it_named() {
    use bounds::compare::*;
    hold(&[GUARDED, BARE], &[GUARDED_FULL, BARE_FULL]);
}

#[test]
fn a_session_ends_and_its_tokens_with_it() {
    use bounds::sessions::*;
    hold(&[ENDED, FENCED], &[SETTLED_FULL, TWO_FULL]);
}

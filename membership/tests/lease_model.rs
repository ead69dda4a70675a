//! The model of leases: every interleaving of pauses, clocks that drift, stale leaders, lost, doubled and late messages,
//! crashes and second lives, within bounds, driven through the production [`lease::Holder`], [`lease::Grantor`] and
//! [`ClusterState`]. `support/lease_world.rs` draws the world that they act in.
//!
//! `QUORATE_MODEL=full cargo test --release -p quorate-membership --test lease_model -- --nocapture` explores wider
//! bounds. Beside what must always hold stand situations that must be reached, or the run has shown nothing; and worlds
//! in which the promise cannot be kept must be found out.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a helper of tests stops the test")]

#[path = "support/lease_bounds.rs"]
mod bounds;
#[path = "support/lease_leader.rs"]
mod leader_side;
#[path = "support/lease_log.rs"]
mod log;
#[path = "support/lease_member.rs"]
mod member;
#[path = "support/lease_moves.rs"]
mod moves;
#[path = "support/lease_receipts.rs"]
mod receipts;
#[path = "support/same.rs"]
mod same;
#[path = "support/lease_steps.rs"]
mod steps;
#[path = "support/lease_view.rs"]
mod view;
#[path = "support/lease_world.rs"]
mod world;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use log::{MEMBERS, NODES, State, Votes, id};
use member::{Job, Member, at, ms, units};
use quorate_membership::*;
use stateright::{Checker, HasDiscoveries, Model, Path, Property};
use steps::Step;
use world::{Bounds, Situation, Used, World, Wrong};

/// What every clock shows at the beginning: longer than any wait.
const START: u64 = 1000;

struct Leases {
    bounds: Bounds,
    seen: AtomicU32,
}

impl Leases {
    /// The two members at work with a fresh lease each, under the first activation of that leader.
    fn beginning(&self, leader: usize) -> World {
        let bounds = &self.bounds;
        let voters = (0..NODES).map(id);
        let mut commands = vec![
            Command::Found { cluster: ClusterId::new(1) },
            Command::Configure { configuration: Configuration::uniform(voters, []) },
        ];
        commands.extend((0..NODES).map(|node| {
            // Where receipts are asked for, one member works, and the others are only voters.
            let works = if bounds.receipts { node == 1 } else { node < MEMBERS };
            let contract = if works { bounds.contract() } else { Contract::default() };
            moves::join(node, 1, contract)
        }));
        let first = |node| Identity::new(id(node), Incarnation::new(1));
        commands.extend((0..NODES).map(|node| Command::Activate { who: first(node) }));
        let mut cluster = ClusterState::new();
        for (command, revision) in commands.iter().zip(1..) {
            let events = apply(&mut cluster, Revision::new(revision), command);
            assert!(matches!(&events, Ok(events) if !events.is_empty()), "{command:?}: {events:?}");
        }
        let committed = Arc::new(State::new(cluster, commands.len() as u64));
        let zero = Revision::new(0);
        let job = |node| Job { owner: first(node), token: zero, floor: zero, under_way: [None; MEMBERS], landed: zero };
        let mut world = World {
            votes: Arc::new(Votes::led_by(leader)),
            now: [START; NODES],
            desks: std::array::from_fn(|node| Arc::new(leader_side::LeaderSide::new(node, committed.clone(), bounds))),
            members: std::array::from_fn(|node| Some(Arc::new(Member::new(first(node), bounds)))),
            receipts: std::array::from_fn(|_| Arc::new(lease::ReceiptLog::new(at(START)))),
            committed,
            wire: vec![],
            jobs: std::array::from_fn(job),
            call: None,
            used: Used::default(),
            wrong: 0,
            asks: bounds.receipts,
            lease: bounds.lease,
            wait: bounds.contract().own_wait().map_or(0, |wait| units(wait + ms(1) - Duration::from_nanos(1))),
            seen: 0,
        };
        for node in (0..MEMBERS).filter(|node| !bounds.receipts || *node == 1) {
            let member = world.member(node).unwrap();
            let seq = member.holder.poll_renewal(at(START)).unwrap();
            assert!(member.holder.handle_grant(first(node), seq, at(START)));
            member.begin(node, zero, bounds);
        }
        // The leases of the beginning were confirmed by the leader and n3.
        for voter in [leader, 2].into_iter().filter(|_| self.bounds.receipts) {
            Arc::make_mut(&mut world.receipts[voter]).note([first(1)], at(START));
        }
        world.gain(leader);
        let nonce = world.desks[leader].grantor.poll_activation().unwrap();
        world.commit_after_all(leader, &Command::ActivateLeader { leader: id(leader), nonce });
        world.apply(leader);
        World { seen: 0, ..world }
    }

    fn new(bounds: Bounds) -> Self {
        bounds.contract().check().unwrap();
        Self { bounds, seen: AtomicU32::new(0) }
    }
}

const HARM: &str = "of a life that is fenced no effect can start or land (I6)";
const TOGETHER: &str = "effects under different tokens of one job do not mix (I7)";
const UP: &str = "whose time is up under the current activation can no longer act (lemma 2, I5)";

impl Model for Leases {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        self.bounds.leaders.iter().map(|leader| self.beginning(*leader)).collect()
    }

    fn actions(&self, state: &World, actions: &mut Vec<Step>) {
        state.steps(&self.bounds, actions);
    }

    fn next_state(&self, state: &World, step: Step) -> Option<World> {
        let next = state.step(step, &self.bounds)?;
        if next.seen != 0 {
            self.seen.fetch_or(next.seen, Ordering::Relaxed);
        }
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::<Self>::always(HARM, |model, world| {
                let harmless = |node: usize, member: &Member| {
                    !world.committed.over(member.who()) || !member.can_act(world.now[node], &model.bounds)
                };
                living(world).all(|(node, member)| harmless(node, member))
            }),
            Property::<Self>::always(TOGETHER, |model, world| {
                let tokens = model.bounds.stop == Stop::Tokens;
                let together = living(world).fold(u8::MAX, |both, (_, member)| both & member.works);
                let all = living(world).count() == MEMBERS;
                !world.is_wrong(Wrong::Effects) && (tokens || !all || together == 0)
            }),
            Property::<Self>::always(UP, |model, world| {
                let up = |who| current(world).any(|leader_side| leader_side.grantor.is_expiring(who));
                living(world).all(|(n, member)| !member.can_act(world.now[n], &model.bounds) || !up(member.who()))
            }),
            Property::<Self>::always(
                "no grant was sent after the current leader noted its life last (lemma 1, I4)",
                |_, world| current(world).all(|leader_side| leader_side.overtaken.is_empty()),
            ),
            Property::<Self>::always("tokens of one job strictly grow (I1)", |_, world| !world.is_wrong(Wrong::Token)),
            Property::<Self>::always(
                "a lease is counted from the sending of an own renewal, granted by a read begun after it (I2)",
                |_, world| !world.is_wrong(Wrong::Expiry),
            ),
            Property::<Self>::always("no grant's read was begun after the end of its life (I3)", |_, world| {
                !world.is_wrong(Wrong::ReadAfterEnd)
            }),
            Property::<Self>::always("what is said of one life changes nothing for another (I8)", |_, world| {
                !world.is_wrong(Wrong::OtherLife)
            }),
            Property::<Self>::always("nothing concluded under an earlier activation takes effect (I9)", |_, world| {
                !world.is_wrong(Wrong::StaleConclusion)
            }),
            Property::<Self>::always("what comes twice or late changes nothing a second time (I11)", |_, world| {
                !world.is_wrong(Wrong::SecondOfOne)
            }),
        ]
    }
}

fn living(world: &World) -> impl Iterator<Item = (usize, &Member)> {
    world.members.iter().enumerate().filter_map(|(node, member)| Some((node, member.as_deref()?)))
}

/// The leaders whose conclusions count.
fn current(world: &World) -> impl Iterator<Item = &leader_side::LeaderSide> {
    world.desks.iter().map(|leader_side| &**leader_side).filter(|leader_side| leader_side.is_current(&world.committed))
}

struct Found {
    wrong: Option<(&'static str, Vec<Step>)>,
    missing: Vec<&'static str>,
}

/// One exploration at a time: each has both cores and the memory to itself, and its seconds mean something.
static TURN: Mutex<()> = Mutex::new(());

/// Explores a configuration; prints what that took.
#[expect(clippy::disallowed_methods, reason = "says how long the exploration took")]
fn explore(bounds: Bounds, threads: usize) -> Found {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let begun = std::time::Instant::now();
    let checker =
        Leases::new(bounds).checker().threads(threads).finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let (unique, total, depth) = (checker.unique_state_count(), checker.state_count(), checker.max_depth());
    let seconds = begun.elapsed().as_secs_f64();
    println!("{:<42} {unique:>9} unique states, {total:>10} in all, depth {depth:>3}, {seconds:>6.1} s", bounds.name);
    let seen = checker.model().seen.load(Ordering::Relaxed);
    let unseen = |what: &&Situation| seen & (1 << **what as u32) == 0;
    let missing = bounds.reaches.iter().filter(unseen).map(|what| what.name()).collect();
    let wrong = checker.discoveries().into_values().map(|path| shortened(checker.model(), path));
    Found { wrong: wrong.min_by_key(|(_, path)| path.len()), missing }
}

/// The path up to where the first property is violated, and that property.
fn shortened(model: &Leases, path: Path<World, Step>) -> (&'static str, Vec<Step>) {
    let properties = model.properties();
    let mut steps = vec![];
    for (world, step) in path.into_vec() {
        if let Some(violated) = properties.iter().find(|property| !(property.condition)(model, &world)) {
            return (violated.name, steps);
        }
        steps.extend(step);
    }
    ("nothing", steps)
}

/// Every property holds, and everything that the configuration is for is reached. A violation is looked for once more
/// with one thread, which finds the same trace each time, and none shorter exists. If one order of exploring finds it
/// and the other does not, the fingerprint leaves out something that matters, and the trace stands all the same.
fn holds(bounds: Bounds) {
    let found = explore(bounds, 2);
    if let Some(first) = found.wrong {
        let (name, steps) = explore(bounds, 1).wrong.unwrap_or(first);
        let trace: String = steps.iter().map(|step| format!("  {step:?}\n")).collect();
        panic!("violated: {name}\n{}: {bounds:?}\n{trace}", bounds.name);
    }
    assert!(found.missing.is_empty(), "{}: never reached, so nothing was shown: {:#?}", bounds.name, found.missing);
}

/// The world makes a mistake that the rules cannot mend: it is found out, by that property.
fn breaks(bounds: Bounds, property: &str) {
    let found = explore(bounds, 1);
    let (name, steps) = found.wrong.unwrap_or_else(|| panic!("{}: not found out", bounds.name));
    assert_eq!(name, property, "{}: {steps:#?}", bounds.name);
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
    use bounds::{leaders, lives, one_leader, receipts};
    let lost = Bounds { sends: [0, 0], ..receipts::LOST };
    let small = [one_leader::RESTS, leaders::ANEW, lives::TOKENS, lost];
    let wide = [one_leader::DOUBLES, leaders::TWO, lives::SECOND];
    for bounds in small.iter().chain(wide.iter().filter(|_| is_full())) {
        let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        same::fingerprints_suffice(bounds.name, &Leases::new(*bounds));
    }
}

#[test]
fn a_deadman_has_acted_before_time_is_up() {
    use bounds::one_leader::*;
    hold(&[LONG, RESTS, DEADMAN], &[DOUBLES, RESTS_FULL]);
}

#[test]
fn a_watchdog_has_bitten_before_time_is_up() {
    use bounds::one_leader::*;
    hold(&[STEADY_DOG, DRIFTING_DOG], &[STEADY_DOGS, DRIFTING_DOG_FULL]);
}

#[test]
fn leaders_that_do_not_know_better_do_no_harm() {
    use bounds::leaders::*;
    hold(&[TWO], &[TWO_FULL, TWO_FOR_EVER, THREE, TWO_DOGS]);
}

#[test]
fn a_leader_that_starts_anew_knows_nothing() {
    use bounds::leaders::*;
    hold(&[ANEW], &[ANEW_FULL]);
}

#[test]
fn a_new_leader_asks_the_voters_when_they_heard_of_each_life() {
    use bounds::receipts::*;
    hold(&[LOST], &[TWO, DRIFT, DRIFT_LONGER]);
    // Some minutes and gigabytes: for `make model` alone.
    if std::env::var_os("QUORATE_MODEL_LONG").is_some() {
        holds(DRIFT_LONGEST);
    }
}

#[test]
fn what_is_said_of_one_life_is_not_said_of_the_next() {
    use bounds::lives::*;
    hold(&[SECOND, DOUBLES], &[SECOND_FULL, SECOND_AND_LEADERS]);
}

#[test]
fn a_fencer_and_the_clock_may_both_prove_an_end() {
    use bounds::lives::*;
    hold(&[FENCER], &[FENCER_FULL]);
}

#[test]
fn what_the_floor_refuses_needs_no_stop() {
    use bounds::lives::*;
    hold(&[TOKENS], &[TOKENS_SHOT, TOKENS_FULL]);
}

/// No rule that rests on time survives a clock that stands still unseen; a fencer does.
#[test]
fn a_frozen_clock_is_found_out_and_a_fencer_needs_no_clock() {
    use bounds::broken::*;
    breaks(FROZEN, UP);
    holds(FROZEN_AND_SHOT);
}

#[test]
fn a_mechanism_that_does_nothing_is_found_out() {
    breaks(bounds::broken::UNSTOPPED, UP);
}

#[test]
fn handing_work_over_before_the_proof_is_found_out() {
    breaks(bounds::broken::TOLD_EARLY, TOGETHER);
}

#[test]
fn work_before_the_floor_is_found_out() {
    breaks(bounds::broken::NO_FLOOR, TOGETHER);
}

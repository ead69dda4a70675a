//! The model: every interleaving of crashes, restarts, false suspicions, stale leaders, late fencers and late messages,
//! within bounds, driven through the production rules. `support/world.rs` is the world that they act in.
//!
//! `QUORATE_MODEL=full cargo test --release -p quorate-membership --test model -- --nocapture` explores wider bounds.
//! Beside each thing that must always hold stands a situation that must be reached, or the run has shown nothing.

#[path = "support/language.rs"]
mod language;
#[path = "support/same.rs"]
mod same;
#[path = "support/world.rs"]
mod world;

use std::collections::BTreeSet;

use quorate_membership::*;
use stateright::{Checker, Expectation, HasDiscoveries, Model, Property};
use world::{Bounds, Message, Step, World};

/// For every `cargo test`: two machines to which things happen, and a third that takes over.
const SMALL: Bounds = Bounds {
    machines: 2,
    processes: 2,
    restarts: 1,
    crashes: 1,
    orders: 2,
    goodbyes: 1,
    takeovers: 1,
    attempts: 2,
    operators: false,
};

/// For `make model`: it happens to all three.
const FULL: Bounds = Bounds {
    machines: 3,
    processes: 2,
    restarts: 2,
    crashes: 1,
    orders: 2,
    goodbyes: 1,
    takeovers: 1,
    attempts: 2,
    operators: true,
};

struct Machines {
    bounds: Bounds,
}

impl Model for Machines {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        let set_up = language::THREE.replace("configure n1 n2 n3", "configure n1 n2 n3 n4 n5");
        let voters = "join n4 witness disk=4/1 nonce=1\njoin n5 witness disk=5/1 nonce=1\nactivate n4#1\nactivate n5#1";
        let mut cluster = ClusterState::new();
        for (line, revision) in set_up.lines().chain(voters.lines()).zip(1..) {
            let line =
                line.replace("nonce=11", "nonce=1").replace("nonce=21", "nonce=1").replace("nonce=31", "nonce=1");
            let command = language::command(&line).map(|command| language::under_current(command, &cluster));
            let set = command.map(|command| apply(&mut cluster, Revision::new(revision), &command));
            assert!(matches!(&set, Ok(Ok(events)) if !events.is_empty()), "{line}: {set:?}");
        }
        vec![World::at_work(cluster, 3)]
    }

    fn actions(&self, state: &World, actions: &mut Vec<Step>) {
        state.steps(&self.bounds, actions);
    }

    fn next_state(&self, state: &World, step: Step) -> Option<World> {
        state.after(step)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::<Self>::always("whoever works is active or being fenced in that very life", |_, world| {
                world.running.iter().all(|(who, _)| world.phase(*who).is_some_and(Phase::may_work))
            }),
            Property::<Self>::sometimes("a healthy life works on while it is being fenced", |_, world| {
                world.running.iter().any(|(who, _)| world.phase(*who) == Some(Phase::Fencing))
            }),
            Property::<Self>::sometimes("a fencer has ended a life, and the cluster does not know yet", |_, world| {
                let fallen = |call: &world::Call| world.phase(call.target) == Some(Phase::Fencing);
                world.network.iter().any(|message| matches!(message, Message::Confirmed(call) if fallen(call)))
            }),
            Property::<Self>::sometimes("a life has left, and is still active for the cluster", |_, world| {
                let active = |who: &Identity| world.phase(*who) == Some(Phase::Active);
                world.network.iter().any(|message| matches!(message, Message::Goodbye(who) if active(who)))
            }),
            Property::<Self>::always("no job runs in two lives at once (I7)", |_, world| {
                let jobs: BTreeSet<_> = world.running.iter().map(|(_, job)| job).collect();
                jobs.len() == world.running.len()
            }),
            Property::<Self>::sometimes("a job was taken over by another machine and runs there", |_, world| {
                world.running.iter().any(|(who, job)| who.node != *job)
            }),
            Property::<Self>::sometimes("a new life works on the job of its former", |_, world| {
                world.running.iter().any(|(who, job)| who.node == *job && who.incarnation > Incarnation::new(1))
            }),
            Property::<Self>::sometimes("a new life waits while the work of its former still runs", |_, world| {
                let waits = |who: Identity| world.phase(who) == Some(Phase::Joining);
                let newest = |node| world.cluster().newest(node);
                world
                    .running
                    .iter()
                    .any(|(who, _)| newest(who.node).is_some_and(|newest| newest != *who && waits(newest)))
            }),
            Property::<Self>::sometimes("a life returned while its former is being fenced", |_, world| {
                let newest = |node| world.cluster().newest(node);
                world.cluster().fences().open().any(|order| newest(order.target.node) != Some(order.target))
            }),
            Property::<Self>::always("no life is fenced without its order and a proof of it (I10)", |_, world| {
                !world.wrong.contains(world::UNPROVED)
            }),
            Property::<Self>::sometimes("a confirmation outlived its order while another order is open", |_, world| {
                let closed = |call: &world::Call| world.cluster().fences().get(call.order).is_none();
                let late = world.network.iter().any(|m| matches!(m, Message::Confirmed(call) if closed(call)));
                late && world.cluster().fences().open().next().is_some()
            }),
            Property::<Self>::sometimes(
                "a second leader resumes an order while the first one's fencer may still act",
                |_, world| {
                    let open = |order| world.cluster().fences().get(order);
                    let resumed =
                        |call: &world::Call| open(call.order).is_some_and(|order| order.attempts > call.attempt);
                    world.calls.iter().any(resumed)
                },
            ),
            Property::<Self>::sometimes("the fencer of a closed order is still about to act", |_, world| {
                world.calls.iter().any(|call| world.cluster().fences().get(call.order).is_none())
            }),
            Property::<Self>::always("of one node at most one life is active", |_, world| {
                let active: Vec<_> = world.cluster().active().map(|who| who.node).collect();
                active.len() == active.iter().collect::<BTreeSet<_>>().len()
            }),
            Property::<Self>::always("no order left a minority of standing voters (I18)", |_, world| {
                !world.wrong.contains(world::MINORITY)
            }),
            Property::<Self>::sometimes("two orders are open at once", |_, world| {
                world.cluster().fences().open().count() == 2
            }),
            Property::<Self>::sometimes("an order is refused because no majority would stand", |_, world| {
                let order = |target| Command::OrderFence {
                    target,
                    cause: Cause::Silent { for_ms: 1 },
                    under: world.cluster().leadership().map(|l| l.activation),
                };
                let answer = |who| decide(world.cluster(), Revision::new(u64::MAX), &order(who));
                world.cluster().active().any(|who| matches!(answer(who), Err(Rejection::Majority { .. })))
            }),
        ]
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "says how long the exploration took")]
fn every_interleaving_keeps_the_promises() {
    let begun = std::time::Instant::now();
    let checker = |bounds| Machines { bounds }.checker().threads(2).finish_when(HasDiscoveries::AnyFailures);
    // Breadth first holds a whole layer of worlds in memory: 16 GB for the wide bounds.
    match std::env::var_os("QUORATE_MODEL").is_some_and(|wanted| wanted == "full") {
        true => judge(FULL, begun, &checker(FULL).spawn_dfs().join()),
        false => judge(SMALL, begun, &checker(SMALL).spawn_bfs().join()),
    }
}

/// What is left out of the fingerprints is read by no rule and by no property.
#[test]
fn worlds_with_one_fingerprint_are_one_world() {
    let bounds = Bounds { orders: 1, ..SMALL };
    same::fingerprints_suffice("two machines, one order", &Machines { bounds });
}

fn judge(bounds: Bounds, begun: std::time::Instant, checker: &impl Checker<Machines>) {
    let (unique, total, depth) = (checker.unique_state_count(), checker.state_count(), checker.max_depth());
    println!(
        "{unique} unique states, {total} in all, depth {depth}, {:.1} s, {bounds:?}",
        begun.elapsed().as_secs_f64()
    );
    let found = checker.discoveries();
    let (musts, coverage): (Vec<_>, Vec<_>) =
        checker.model().properties().into_iter().partition(|property| property.expectation == Expectation::Always);
    for name in musts.iter().map(|property| property.name) {
        assert!(!found.contains_key(name), "violated: {name}\n{}", shortest(bounds, name));
    }
    for name in coverage.iter().map(|property| property.name) {
        assert!(found.contains_key(name), "never reached, so nothing was shown: {name}");
    }
}

/// The shortest way to violate a property: the checker itself keeps the last that it found, not the first.
fn shortest(bounds: Bounds, property: &'static str) -> String {
    let within = |depth| Machines { bounds }.checker().target_max_depth(depth).spawn_bfs().join().discovery(property);
    let path = (2..64).find_map(within).map(|path| path.into_actions()).unwrap_or_default();
    path.iter().map(|step| format!("  {step:?}\n")).collect()
}

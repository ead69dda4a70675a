//! The leases in continuous time: a discrete-event simulation around the production types.
//!
//! ```text
//!   MemberLease, Grantor, Reading, ClusterState (apply), Timing, Contract   what is shipped, and on trial
//!   clocks, disks, network, processes, stop mechanisms, resources  simulated, as bad as the assumptions allow
//!   oracle: what really may act at a resource                      the rules never see it
//! ```
//!
//! A model of small integer clocks finds rules that are wrong; this finds constants that are: bounds, margins, waits.
//! Everything follows from one seed. `make sim` runs the long sweep; a failure prints the command that shows it again.

#[path = "des/ballot.rs"]
mod ballot;
#[path = "des/calm.rs"]
mod calm;
#[path = "des/clocks.rs"]
mod clocks;
#[path = "des/faults.rs"]
mod faults;
#[path = "des/keeper.rs"]
mod keeper;
#[path = "des/leader_side.rs"]
mod leader_side;
#[path = "des/machine.rs"]
mod machine;
#[path = "des/oracle.rs"]
mod oracle;
#[path = "des/raft.rs"]
mod raft;
#[path = "des/replica.rs"]
mod replica;
#[path = "des/rng.rs"]
mod rng;
#[path = "des/setup.rs"]
mod setup;
#[path = "des/step.rs"]
mod step;
#[path = "des/sweep.rs"]
mod sweep;
#[path = "des/tally.rs"]
mod tally;
#[path = "des/work.rs"]
mod work;
#[path = "des/world.rs"]
mod world;

use std::time::Duration;

use quorate_membership::{Profile, Stop, Timing, TimingError};
use setup::{Setup, Weakness, Weather};
use sweep::{chosen, full, hunt, run, seeds, sweep};
use tally::{Tally, spread};

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn watchdog(timeout: u64, reset: u64) -> Stop {
    Stop::Watchdog { timeout: ms(timeout), reset: ms(reset) }
}

/// So long that each setup has about as many faults.
fn chaos(profile: Profile, nodes: usize) -> Setup {
    let lease = profile.timing().plan().lease.as_millis() as u64;
    Setup::new(profile, nodes, Weather::Chaos).lasting(lease / 5)
}

/// Every profile as it is shipped, and each with the mechanisms that it is not shipped with.
fn everything() -> Vec<Setup> {
    let mut all = vec![];
    for nodes in [3, 5] {
        all.extend(Profile::ALL.map(|profile| chaos(profile, nodes)));
        all.extend(
            [Profile::Fast, Profile::Standard, Profile::Patient].map(|p| chaos(p, nodes).stopped_by(Stop::Tokens)),
        );
        all.push(chaos(Profile::Fast, nodes).stopped_by(watchdog(200, 20)));
        all.push(chaos(Profile::Patient, nodes).stopped_by(watchdog(2000, 100)));
        all.push(chaos(Profile::Standard, nodes).in_flight(ms(400)));
        all.push(chaos(Profile::Watchdog, nodes).in_flight(ms(400)));
        all.push(chaos(Profile::Watchdog, nodes).hunting());
        all.push(chaos(Profile::Standard, nodes).drifting(10).hunting());
    }
    all
}

/// What chaos has to bring about, or it has shown nothing.
const REACHED: [&str; 46] = [
    "a grant was late, doubled or another's",
    "a leader noticed that it had stood still",
    "a leader restarted in its own term",
    "a life was ordered fenced without a device",
    "a process found its life over and started again",
    "a proposal was late",
    "a read failed",
    "a watchdog reset a machine",
    "activated as leader",
    "armed too late, and nothing begun",
    "an entry of a deposed leader was overwritten",
    "an expiry of an earlier activation was void",
    "an expiry was refused for want of a majority",
    "clock steered",
    "cut in both directions",
    "cut in one direction",
    "effect refused by the floor",
    "effects",
    "expired by a leader that was activated after it joined",
    "expiry proposed",
    "fed after the end of the lease",
    "fenced",
    "fenced while its process lived",
    "leader elected",
    "leader's machine crashed",
    "machine crashed",
    "machine suspended",
    "message doubled",
    "message late",
    "message lost",
    "message stopped by a cut",
    "notice",
    "pause",
    "pause longer than the lease",
    "paused between look and arming",
    "paused between look and effect",
    "paused between look and feeding",
    "process crashed",
    "process crashed right after it proposed an expiry",
    "refused: a newer life, or an order",
    "refused: its time was up, and it returned",
    "slow disk",
    "the dead-man killed a process",
    "the dead-man was due while suspended",
    "two leaders at once",
    "work went on without its keeper",
];

#[test]
#[expect(clippy::disallowed_methods, reason = "says how fast the simulation ran")]
fn nobody_acts_twice_whatever_happens() {
    let begun = std::time::Instant::now();
    let setups = everything();
    let tallies = sweep("nobody_acts_twice_whatever_happens", &setups, seeds(1, 40));
    let wall = begun.elapsed().as_secs_f64();
    let mut total = Tally::default();
    for (setup, tally) in setups.iter().zip(tallies) {
        let Tally { simulated, .. } = tally;
        println!(
            "{:<64} {:6.1} h, {:6} taken over, {:5} from the living",
            setup.name,
            simulated as f64 / 3.6e12,
            tally.of("fenced"),
            tally.of("fenced while its process lived")
        );
        total.merge(tally);
    }
    println!(
        "chaos: {:.1} cluster-hours in {wall:.1} s, {:.0} times real time, 0 violations",
        total.hours(),
        total.hours() * 3600.0 / wall
    );
    for (what, times) in &total.counts {
        println!("  {times:>12} {what}");
    }
    for what in REACHED {
        assert!(chosen() || total.of(what) > 0, "never reached, so nothing was shown: {what}");
    }
}

/// The mistakes that this simulation makes itself, each where it shows.
fn weakened() -> Vec<Setup> {
    let of = |profile, weakness| chaos(profile, 3).hunting().weakened(weakness);
    let (deadman, dog) = (Profile::Standard, Profile::Watchdog);
    vec![
        of(deadman, Weakness::NoDrift).drifting(10),
        of(dog, Weakness::NoDrift).drifting(20),
        of(dog, Weakness::OneTimeout),
        of(deadman, Weakness::NothingInFlight).in_flight(ms(900)),
        of(Profile::Fast, Weakness::LeaseFromReceipt),
        of(deadman, Weakness::NoStop),
        of(dog, Weakness::NoStop),
        of(deadman, Weakness::NoSlew),
        of(Profile::Fast, Weakness::ArmedByALaterLook),
        of(Profile::Fast, Weakness::NoSecondLook),
        of(dog, Weakness::SuspendedWatchdog),
        chaos(deadman, 3).weakened(Weakness::NewLeaderDoesNotWait),
        of(deadman, Weakness::NoRead),
        chaos(deadman, 3).stopped_by(Stop::Tokens).weakened(Weakness::WorkBeforeFloor),
    ]
}

/// Without this the silence of the other tests would mean nothing.
#[test]
fn each_mistake_is_noticed() {
    let setups = weakened();
    let found = hunt(&setups, &(1..400));
    for (setup, found) in setups.iter().zip(&found) {
        match found {
            Some((seed, how, hours)) => println!("{:<64} seed {seed:3}, {hours:5.1} h: {how}", setup.name),
            None => println!("{:<64} NOT NOTICED", setup.name),
        }
    }
    assert!(found.iter().all(Option::is_some), "a mistake was not noticed");
}

fn fine(profile: Profile, nodes: usize) -> Setup {
    let lease = profile.timing().plan().lease.as_millis() as u64;
    Setup::new(profile, nodes, Weather::Calm { loss: 0 }).lasting(if full() { lease } else { lease / 4 })
}

#[test]
fn a_crash_is_over_within_its_bound_and_spares_the_healthy() {
    let setups: Vec<_> = Profile::ALL.into_iter().flat_map(|profile| [3, 5].map(|n| fine(profile, n))).collect();
    let tallies = sweep("a_crash_is_over_within_its_bound_and_spares_the_healthy", &setups, seeds(1, 20));
    let within = |samples: &[u64], bound: Duration| samples.iter().all(|took| Duration::from_nanos(*took) <= bound);
    for (setup, tally) in setups.iter().zip(&tallies) {
        let bounds = Timing::new(setup.plan).ok().and_then(|t| Some((t.member_crash()?, t.leader_crash()?)));
        let Some((member, leader)) = bounds else { unreachable!("{} has bounds", setup.name) };
        let shown = |d: Duration| format!("{:.1} ms", d.as_secs_f64() * 1000.0);
        let (member_s, leader_s) = (shown(member), shown(leader));
        println!("{}, {:.1} h", setup.name, tally.hours());
        println!("  member        {}; bound {member_s}", spread(&tally.member));
        println!("  leader        {}; bound {leader_s}", spread(&tally.leader));
        println!("  … of 2nd vote {}", spread(&tally.leader_later));
        let spared = tally.of("members that a change of leaders had to spare");
        let longer = tally.of("notice in a longer election");
        println!(
            "  {spared} healthy members saw a change of leaders; {longer} had notice in elections of several votes"
        );
        assert!(tally.member.len() > 3 && tally.leader.len() > 3 && spared > 10, "{}: too little happened", setup.name);
        assert!(within(&tally.member, member), "{}: a member's end took longer than {member:?}", setup.name);
        assert!(within(&tally.leader, leader), "{}: a leader's end took longer than {leader:?}", setup.name);
        assert_eq!(tally.of("notice to a healthy member"), 0, "{}: I13, I15", setup.name);
    }
}

/// E2 is no formality: a lease that is too short for an election costs the healthy theirs. `Timing` refuses such a plan.
#[test]
fn a_lease_shorter_than_an_election_lapses_the_healthy() {
    let setup =
        fine(Profile::Standard, 3).leased_for(ms(1800), ms(300), ms(300)).lasting(if full() { 3000 } else { 1500 });
    assert!(matches!(Timing::new(setup.plan), Err(TimingError::HealthyWouldLapse(_))), "E2 holds for {:?}", setup.plan);
    let name = "a_lease_shorter_than_an_election_lapses_the_healthy";
    let total =
        sweep(name, std::slice::from_ref(&setup), seeds(1, 20)).into_iter().fold(Tally::default(), |mut all, one| {
            all.merge(one);
            all
        });
    let (noticed, lapsed) = (total.of("notice to a healthy member"), total.of("lapsed"));
    let all = total.of("members that a change of leaders had to spare");
    let percent = |part: u64| 100 * part / all.max(1);
    println!(
        "{}: of {all} healthy members {} % had notice and {} % lapsed",
        setup.name,
        percent(noticed),
        percent(lapsed)
    );
    assert!(all > 10 && percent(noticed) >= 10, "only {noticed} of {all} had notice");
}

#[test]
fn a_seed_gives_the_same_run_every_time() {
    let setups = [chaos(Profile::Fast, 3), chaos(Profile::Watchdog, 5), fine(Profile::Standard, 3)];
    let traces = |setup: &Setup| [1, 2, 3].map(|seed| run(&setup.clone().lasting(40), seed).trace);
    for setup in &setups {
        let (first, second) = (traces(setup), traces(setup));
        assert_eq!(first, second, "{}", setup.name);
        assert!(first[0] != first[1] && first[1] != first[2], "{}: the seed has no effect", setup.name);
    }
}

//! Whether the cluster keeps its word: three processes, clients in each, kills at any moment; then everything that every
//! client was told is set side by side and checked.
//!
//! ```text
//!   n1 ─ clients ─▶ n1.log ┐                        ┌ an order that a record, or a lock, allows?      linear, records, locks
//!   n2 ─ clients ─▶ n2.log ┼─▶ one history ─▶ check ┤ the order that their revisions name?            witness
//!   n3 ─ clients ─▶ n3.log ┘                        └ one holder at a time, tokens that grow?         locks
//!        ▲ kill -9, SIGSTOP           what each replica says of the log, side by side                 agreement
//! ```
//!
//! **What it can see:** any answer that no order of the calls explains: lost updates, stale reads, writes that vanished or
//! came from nowhere, two winners, a "nothing changed" that did change something, two holders at once, late effects of a
//! holder whose lock had passed on, tokens and revisions against real time, across all keys; replicas that differ in what
//! they tell of locks and ends.
//!
//! **What it cannot see:** what no client met. A wrong value that was overwritten before anybody read it leaves no trace,
//! and an unknown write explains whatever it might have done. The machine does not lose power, so that an fsync that was
//! left out shows nothing; all processes read one clock, so drift shows nothing; nobody cuts the network other than by
//! stopping or killing an end of it. How long anything takes is not judged. Queues, sessions and bound records take no
//! part.
//!
//! What is wrong all the time it meets at once: of the seeded mistakes `compare_wrong_version`, `stale_token_accepted` and
//! `token_of_the_term`. What is wrong in one rare moment it meets by luck (`lock_passes_on_silence`, `release_by_owner`,
//! `engine_confirms_reads`): for those there are the models.
//!
//! `QUORATE_SEED=n cargo test -p quorate --test history -- --nocapture` repeats the same faults and the same clients; how
//! they meet is up to the machine. After a failure the logs are kept, and where is printed: `QUORATE_HISTORY=folder` has
//! them judged once more.

#[path = "history/agreement.rs"]
mod agreement;
#[path = "history/clients.rs"]
mod clients;
#[path = "history/false_histories.rs"]
mod false_histories;
#[path = "history/fleet.rs"]
mod fleet;
#[path = "history/linear.rs"]
mod linear;
#[path = "history/locks.rs"]
mod locks;
#[path = "history/node.rs"]
mod node;
#[path = "history/op.rs"]
mod op;
#[path = "history/records.rs"]
mod records;
#[path = "history/report.rs"]
mod report;
#[path = "history/simulated.rs"]
mod simulated;
#[path = "history/witness.rs"]
mod witness;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use quorate::testing::sim::Rng;
use rustix::process::Signal;

use agreement::Agreed;
use fleet::{Fleet, NODES};
use op::{CallResult, Op};

/// How long harm is done: at least, and at most while something that should be met was not.
const HARM: Duration = Duration::from_secs(16);
const HARM_AT_MOST: Duration = Duration::from_secs(24);

/// What was done to the processes.
#[derive(Debug, Default)]
struct Harm {
    kills: usize,
    pauses: usize,
    /// Whose life was over while its process still ran, and who was ended by its dead-man.
    ended: usize,
}

/// Not a test: one of the three processes of the run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "it is killed; the test of this file starts it"]
async fn node() -> Result<()> {
    match node::Part::own()? {
        Some(part) => node::play(part).await,
        None => Ok(()),
    }
}

#[test]
fn what_clients_are_told_while_processes_die_has_an_order_and_every_lock_one_holder() -> Result<()> {
    let seed = match std::env::var("QUORATE_SEED") {
        Ok(given) => given.parse()?,
        Err(_) => Rng::new(node::now()).below(1_000_000),
    };
    if let Ok(kept) = std::env::var("QUORATE_HISTORY") {
        return judge(Path::new(&kept)).map(|_| ());
    }
    let folder = tempfile::tempdir()?;
    let verdict = run(folder.path(), seed);
    if verdict.is_err() {
        println!("seed {seed}; the logs are kept in {}", folder.keep().display());
    }
    verdict
}

fn run(folder: &Path, seed: u64) -> Result<()> {
    let begun = Instant::now();
    let mut fleet = Fleet::found(folder, seed)?;
    let harm = harm(&mut fleet, seed)?;
    // Everybody is up again and may hold locks; then each record once more, on every node.
    fleet.all("", "! active ")?;
    fleet.all("quiet", "! quiet ")?;
    fleet.all("look", "! looked ")?;
    fleet.end()?;
    println!("seed {seed}: {harm:?}, all ended after {:.1?}", begun.elapsed());
    let met = judge(folder)?;
    ensure!(met.completed >= 1000, "too few calls for a judgement: {met:?}");
    ensure!(harm.kills >= 3 && met.cut_off >= 1 && met.passed_on_by_proof >= 1, "too little harm: {harm:?}, {met:?}");
    ensure!(met.conflicts >= 1 && met.grants >= 10, "too little dispute: {met:?}");
    Ok(())
}

/// Kills and stops processes: any of them, those that hold a lock, two at once.
fn harm(fleet: &mut Fleet, seed: u64) -> Result<Harm> {
    let (begun, mut rng, mut harm) = (Instant::now(), Rng::new(seed), Harm::default());
    let wait = |rng: &mut Rng, low, high| std::thread::sleep(Duration::from_millis(rng.between(low, high)));
    loop {
        wait(&mut rng, 900, 1900);
        harm.ended += fleet.revive()?;
        let kind = rng.below(10);
        let holders = if kind % 2 == 0 { fleet.holders()? } else { vec![] };
        let aimed = holders.get(rng.below(holders.len().max(1) as u64) as usize).copied();
        let victim = aimed.unwrap_or(rng.between(1, NODES));
        if kind <= 6 {
            harm.kills += usize::from(fleet.kill(victim)?);
            if kind == 6 {
                // Nobody decides anything until one of them is back.
                harm.kills += usize::from(fleet.kill(victim % NODES + 1)?);
            }
            wait(&mut rng, 100, 500);
            harm.ended += fleet.revive()?;
        } else {
            fleet.signal(victim, Signal::STOP)?;
            harm.pauses += 1;
            match kind {
                7 => wait(&mut rng, 100, 700),
                // It is taken for dead, and its lease has not ended.
                8 => wait(&mut rng, 1000, 1350),
                // It has.
                _ => wait(&mut rng, 2200, 3000),
            }
            fleet.signal(victim, Signal::CONT)?;
        }
        let met = harm.kills >= 3 && harm.pauses >= 1 && told(&fleet.folder)?.0.passed_on_by_proof() >= 1;
        if (begun.elapsed() > HARM && met) || begun.elapsed() > HARM_AT_MOST {
            return Ok(harm);
        }
    }
}

/// What all of them have written.
fn told(folder: &Path) -> Result<(Agreed, Vec<report::Violation>, Vec<Op>)> {
    let (mut agreed, mut wrong, mut ops) = (Agreed::default(), vec![], vec![]);
    for node in 1..=NODES {
        let text = fleet::log(folder, node);
        wrong.extend(agreed.take_in(&text)?);
        op::read(&text, &mut ops)?;
    }
    Ok((agreed, wrong, ops))
}

/// What a history has met.
#[derive(Debug)]
#[expect(dead_code, reason = "all of it is printed")]
struct Met {
    completed: usize,
    conflicts: usize,
    grants: usize,
    failed: usize,
    unknown: usize,
    /// Of these: the process was killed in the middle.
    cut_off: usize,
    passed_on_by_proof: usize,
    reads_ahead: usize,
}

/// Checks what was written down, and says what it was.
fn judge(folder: &Path) -> Result<Met> {
    let begun = Instant::now();
    let (agreed, mut wrong, mut ops) = told(folder)?;
    op::from_the_first(&mut ops);
    wrong.extend(agreed.check(&ops));
    wrong.extend(records::check(&ops));
    wrong.extend(locks::check(&ops));
    wrong.extend(locks::resource(&std::fs::read_to_string(folder.join("resource"))?));
    let witnessed = witness::check(&ops);
    wrong.extend(witnessed.wrong);
    let count = |which: fn(&Op) -> bool| ops.iter().filter(|op| which(op)).count();
    let (unknown, failed) = (count(Op::is_unknown), count(Op::has_failed));
    let met = Met {
        completed: ops.len() - unknown - failed,
        conflicts: count(|op| matches!(op.outcome, CallResult::Conflict(_))),
        grants: count(|op| matches!(op.outcome, CallResult::Granted(_))),
        failed,
        unknown,
        cut_off: count(|op| op.outcome == CallResult::Unknown(op::CUT_OFF.into())),
        passed_on_by_proof: agreed.passed_on_by_proof(),
        reads_ahead: witnessed.ahead,
    };
    println!("checked in {:.1?}: {met:?}", begun.elapsed());
    ensure!(wrong.is_empty(), "{} findings\n{}", wrong.len(), report::told(&wrong));
    Ok(met)
}

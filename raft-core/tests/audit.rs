//! The auditor: runs that it must call sound, and forged ones that it must not.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use quorate_membership::lease::Reading;
use quorate_membership::{Activation, BootId, Drift, FenceId, Identity, Incarnation, NodeId, Nonce, Revision, Stop};
use quorate_raft_core::ledger::audit::{Incomplete, Report, Rule, Verdict, audit};
use quorate_raft_core::ledger::{Entry, LastEnd, Note};
use quorate_raft_core::testing::{DeviceBehaviour, TestCluster};

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn at(t: u64) -> Reading {
    Reading::steady(ms(t))
}

fn x() -> Identity {
    Identity::new(NodeId::new(3), Incarnation::new(1))
}

/// Which line of a forged run, for those that a test changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    RequestName,
    Protects,
    LastHeld,
    LastGranted,
    Expiring,
    Ended,
    Other,
}

/// A run of two nodes, forged: n3 holds `db` under r7 until it is cut off, and n1 concludes its end from time. The lease
/// is 3 s, the mechanism has 100 ms, and D is 3.162 s.
struct Run(Vec<(At, u64, u64, Note)>);

const WAITED: u64 = 3200;

impl Run {
    fn new() -> Self {
        let (who, under, activation) = (x(), Activation::new(5), Activation::new(5));
        let stop = Stop::Own { bound: ms(100) };
        let named = Note::Registered { who, stop, lease: ms(3000), in_flight: ms(0), drift: Drift::default() };
        let ended = Note::Ended {
            who,
            token: Revision::new(20),
            order: Some(FenceId::new(1)),
            proof: "expired".into(),
            under: Some(under),
            waited: Some(ms(WAITED)),
        };
        let start = |session| Note::Started { session: Nonce::new(session) };
        Self(vec![
            (At::Other, 3, 0, start(3)),
            (At::Other, 1, 1, start(1)),
            (At::Other, 1, 51, Note::Activated { activation, since: at(50) }),
            (At::RequestName, 3, 60, named),
            (At::Other, 1, 115, Note::Granted { who, seq: 1, activation, received: at(110) }),
            (At::Other, 3, 120, Note::Held { who, seq: 1, from: at(100) }),
            (At::Protects, 3, 200, Note::Protects { who, what: "db".into(), token: Revision::new(7) }),
            (At::LastGranted, 1, 1015, Note::Granted { who, seq: 2, activation, received: at(1010) }),
            (At::LastHeld, 3, 1020, Note::Held { who, seq: 2, from: at(1000) }),
            (At::Expiring, 1, 4215, Note::Expiring { who, under, waited: ms(WAITED) }),
            (At::Ended, 1, 4230, ended),
        ])
    }

    fn without(mut self, which: At) -> Self {
        self.0.retain(|(at, ..)| *at != which);
        self
    }

    fn with(mut self, node: u64, at: u64, note: Note) -> Self {
        self.0.push((At::Other, node, at, note));
        self
    }

    fn moved(mut self, which: At, to: u64) -> Self {
        self.0.iter_mut().filter(|(at, ..)| *at == which).for_each(|(_, _, at, _)| *at = to);
        self
    }

    fn changed(mut self, which: At, change: impl Fn(&mut Note)) -> Self {
        self.0.iter_mut().filter(|(at, ..)| *at == which).for_each(|(.., note)| change(note));
        self
    }

    fn proved_by(self, kind: &str) -> Self {
        self.changed(At::Ended, |note| {
            if let Note::Ended { proof, under, waited, .. } = note {
                (*proof, *under, *waited) = (kind.into(), None, None);
            }
        })
    }

    /// Writes it down, each node in the boot that it is given, and has it audited.
    fn audit_in(&self, boot: impl Fn(u64, u64) -> u128) -> Result<Report> {
        let folder = tempfile::tempdir()?;
        let folders: Vec<PathBuf> = [1, 3].iter().map(|n| folder.path().join(format!("n{n}"))).collect();
        for (node, folder) in [1, 3].iter().zip(&folders) {
            let mut lines: Vec<_> = self.0.iter().filter(|(_, n, ..)| n == node).collect();
            lines.sort_by_key(|(_, _, at, _)| *at);
            let entry = |(_, node, at, note): &(At, u64, u64, Note)| {
                let boot = BootId::new(boot(*node, *at));
                Entry { boot, at: ms(*at), node: NodeId::new(*node), note: note.clone() }
            };
            let text: String = lines.into_iter().map(|line| format!("{}\n", entry(line))).collect();
            std::fs::create_dir_all(folder)?;
            std::fs::write(folder.join("ledger"), text)?;
        }
        Ok(audit(&folders)?)
    }

    /// All on one machine: times compare.
    fn audit(&self) -> Result<Report> {
        self.audit_in(|_, _| 9)
    }

    /// Each on its own machine: times do not compare. The clock of n3 is an hour behind, as if by chance.
    fn audit_apart(&self) -> Result<Report> {
        self.audit_in(|node, _| node.into())
    }
}

fn rules(report: &Report) -> Vec<Rule> {
    let mut rules: Vec<Rule> = report.violations.iter().map(|violation| violation.rule).collect();
    rules.dedup();
    rules
}

/// That the report says exactly this, and quotes a line with each of these words.
fn breaks(report: &Report, wanted: &[Rule], quoted: &[&str]) -> Result<()> {
    ensure!(rules(report) == wanted && report.verdict() == Verdict::Overlap, "{report}");
    let text = report.to_string();
    quoted.iter().try_for_each(|word| {
        ensure!(text.contains(word), "no `{word}` in\n{text}");
        Ok(())
    })
}

#[test]
fn a_sound_run_is_clean_and_shows_its_smallest_gap() -> Result<()> {
    let report = Run::new().audit()?;
    ensure!(report.verdict() == Verdict::Clean, "{report}");
    // From the receipt at 1010: 3000, and 101 for 100 on a clock that runs 1 % fast. Told at 4230.
    let gap = report.smallest_gap.context("a gap")?;
    assert_eq!((gap.gap, gap.who, report.intervals[0].until), (ms(119), x(), Some(ms(4111))));
    assert_eq!((report.granted, report.held, report.unmatched, report.proofs["expired"]), (2, 2, 0, 1));
    let apart = Run::new().audit_apart()?;
    ensure!(apart.verdict() == Verdict::Clean && apart.smallest_gap.is_none(), "{apart}");
    Ok(())
}

#[test]
fn an_end_that_was_told_too_early_is_found() -> Result<()> {
    breaks(
        &Run::new().moved(At::Ended, 4110).audit()?,
        &[Rule::EndedBeforeToldSo],
        &["granted who=n3#1 seq=2", "ended"],
    )?;
    // The very moment is not late enough.
    breaks(&Run::new().moved(At::Ended, 4111).audit()?, &[Rule::EndedBeforeToldSo], &["by 0ns"])?;
    ensure!(Run::new().moved(At::Ended, 4112).audit()?.verdict() == Verdict::Clean);
    Ok(())
}

/// The member was killed before its last line was written: only the leader knows that it had been granted more.
#[test]
fn an_overlap_that_only_the_leader_knows_of_is_found() -> Result<()> {
    let run = || Run::new().without(At::LastHeld).moved(At::Ended, 3900);
    breaks(&run().audit()?, &[Rule::EndedBeforeToldSo], &["granted who=n3#1 seq=2"])?;
    ensure!(run().without(At::LastGranted).audit()?.verdict() == Verdict::Clean);
    let run = Run::new().without(At::LastGranted).moved(At::Ended, 4100);
    breaks(&run.audit()?, &[Rule::EndedBeforeToldSo], &["held who=n3#1 seq=2"])
}

#[test]
fn who_protects_nothing_cannot_act_and_who_has_stopped_no_longer() -> Result<()> {
    let told = |run: Run| run.without(At::Expiring).moved(At::Ended, 500).audit();
    let report = told(Run::new().without(At::Protects))?;
    ensure!(report.verdict() == Verdict::Clean && report.intervals.is_empty(), "{report}");
    let stopped = || Note::Stopped { who: x(), what: "db".into(), token: Revision::new(7) };
    ensure!(told(Run::new().with(3, 450, stopped()))?.verdict() == Verdict::Clean);
    breaks(&told(Run::new().with(3, 550, stopped()))?, &[Rule::EndedBeforeToldSo], &["stopped who=n3#1"])?;
    // One of two is not all.
    let second = Note::Protects { who: x(), what: "db".into(), token: Revision::new(7) };
    breaks(&told(Run::new().with(3, 210, second).with(3, 450, stopped()))?, &[Rule::EndedBeforeToldSo], &[])?;
    // A machine that died may have taken the line with it: then it is taken to have protected something.
    let run = Run::new().without(At::Protects).without(At::Expiring).moved(At::Ended, 500);
    let again = || Note::Started { session: Nonce::new(4) };
    let rebooted = run.with(3, 5000, again()).audit_in(|_, at| if at == 5000 { 10 } else { 9 })?;
    breaks(&rebooted, &[Rule::EndedBeforeToldSo], &[])
}

/// On two machines no times are compared; the order that the leader and the log give has to do.
#[test]
fn between_machines_the_order_of_the_leader_is_checked() -> Result<()> {
    let waited = |time| {
        move |note: &mut Note| match note {
            Note::Expiring { waited, .. } => *waited = time,
            Note::Ended { waited, .. } => *waited = Some(time),
            _ => {}
        }
    };
    let short = Run::new().changed(At::Expiring, waited(ms(3100))).changed(At::Ended, waited(ms(3100)));
    breaks(&short.audit_apart()?, &[Rule::WaitedLongEnough], &["expiring who=n3#1"])?;
    let before = Run::new().changed(At::Expiring, waited(ms(4170)));
    breaks(
        &before.audit_apart()?,
        &[Rule::WaitedSinceActivation, Rule::NothingGrantedAfter],
        &["activated activation=a5"],
    )?;
    let late = Note::Granted { who: x(), seq: 3, activation: Activation::new(5), received: at(1020) };
    breaks(&Run::new().with(1, 1025, late).audit_apart()?, &[Rule::NothingGrantedAfter], &["seq=3"])?;
    let later = Note::Granted { who: x(), seq: 3, activation: Activation::new(6), received: at(1020) };
    breaks(&Run::new().with(1, 1025, later).audit_apart()?, &[Rule::NoLaterGrant], &["activation=a6"])?;
    let unbounded = |note: &mut Note| {
        if let Note::Registered { stop, .. } = note {
            *stop = Stop::Unbounded;
        }
    };
    breaks(
        &Run::new().changed(At::RequestName, unbounded).audit_apart()?,
        &[Rule::BoundedByTime],
        &["ended who=n3#1"],
    )?;
    // What nobody is on record to have granted proves nothing.
    let missing = Run::new().without(At::LastGranted).audit_apart()?;
    ensure!(matches!(missing.incomplete[..], [Incomplete::NoGrant { .. }]), "{missing}");
    let missing = Run::new().without(At::Expiring).audit_apart()?;
    ensure!(matches!(missing.incomplete[..], [Incomplete::NoWait { .. }]), "{missing}");
    Ok(())
}

#[test]
fn one_work_has_one_holder_and_its_tokens_grow() -> Result<()> {
    let who = Identity::new(NodeId::new(1), Incarnation::new(1));
    let take = |token| Note::Protects { who, what: "db".into(), token: Revision::new(token) };
    let stop = Stop::Own { bound: ms(100) };
    let note = || Note::Registered { who, stop, lease: ms(3000), in_flight: ms(0), drift: Drift::default() };
    let named = || Run::new().with(1, 60, note());
    let run = |at, token| named().with(1, at, take(token));
    ensure!(run(4240, 20).audit()?.verdict() == Verdict::Clean);
    breaks(&run(4100, 20).audit()?, &[Rule::OneHolder], &["protects who=n3#1 what=db token=r7", "token=r20"])?;
    breaks(&run(4240, 7).audit()?, &[Rule::TokensGrow], &[])?;
    breaks(&run(4240, 6).audit()?, &[Rule::TokensGrow], &[])?;
    // Another work is nobody's business.
    let other = Note::Protects { who, what: "db2".into(), token: Revision::new(6) };
    ensure!(named().with(1, 300, other).audit()?.verdict() == Verdict::Clean);
    // Apart: a token from the end of the former holder or later is the log's word; an earlier one is nobody's.
    ensure!(run(300, 20).audit_apart()?.verdict() == Verdict::Clean);
    let unknown = run(4240, 19).audit_apart()?;
    ensure!(matches!(unknown.incomplete[..], [Incomplete::NotOrdered { .. }]), "{unknown}");
    let stopped = Note::Stopped { who: x(), what: "db".into(), token: Revision::new(7) };
    let moved = run(1500, 19).with(3, 1400, stopped).audit_apart()?;
    ensure!(moved.verdict() == Verdict::Clean && moved.by_word == 1, "{moved}");
    Ok(())
}

#[test]
fn a_device_is_believed_and_counted_and_a_leave_is_checked() -> Result<()> {
    for word in ["device", "operator"] {
        let report = Run::new().proved_by(word).moved(At::Ended, 1500).without(At::Expiring).audit()?;
        ensure!(report.verdict() == Verdict::Clean && report.vouched == 1 && report.proofs[word] == 1, "{report}");
    }
    let leave = || Run::new().proved_by("clean leave").moved(At::Ended, 1500).without(At::Expiring);
    breaks(&leave().audit_apart()?, &[Rule::LeftWithNothing], &["protects who=n3#1"])?;
    let stopped = || Note::Stopped { who: x(), what: "db".into(), token: Revision::new(7) };
    ensure!(leave().with(3, 1400, stopped()).audit()?.verdict() == Verdict::Clean);
    breaks(&leave().with(3, 1600, stopped()).audit()?, &[Rule::EndedBeforeToldSo], &["stopped"])?;
    let report = Run::new().proved_by("a feeling").audit()?;
    ensure!(matches!(report.incomplete[..], [Incomplete::UnknownProof { .. }]), "{report}");
    Ok(())
}

/// A process that writes with its work protected, after its dead-man should have killed it; a lease that is counted from
/// the answer; and two nodes that have it differently how a life ended.
#[test]
fn what_the_mechanism_the_lease_and_the_log_promise_is_checked() -> Result<()> {
    let deadman = |note: &mut Note| {
        if let Note::Registered { stop, .. } = note {
            *stop = Stop::Deadman { lateness: ms(100) };
        }
    };
    let note = || Note::Activated { activation: Activation::new(9), since: Reading::default() };
    let alive = |at| Run::new().changed(At::RequestName, deadman).with(3, at, note());
    ensure!(alive(4101).audit()?.verdict() == Verdict::Clean);
    breaks(&alive(4102).audit()?, &[Rule::MechanismActs], &["held who=n3#1 seq=2", "activated"])?;
    let late = Run::new().changed(At::LastHeld, |note| {
        if let Note::Held { from, .. } = note {
            *from = at(1011);
        }
    });
    breaks(&late.audit()?, &[Rule::CountedFromSending], &["received=1010000000/1010000000"])?;
    let mut other = Run::new().0.pop().context("the last line")?.3;
    if let Note::Ended { token, .. } = &mut other {
        *token = Revision::new(21);
    }
    breaks(&Run::new().with(3, 5000, other).audit()?, &[Rule::OneHistory], &["token=r20", "token=r21"])
}

#[test]
fn what_is_missing_is_said() -> Result<()> {
    let report = Run::new().with(3, 300, Note::Dropped { notes: 4 }).audit()?;
    ensure!(matches!(report.incomplete[..], [Incomplete::Dropped { notes: 4, .. }]), "{report}");
    let report = Run::new().without(At::RequestName).audit()?;
    ensure!(matches!(report.incomplete[..], [Incomplete::NoContract { .. }]), "{report}");
    let folder = tempfile::tempdir()?;
    assert!(audit(&[folder.path().to_path_buf()]).is_err());
    // A life of a node whose ledger is not there.
    let report = Run(Run::new().0.into_iter().filter(|(at, ..)| *at == At::Ended).collect()).audit()?;
    ensure!(matches!(report.incomplete[..], [Incomplete::NoLedger { .. }]), "{report}");
    Ok(())
}

/// The real thing: a node is cut off with work protected, time proves its end, another takes its work over, a third
/// leaves; and the ledgers of all three show that it was sound.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_failover_is_found_to_be_sound() -> Result<()> {
    let mut t = TestCluster::start_protected(3, Stop::Own { bound: ms(100) }).await?;
    t.fencer.always(DeviceBehaviour::Fail);
    for number in 1..=3 {
        t.node(number)?.lease()?.held().await;
    }
    let leader = t.leader().await?.get();
    let (away, successor) = (leader % 3 + 1, (leader + 1) % 3 + 1);
    let lease = t.node(away)?.lease()?;
    let lost = lease.protect("db", Revision::new(1)).await?;
    let data: Vec<PathBuf> = (1..=3).map(|n| Ok(t.node(n)?.data().to_path_buf())).collect::<Result<_>>()?;
    t.isolate(away);
    let who = lease.who();
    t.until("time has proved its end", |state| state.fences().ended(who).is_some()).await?;
    let token = t.node(successor)?.handle()?.view().cluster.fences().ended(who).context("it was ended")?.confirmed;
    t.node(successor)?.lease()?.protect("db", token).await?.stopped();
    lost.stopped();
    t.heal();
    for number in [away, successor, leader] {
        t.node(number)?.stop().await;
    }
    let report = audit(&data)?;
    ensure!(report.verdict() == Verdict::Clean, "{report}");
    let gap = report.smallest_gap.as_ref().context("clocks of one machine compare")?;
    ensure!(gap.who == who && report.proofs.get("expired") == Some(&1) && report.works["db"] == 2, "{report}");
    ensure!(report.granted > 0 && report.held > 0 && report.unmatched == 0, "{report}");
    let node = quorate_raft_core::ledger::read(Path::new(&data[0]))?;
    ensure!(node.lines.iter().filter(|line| line.entry.note == Note::Closed).count() == 1);
    t.node(successor)?.open_again().await?;
    ensure!(matches!(t.node(successor)?.handle()?.last_end(), LastEnd::Closed { .. }));
    Ok(())
}

/// A wait may begin before the activation where a quorum has told the leader when it heard of the life last, and never before
/// the sending of the last renewal that was granted.
#[test]
fn a_wait_that_was_moved_back_begins_after_the_last_sending() -> Result<()> {
    let activated = Note::Activated { activation: Activation::new(6), since: at(4000) };
    let under_another = |note: &mut Note| match note {
        Note::Expiring { under, .. } => *under = Activation::new(6),
        Note::Ended { under, .. } => *under = Some(Activation::new(6)),
        _ => {}
    };
    let run = || {
        Run::new()
            .with(1, 4001, activated.clone())
            .changed(At::Expiring, under_another)
            .changed(At::Ended, under_another)
    };
    breaks(&run().audit()?, &[Rule::WaitedSinceActivation], &["activated activation=a6"])?;
    let told = |since| Note::Receipts { activation: Activation::new(6), since: at(since) };
    ensure!(run().with(1, 4010, told(1001)).audit()?.verdict() == Verdict::Clean);
    // The last renewal was sent at 1000, and the wait began before.
    let waited = |note: &mut Note| {
        if let Note::Expiring { waited, .. } = note {
            *waited += ms(100);
        }
    };
    let early = run().with(1, 4010, told(900)).changed(At::Expiring, waited);
    breaks(&early.audit()?, &[Rule::WaitedSinceSending], &["seq=2", "expiring who=n3#1"])
}

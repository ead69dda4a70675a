//! The watchdog: started only for protected work, fed only within the lease, late by no more than is promised. The
//! process, its pauses and its death are real; the device is a stand-in that writes down what it is told.
//!
//! `cargo test -p quorate-raft-core --test stop_watchdog -- --nocapture` prints when it would have bitten.

#![expect(clippy::expect_used, reason = "what a test starts fails as a test does")]

mod standin;
mod victim;

use std::time::Duration;

use anyhow::{Context, Result};
use quorate_membership::{Contract, NodeId, Revision, Role, Stop};
use quorate_raft_core::testing::{MemoryNetwork, fast};
use quorate_raft_core::{Node, NodeSettings, StopMechanism, Watchdog};
use rustix::process::{Pid, Signal, kill_process};
use standin::StandIn;
use victim::{Victim, boottime, look, part, say, say_at};

const SECOND: Duration = Duration::from_secs(1);
/// The lease of the victims that need no node.
const LEASE: Duration = Duration::from_millis(1500);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn watchdog(timeout: Duration) -> Watchdog {
    Watchdog::new(timeout).open_at(std::env::var(standin::PATH).expect("a victim has a device"))
}

/// A keeper that has no further grant: feeds at its pace until the end of the lease, and no further.
fn feed_until(dog: &mut Watchdog, end: Duration) {
    loop {
        let left = end.saturating_sub(boottime());
        if left.is_zero() {
            return;
        }
        dog.sustain(look(), left).expect("it can be fed");
        std::thread::sleep(dog.pace());
    }
}

/// Not a test: what the tests start.
#[test]
#[ignore = "it is killed; the tests of this file start it"]
fn victim() {
    let Some(part) = part() else { return };
    let mut dog = watchdog(SECOND);
    dog.check().expect("it is there");
    match part.as_str() {
        "runs out" => {
            let end = boottime() + LEASE;
            say_at("end", end);
            feed_until(&mut dog, end);
            dog.fire();
            drop(dog);
            say("over", 1);
            std::thread::sleep(SECOND * 3);
        }
        "killed" => {
            dog.sustain(look(), LEASE).expect("it can be armed");
            say("armed", 1);
            std::thread::sleep(SECOND * 60);
        }
        "stops in time" => {
            feed_until(&mut dog, boottime() + ms(400));
            dog.sustain(look(), LEASE).expect("it can be fed");
            dog.disarm().expect("it can be disarmed");
        }
        "armed once" => {
            let refusal = dog.sustain(look(), LEASE).expect_err("such a device is refused").to_string();
            println!("{refusal}");
            say("refused", 1);
            std::thread::sleep(SECOND * 2);
        }
        "accepts nowayout" => {
            let mut dog = dog.accept_nowayout();
            dog.sustain(look(), LEASE).expect("it is accepted");
            dog.disarm().expect("it is fed from here on");
            say_at("disarmed", boottime());
            std::thread::sleep(SECOND * 2);
            dog.sustain(look(), LEASE).expect("it is armed again");
            drop(dog);
            say_at("alone", boottime());
            std::thread::sleep(SECOND * 2);
        }
        "two users" => {
            let mut other = watchdog(SECOND);
            let mut third = watchdog(SECOND * 2);
            let (end, far) = (boottime() + ms(600), boottime() + SECOND * 60);
            other.sustain(look(), end.saturating_sub(boottime())).expect("it can be armed");
            dog.sustain(look(), far - boottime()).expect("the device is shared");
            let disagreement = third.sustain(look(), LEASE).expect_err("one device has one timeout").to_string();
            assert!(disagreement.contains("1 s") && disagreement.contains("2 s"), "{disagreement}");
            let refusal = loop {
                match dog.sustain(look(), far - boottime()) {
                    Ok(()) => std::thread::sleep(dog.pace()),
                    Err(refusal) => break refusal.to_string(),
                }
            };
            assert!(refusal.contains("another user"), "{refusal}");
            say_at("end", end);
            say_at("refused", boottime());
            // Late, and before it has bitten: the other one has stopped after all.
            other.disarm().expect("it can be disarmed");
            dog.sustain(look(), far - boottime()).expect("it is fed again");
            say_at("fed", boottime());
            dog.disarm().expect("it can be disarmed");
        }
        other => panic!("no such part: {other}"),
    }
}

/// Not a test: a node with a watchdog, first without and then with protected work.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a test of this file starts it"]
async fn victim_node() -> Result<()> {
    if part().is_none() {
        return Ok(());
    }
    let (board, folder, one) = (MemoryNetwork::new(), tempfile::tempdir()?, NodeId::new(1));
    let node = Node::start(NodeSettings {
        node: one,
        data: folder.path().join("data"),
        addresses: vec![MemoryNetwork::address(one)?],
        config: fast(),
        transport: board.transport(one),
        fencer: None,
        stop: Some(Box::new(watchdog(SECOND * 2))),
        trust_vm_clock: true,
    })
    .await?;
    board.connect(one, node.service());
    node.bootstrap(Role::Voter, SECOND * 60).await?;
    let lease = node.lease().context("it has joined")?;
    lease.held().await;
    tokio::time::sleep(SECOND).await;
    say_at("idle", boottime());
    let protection = lease.protect("worker", Revision::new(7)).await?;
    say_at("protected", boottime());
    tokio::time::sleep(SECOND).await;
    protection.stopped();
    while lease.view().armed {
        tokio::time::sleep(ms(10)).await;
    }
    say_at("stopped", boottime());
    tokio::time::sleep(ms(500)).await;
    Ok(())
}

fn signal(victim: &Victim, signal: Signal) {
    kill_process(Pid::from_raw(victim.id() as i32).expect("a number of a process"), signal).expect("it is not reaped");
}

/// From the sending of the renewal to the bite, and what others wait for.
fn bite_and_wait(device: &StandIn, end: Duration) -> (Duration, Duration) {
    let stop = Stop::Watchdog { timeout: SECOND, reset: Duration::ZERO };
    let contract = Contract { lease: LEASE, stop, ..Contract::default() };
    let bite = device.bites(SECOND).expect("it bites");
    println!("bitten {:?} after the end of the lease", bite.saturating_sub(end));
    (bite - (end - LEASE), contract.own_wait().expect("a watchdog has a bound"))
}

#[test]
fn it_is_set_and_confirmed_before_it_is_relied_on_and_closed_with_the_magic_word() {
    let device = StandIn::new();
    let ended = device.victim("stops in time", &[]).ended();
    assert_eq!(ended.code, Some(0));
    let words = device.words();
    assert_eq!(words[..6], ["open", "off", "on", "settimeout", "gettimeout", "keepalive"]);
    assert_eq!(words[words.len() - 3..], ["off", "magic", "close"]);
    assert!(words[6..words.len() - 3].iter().all(|word| word == "keepalive"), "{words:?}");
    assert!(!device.runs(), "{:?}", device.acts());
}

#[test]
fn a_lease_that_runs_out_ends_the_feeding_and_it_bites_in_time() {
    let device = StandIn::new();
    let mut victim = device.victim("runs out", &[]);
    let end = victim.expect_at("end");
    victim.expect("over");
    assert_eq!(victim.ended().code, Some(0));
    assert!(!device.words().contains(&"magic".into()), "dropped while it was armed, it was disarmed");
    let (bite, wait) = bite_and_wait(&device, end);
    assert!(bite <= LEASE + SECOND * 2 && bite <= wait, "bitten after {bite:?}, others wait {wait:?}");
}

/// The pause falls between the look at the lease and the feeding, and ends after the lease: one timeout is not enough,
/// two are.
#[test]
fn a_feeder_that_is_paused_between_look_and_feeding_is_covered_by_twice_its_timeout() {
    // A machine that is too slow to be paused in that moment gets another try.
    for _ in 0..10 {
        let device = StandIn::new();
        let mut victim = device.victim("runs out", &[("STANDIN_PAUSES_AT", "11")]);
        let end = victim.expect_at("end");
        std::thread::sleep((end + ms(400)).saturating_sub(boottime()));
        let paused = device.acts().into_iter().find(|act| act.0 == "paused");
        signal(&victim, Signal::CONT);
        victim.expect("over");
        drop(victim);
        if paused.is_none_or(|act| act.1 >= end) {
            continue;
        }
        let (bite, wait) = bite_and_wait(&device, end);
        assert!(bite <= LEASE + SECOND * 2 && bite <= wait, "bitten after {bite:?}, others wait {wait:?}");
        return;
    }
    panic!("never paused before the end of the lease");
}

#[test]
fn a_feeder_that_is_stopped_or_killed_for_good_is_bitten() {
    for how in [Signal::STOP, Signal::KILL] {
        let device = StandIn::new();
        let mut victim = device.victim("killed", &[]);
        victim.expect("armed");
        signal(&victim, how);
        let fed = device.acts().pop().expect("it was fed").1;
        drop(victim);
        assert_eq!(device.bites(SECOND), Some(fed + SECOND), "{:?}", device.acts());
    }
}

#[test]
fn a_device_that_takes_another_timeout_is_refused_and_stopped() {
    let device = StandIn::new();
    let mut victim = device.victim("armed once", &[("STANDIN_ROUNDS", "2")]);
    let said = victim.text_until("refused");
    assert!(said.contains("waits 2 s where 1 s are promised"), "{said}");
    assert_eq!(victim.ended().code, Some(0));
    assert_eq!(device.words(), ["open", "off", "on", "settimeout", "gettimeout", "off", "magic", "close"]);
}

#[test]
fn a_device_that_stops_with_its_process_or_only_raises_an_alarm_is_refused() {
    for (options, why) in [("128", "has no magic close"), ("1408", "raises an alarm")] {
        let device = StandIn::new();
        let mut victim = device.victim("armed once", &[("STANDIN_OPTIONS", options)]);
        let said = victim.text_until("refused");
        assert!(said.contains(why), "{said}");
        assert_eq!(victim.ended().code, Some(0));
        let words = device.words();
        assert_eq!(words[words.len() - 3..], ["off", "magic", "close"], "{words:?}");
    }
}

/// It runs already when that is found out: so it is fed, and nothing is protected by it.
#[test]
fn nowayout_is_refused_and_the_machine_is_not_reset_for_having_asked() {
    let device = StandIn::new();
    let mut victim = device.victim("armed once", &[("STANDIN_NOWAYOUT", "1")]);
    let said = victim.text_until("refused");
    assert!(said.contains("nowayout") && said.contains("accept_nowayout"), "{said}");
    let refused = boottime();
    let ended = victim.ended();
    assert_eq!(ended.code, Some(0));
    assert!(!device.words().contains(&"magic".into()));
    assert!(device.fed(refused, boottime()) >= 3, "not fed after the refusal: {:?}", device.acts());
    assert!(device.runs(), "nothing stops it when its process has gone");
}

#[test]
fn nowayout_accepted_is_fed_for_as_long_as_nothing_is_protected() {
    let device = StandIn::new();
    let mut victim = device.victim("accepts nowayout", &[("STANDIN_NOWAYOUT", "1")]);
    let (disarmed, alone) = (victim.expect_at("disarmed"), victim.expect_at("alone"));
    assert_eq!(victim.ended().code, Some(0));
    assert!(device.fed(disarmed, alone) >= 3, "not fed while nothing was protected: {:?}", device.acts());
    // By nobody from then on: the user that was armed said nothing more.
    assert_eq!(device.fed(alone, boottime()), 0, "{:?}", device.acts());
    assert!(device.runs(), "{:?}", device.acts());
}

#[test]
fn a_shared_device_is_fed_only_while_every_user_is_within_its_lease() {
    let device = StandIn::new();
    let mut victim = device.victim("two users", &[]);
    let (end, refused, fed) = (victim.expect_at("end"), victim.expect_at("refused"), victim.expect_at("fed"));
    assert_eq!(victim.ended().code, Some(0));
    let acts = device.acts();
    assert_eq!(device.fed(end, refused), 0, "fed beyond the lease of one of its users: {acts:?}");
    assert!(
        device.fed(refused, fed) == 1 && device.words().iter().filter(|word| *word == "open").count() == 1,
        "{acts:?}"
    );
    assert_eq!(device.words().last().map(String::as_str), Some("close"));
}

/// I19, on a whole node: a lease alone opens nothing.
#[test]
fn nothing_is_opened_before_work_is_protected_and_nothing_is_left_open_after_it() {
    let device = StandIn::new();
    let mut victim = device.victim("node", &[]);
    let (idle, protected) = (victim.expect_at("idle"), victim.expect_at("protected"));
    let stopped = victim.expect_at("stopped");
    assert_eq!(victim.ended().code, Some(0));
    let acts = device.acts();
    assert!(acts.iter().all(|act| act.1 > idle), "opened for nothing: {acts:?}");
    assert!(acts.iter().any(|act| act.0 == "keepalive" && act.1 < protected), "relied on before it was fed: {acts:?}");
    assert_eq!(device.words()[acts.len() - 3..], ["off", "magic", "close"]);
    let fed: Vec<_> = acts.iter().filter(|act| act.0 == "keepalive").map(|act| act.1).collect();
    let longest = fed.windows(2).map(|two| two[1] - two[0]).max().expect("it was fed more than once");
    println!("fed {} times in {:?}, at the longest after {longest:?} (W / 4 = 500 ms)", fed.len(), stopped - protected);
    assert!(!device.runs(), "{acts:?}");
}

#[test]
fn what_is_no_device_is_refused_at_the_start() {
    let refused = |dog: Watchdog| dog.open_at("/proc/self/stat").check().expect_err("it is refused").to_string();
    assert!(refused(Watchdog::new(SECOND)).contains("no character device"));
    for timeout in [ms(1500), ms(0), ms(500)] {
        assert!(refused(Watchdog::new(timeout)).contains("whole seconds"));
    }
    let missing = Watchdog::new(SECOND).open_at("/dev/no-such-watchdog").check().expect_err("it is not there");
    assert!(missing.to_string().starts_with("/dev/no-such-watchdog: "), "{missing}");
}

//! The dead-man kills, whatever the process does: real processes, real kernel timers, SIGKILL.
//!
//! `cargo test -p quorate-raft-core --test stop_deadman -- --nocapture` prints how late.

#![expect(unsafe_code, reason = "blocking every signal has no safe binding")]

mod victim;

use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use quorate_raft_core::{Deadman, StopMechanism};
use rustix::process::{Signal, getpid, kill_process};
use victim::{Victim, boottime, look, part, say, say_at};

const SIGKILL: Option<i32> = Some(9);
/// What a test asserts; what it measures is printed. No machine that runs tests at all is later than that.
const HOPELESS: Duration = Duration::from_secs(5);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn forever() -> ! {
    loop {
        std::thread::park();
    }
}

/// Not a test: what the tests start.
#[test]
#[ignore = "it is killed; the tests of this file start it"]
fn victim() {
    let Some(part) = part() else { return };
    let mut deadman = Deadman::new();
    if part == "first of its namespace" {
        say("pid", getpid().as_raw_pid() as u128);
        let refusal = deadman.check().map_err(|error| error.to_string());
        say(&format!("refused:{}", refusal.is_err_and(|why| why.contains("pid 1"))), 1);
        return;
    }
    deadman.check().expect("it can be had here");
    let arm = |deadman: &mut Deadman| {
        deadman.sustain(look(), ms(250)).expect("it can be armed");
        say_at("at", deadman.deadline().expect("it is armed"));
    };
    match part.as_str() {
        "idle" => arm(&mut deadman),
        "dropped" => {
            arm(&mut deadman);
            drop(deadman);
        }
        "stopped" => {
            arm(&mut deadman);
            kill_process(getpid(), Signal::STOP).expect("it may stop itself");
        }
        "spinning" => {
            let cores = std::thread::available_parallelism().map_or(2, usize::from);
            for _ in 0..2 * cores {
                std::thread::spawn(|| {
                    loop {
                        std::hint::spin_loop();
                    }
                });
            }
            arm(&mut deadman);
            loop {
                std::hint::spin_loop();
            }
        }
        "deaf" => {
            // SAFETY: a set on this stack, filled before it is used; the last argument may be null.
            unsafe {
                let mut all: libc::sigset_t = std::mem::zeroed();
                libc::sigfillset(&raw mut all);
                libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, std::ptr::null_mut());
            }
            arm(&mut deadman);
        }
        "stuck keeper" => {
            static HELD: Mutex<()> = Mutex::new(());
            let held = HELD.lock();
            std::thread::spawn(move || {
                let end = boottime() + ms(300);
                for _ in 0..5 {
                    deadman.sustain(look(), end.saturating_sub(boottime())).expect("it can be armed");
                    std::thread::sleep(deadman.pace());
                }
                arm(&mut deadman);
                let _never = HELD.lock();
            });
            let _kept = held;
            forever();
        }
        "kept alive" => {
            for _ in 0..40 {
                deadman.sustain(look(), Duration::from_secs(10)).expect("it can be armed");
                say_at("moved", deadman.deadline().expect("it is armed"));
                std::thread::sleep(deadman.pace());
            }
            deadman.sustain(look(), ms(200)).expect("it can be armed");
            say_at("at", deadman.deadline().expect("it is armed"));
        }
        "kept to the end" => {
            let end = boottime() + ms(1500);
            say_at("end", end);
            loop {
                deadman.sustain(look(), end.saturating_sub(boottime())).expect("it can be armed");
                say_at("moved", deadman.deadline().expect("it is armed"));
                std::thread::sleep(deadman.pace());
            }
        }
        "disarmed" => {
            deadman.sustain(look(), ms(3000)).expect("it can be armed");
            deadman.disarm().expect("it can be disarmed");
            std::thread::sleep(ms(3500));
            say("alive", 1);
            return;
        }
        "fired" => {
            deadman.sustain(look(), Duration::from_secs(60)).expect("it can be armed");
            say_at("at", boottime());
            deadman.fire();
        }
        other => panic!("no such part: {other}"),
    }
    forever();
}

/// 20 times: how long after the instant that was armed each of them was known to be dead.
fn lateness(part: &str) -> Vec<Duration> {
    let mut late: Vec<Duration> = (0..20)
        .map(|_| {
            let mut victim = Victim::start(part);
            let at = victim.expect_at("at");
            let ended = victim.ended();
            assert_eq!(ended.signal, SIGKILL, "{part}: {ended:?}");
            assert!(ended.at >= at, "{part}: killed {:?} early", at - ended.at);
            assert!(ended.at - at < HOPELESS, "{part}: killed {:?} late", ended.at - at);
            ended.at - at
        })
        .collect();
    late.sort();
    println!("{part:>12}: 20 of 20 killed, late by {:?} (median), {:?} (worst)", late[10], late[19]);
    late
}

#[test]
fn it_kills_what_is_idle_stopped_spinning_deaf_or_stuck_a_hundred_times_of_a_hundred() {
    let mut late: Vec<Duration> = std::thread::scope(|scope| {
        let calm = ["idle", "stopped", "deaf", "stuck keeper"].map(|part| scope.spawn(move || lateness(part)));
        calm.into_iter().flat_map(|part| part.join().expect("each was killed in time")).collect()
    });
    // Alone: it takes every core.
    late.extend(lateness("spinning"));
    late.sort();
    assert_eq!(late.len(), 100);
    let within = late.iter().filter(|late| **late < ms(250)).count();
    println!("         all: late by {:?} (median), {:?} (worst); {within} of 100 within 250 ms", late[50], late[99]);
}

#[test]
fn each_call_moves_the_deadline_and_the_last_one_counts() {
    let mut victim = Victim::start("kept alive");
    let mut last = Duration::ZERO;
    let at = loop {
        match victim.hear().expect("it says more") {
            (word, at) if word == "moved" => {
                let at = Duration::from_nanos(at as u64);
                assert!(at > last, "{at:?} after {last:?}");
                last = at;
            }
            (_, at) => break Duration::from_nanos(at as u64),
        }
    };
    let ended = victim.ended();
    assert_eq!(ended.signal, SIGKILL);
    assert!(ended.at >= at && ended.at < last, "killed at {:?}, armed for {at:?}, before that for {last:?}", ended.at);
}

#[test]
fn a_healthy_keeper_comes_close_to_the_end_of_its_lease_and_never_beyond() {
    let mut victim = Victim::start("kept to the end");
    let end = victim.expect_at("end");
    let mut moved = vec![];
    while let Some((word, at)) = victim.hear() {
        assert_eq!(word, "moved");
        moved.push(Duration::from_nanos(at as u64));
    }
    let ended = victim.ended();
    assert_eq!(ended.signal, SIGKILL);
    assert!(moved.iter().all(|at| *at <= end), "armed beyond the end {end:?}: {moved:?}");
    let last = *moved.last().expect("it was armed");
    println!("armed {} times, at last {:?} before the end of the lease", moved.len(), end - last);
}

#[test]
fn disarmed_it_does_nothing() {
    let mut victim = Victim::start("disarmed");
    victim.expect("alive");
    let ended = victim.ended();
    assert_eq!((ended.signal, ended.code), (None, Some(0)));
}

#[test]
fn dropped_while_armed_it_still_kills() {
    let mut victim = Victim::start("dropped");
    let at = victim.expect_at("at");
    let ended = victim.ended();
    assert_eq!(ended.signal, SIGKILL);
    assert!(ended.at >= at);
}

#[test]
fn fired_it_kills_at_once() {
    let mut victim = Victim::start("fired");
    let fired = victim.expect_at("at");
    let ended = victim.ended();
    assert_eq!(ended.signal, SIGKILL);
    assert!(ended.at - fired < Duration::from_secs(54), "it waited for the timer");
}

/// No signal from within kills the first process of a pid namespace, so nothing may be promised there. Where no namespace
/// can be made it says so and proves nothing.
#[test]
fn the_first_process_of_a_container_is_refused() {
    let inside = |arguments: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--pid", "--fork", "--kill-child"]).args(arguments);
        command
    };
    if !inside(&["true"]).status().is_ok_and(|status| status.success()) {
        println!("no pid namespace can be made here");
        return;
    }
    let exe = std::env::current_exe().expect("a test has a file");
    let mut victim = Victim::launch(inside(&[&exe.display().to_string()]), "first of its namespace");
    assert_eq!(victim.expect("pid"), 1);
    victim.expect("refused:true");
}

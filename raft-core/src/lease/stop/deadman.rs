//! The dead-man (class K): a timer in the kernel that kills this process unless it is moved again and again, whether the
//! process is stopped, blocked or spinning.
//!
//! ```text
//!   sustain          sustain          sustain                             E
//!   ├─ 0.9 · left ──────────────────────────────────────────────▶ kill    │
//!   │                ├─ 0.9 · left ──────────────────────────────────▶ kill
//!   │                │                ├─ 0.9 · left ──────────────────────▶ kill
//! ```
//!
//! The timer runs on CLOCK_BOOTTIME, which counts while the machine sleeps, and whose rate may be steered by σ
//! ([`SLEW_PERCENT`]). It is armed σ short of what is left, so it can only be early. Each new arming has less left to be
//! wrong about: with a live keeper it comes as close to the end E of the lease as σ of its pace.
//!
//! **`left` counts from the caller's reading of the clock**, not from the call. The process may be paused between the
//! two, and an instant counted from the call would then lie *after* E.
//!
//! It does not reach: a process in an uninterruptible wait of a kernel that hangs; a machine that its hypervisor has
//! frozen; other processes (see [`BoundChild`](crate::BoundChild) for children: fork does not inherit timers); the first
//! process of a pid namespace, which no signal from within can kill. There it refuses to start.

use std::io;
use std::process::abort;
use std::time::Duration;

use quorate_membership::Stop;
use quorate_membership::lease::Reading;
use quorate_membership::timing::SLEW_PERCENT;
use rustix::process::{Signal, getpid, kill_process};

use super::StopMechanism;
use super::kernel::Timer;
use crate::host::clock;

/// Kills this process at the end of its lease, by a timer of the kernel's ([`Stop::Deadman`]).
///
/// One per process is enough. Two are independent of each other, and the earlier one kills.
///
/// **Dropping it while it is armed does not disarm it.** The work may still run, so the process is killed at the end of the
/// lease. Only [`StopMechanism::disarm`] disarms it.
#[derive(Debug)]
pub struct Deadman {
    lateness: Duration,
    timer: Option<Timer>,
    /// What CLOCK_BOOTTIME shows when the kernel acts; `None` when it is disarmed.
    armed: Option<Duration>,
}

/// How often it is moved. The last arming before E is at most this old, and early by σ of it.
const PACE: Duration = Duration::from_millis(20);

/// How far ahead the check arms it. No start of a node takes that long, and no work runs yet.
const TRIAL: Duration = Duration::from_secs(3600);

impl Default for Deadman {
    fn default() -> Self {
        Self::new()
    }
}

impl Deadman {
    /// A dead-man that promises the end of the process within 250 ms after the end of the lease. A machine keeps that
    /// unless it is far overloaded or throttled by a small CPU quota.
    pub fn new() -> Self {
        Self::within(Duration::from_millis(250))
    }

    /// A dead-man that promises the end of the process within `lateness` after the end of the lease: the time that the
    /// kernel needs to deliver the signal and the process to exit. 0 to 1 h. Every other node waits that much longer;
    /// measure it where that matters.
    pub fn within(lateness: Duration) -> Self {
        Self { lateness, timer: None, armed: None }
    }

    /// What CLOCK_BOOTTIME will show when the kernel kills this process, unless the dead-man is moved or disarmed; `None`
    /// when it is not armed.
    pub fn deadline(&self) -> Option<Duration> {
        self.armed
    }

    fn timer(&mut self) -> io::Result<&Timer> {
        match &mut self.timer {
            Some(timer) => Ok(timer),
            none => Ok(none.insert(Timer::new().map_err(|e| refused("create", &e))?)),
        }
    }
}

impl StopMechanism for Deadman {
    fn stop(&self) -> Stop {
        Stop::Deadman { lateness: self.lateness }
    }

    /// Creates the timer, arms it an hour ahead, reads it back and disarms it. A container that forbids timers is noticed
    /// at the start.
    fn check(&mut self) -> io::Result<()> {
        if getpid().is_init() {
            let why = "this process is the first of its pid namespace (pid 1), which no signal from within can kill: \
                       start it under an init (docker run --init, tini, shareProcessNamespace)";
            return Err(io::Error::new(io::ErrorKind::Unsupported, why));
        }
        let timer = self.timer()?;
        timer.set(Some(clock::now().since_origin() + TRIAL)).map_err(|e| refused("arm", &e))?;
        let read = timer.left();
        timer.set(None).map_err(|e| refused("disarm", &e))?;
        match read.map_err(|e| refused("read", &e))? {
            Some(left) if left <= TRIAL && left >= TRIAL / 2 => Ok(()),
            other => Err(io::Error::other(format!("a timer armed {TRIAL:?} ahead reads {other:?} as what is left"))),
        }
    }

    fn pace(&self) -> Duration {
        PACE
    }

    fn sustain(&mut self, looked: Reading, left: Duration) -> io::Result<()> {
        let at = instant(looked.boottime(), left);
        if self.armed.is_none() && at <= clock::now().since_origin() {
            return Err(io::Error::other(
                "the lease ended before the timer could be armed; nothing runs that it should end",
            ));
        }
        self.timer()?.set(Some(at)).map_err(|e| refused("arm", &e))?;
        self.armed = Some(at);
        Ok(())
    }

    fn disarm(&mut self) -> io::Result<()> {
        if let Some(timer) = &self.timer {
            timer.set(None).map_err(|e| refused("disarm", &e))?;
        }
        self.armed = None;
        Ok(())
    }

    /// Kills the process at once; the timer would have done so already, or is about to.
    fn fire(&mut self) {
        // The last line of the process. Should writing it take long, the timer of the kernel does not wait for it.
        tracing::error!("the dead-man kills this process: its lease has ended with protected work left");
        let _kills_or_aborts = kill_process(getpid(), Signal::KILL);
        abort();
    }
}

impl Drop for Deadman {
    fn drop(&mut self) {
        if self.armed.is_some()
            && let Some(timer) = self.timer.take()
        {
            // Stays armed in the kernel.
            std::mem::forget(timer);
        }
    }
}

/// When the kernel has to act for a caller that had `left` when the clock showed `looked`.
fn instant(looked: Duration, left: Duration) -> Duration {
    looked.saturating_add(left.saturating_mul(100 - SLEW_PERCENT) / 100)
}

fn refused(verb: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("the kernel does not let this process {verb} a dead-man's timer: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn it_is_armed_short_of_what_is_left() {
        assert_eq!(instant(ms(10_000), ms(3000)), ms(12_700));
        assert_eq!(instant(ms(10_000), Duration::ZERO), ms(10_000));
    }

    /// A minute ahead, so that no slow machine is killed by its test.
    #[test]
    fn it_can_be_tried_out_armed_moved_and_taken_back() {
        let (mut k, minute) = (Deadman::new(), Duration::from_secs(60));
        k.check().unwrap();
        assert_eq!((k.deadline(), k.timer().unwrap().left().unwrap()), (None, None));
        k.sustain(clock::reading(), minute).unwrap();
        let first = k.deadline().unwrap();
        let left = k.timer().unwrap().left().unwrap().unwrap();
        assert!(left <= ms(54_000) && left > ms(30_000), "{left:?}");
        k.sustain(clock::reading(), minute * 2).unwrap();
        assert!(k.deadline().unwrap() > first + ms(50_000));
        k.disarm().unwrap();
        assert_eq!((k.deadline(), k.timer().unwrap().left().unwrap()), (None, None));
    }

    /// A caller that read the clock, was paused and then calls must not move the instant beyond the end of its lease.
    #[test]
    fn a_pause_between_the_look_and_the_call_moves_nothing_beyond_the_end_of_the_lease() {
        let mut k = Deadman::new();
        k.sustain(clock::reading(), Duration::from_secs(60)).unwrap();
        let (looked, left) = (clock::reading(), Duration::from_secs(12));
        let end = looked.boottime() + left;
        // Longer than what σ makes up for, far shorter than what is armed.
        std::thread::sleep(ms(1500));
        k.sustain(looked, left).unwrap();
        let at = k.deadline().unwrap();
        k.disarm().unwrap();
        assert!(at < end, "armed at {at:?}, the lease ends at {end:?}");
    }

    #[test]
    fn what_it_promises_is_what_it_was_given() {
        assert_eq!(Deadman::new().stop(), Stop::Deadman { lateness: ms(250) });
        assert_eq!(Deadman::within(ms(50)).stop(), Stop::Deadman { lateness: ms(50) });
    }
}

//! Class H: a hardware watchdog that resets the machine when it is not fed, and that is fed only while the lease lasts.
//!
//! ```text
//!   feed     feed     feed     feed   E                                     E + 2W
//!   ├────────┼────────┼────────┼──────┼─────────────────────────────────────┤
//!                              ├────────────── W ─────────────▶ reset       the latest reset
//!                                  look ├─ pause ─▶ feed ├────────── W ──────▶
//! ```
//!
//! *2W, not W*: a pause may fall between the look at the lease and the feeding, and it lasts less than W, or the feeding
//! before it has run out. Everything of the machine ends with it, also what a dead-man does not reach: children of
//! children, other users, a process that hangs in the kernel.
//!
//! **Opening a watchdog starts it.** So nothing is opened before the first work is protected (I19); until then only the
//! node of the device is looked at. When the last work has stopped, the device is stopped and closed.
//!
//! **nowayout.** A kernel may be told that no watchdog is ever stopped again. Then, once anything was protected, this
//! process has to feed it for as long as it lives, and its mere crash resets the machine although nothing is protected.
//! That is refused unless [`Watchdog::accept_nowayout`] says so.
//!
//! What it does not reach: a hypervisor that freezes the machine together with an emulated watchdog; a machine that is
//! suspended, where the timer of most devices stands still: forbid suspending; a device that is broken or not wired to
//! the reset line: pull the process's plug once (`kill -STOP`) and watch.

mod device;
mod owner;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use quorate_membership::Stop;
use quorate_membership::lease::Reading;

use self::owner::{Owner, Terms};
use super::StopMechanism;

/// Resets the machine at the end of the lease, by a watchdog device ([`Stop::Watchdog`]).
///
/// Several of one process share a device: it is fed only while each of them that is armed is within its own lease, so
/// that whoever runs out first ends the machine for all. They have to agree on the timeout. Another process, a service
/// manager too, cannot have the device at the same time.
///
/// **Dropping it while it is armed does not disarm it**: nobody said that the work has stopped, so the machine is reset.
#[derive(Debug)]
pub struct Watchdog {
    path: PathBuf,
    timeout: Duration,
    reset: Duration,
    accept_nowayout: bool,
    user: u64,
    owner: Option<Arc<Owner>>,
}

impl Watchdog {
    /// `/dev/watchdog`, with that timeout: whole seconds, at least one, less than the lease (E5). The device must take
    /// exactly this; one that rounds it is refused when it is first armed.
    pub fn new(timeout: Duration) -> Self {
        static USERS: AtomicU64 = AtomicU64::new(0);
        let user = USERS.fetch_add(1, Ordering::Relaxed);
        let path = PathBuf::from("/dev/watchdog");
        Self { path, timeout, reset: Duration::ZERO, accept_nowayout: false, user, owner: None }
    }

    /// Another device.
    #[must_use]
    pub fn open_at(self, path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), ..self }
    }

    /// For how long the machine may still act after the device has bitten: 0 to 1 h. Zero, the default, is right for a
    /// device on the reset line; a software watchdog or a management controller takes longer.
    #[must_use]
    pub fn reset_within(self, reset: Duration) -> Self {
        Self { reset, ..self }
    }

    /// Takes a device that cannot be stopped any more once it was started. From the first protected work on, this
    /// process feeds it for as long as it lives, whether or not anything is protected, and **its crash resets the
    /// machine even when nothing is**.
    #[must_use]
    pub fn accept_nowayout(self) -> Self {
        Self { accept_nowayout: true, ..self }
    }

    fn terms(&self) -> io::Result<Terms> {
        let seconds = i32::try_from(self.timeout.as_secs()).unwrap_or(0);
        if seconds < 1 || self.timeout.subsec_nanos() != 0 {
            let why = format!("the timeout of a watchdog is whole seconds, at least one, not {:?}", self.timeout);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        Ok(Terms { seconds, accept_nowayout: self.accept_nowayout })
    }
}

impl StopMechanism for Watchdog {
    fn stop(&self) -> Stop {
        Stop::Watchdog { timeout: self.timeout, reset: self.reset }
    }

    /// Looks at the device's node, and at what the kernel tells of it in /sys, without opening it: that would start it.
    fn check(&mut self) -> io::Result<()> {
        self.terms()?;
        device::look(&self.path, self.accept_nowayout)
    }

    /// An eighth of the timeout: whoever naps for up to 100 ms in between still feeds within a quarter (E5).
    fn pace(&self) -> Duration {
        self.timeout / 8
    }

    fn sustain(&mut self, looked: Reading, left: Duration) -> io::Result<()> {
        let terms = self.terms()?;
        let owner = self.owner.get_or_insert_with(|| Owner::of(&self.path)).clone();
        owner.sustain(self.user, terms, looked.boottime().saturating_add(left))
    }

    fn disarm(&mut self) -> io::Result<()> {
        self.owner.as_ref().map_or(Ok(()), |owner| owner.disarm(self.user))
    }

    /// Nothing: it is not fed any more, and bites.
    fn fire(&mut self) {}
}

//! The watchdog (class H): a device that resets the machine when it is not fed, and that is fed only while the lease lasts.
//! The ioctls are in `watchdog/device.rs` and `kernel.rs`.
//!
//! ```text
//!   feed     feed     feed     feed   E                                     E + 2W
//!   ├────────┼────────┼────────┼──────┼─────────────────────────────────────┤
//!                              ├────────────── W ─────────────▶ reset       the latest reset
//!                                  look ├─ pause ─▶ feed ├────────── W ──────▶
//! ```
//!
//! *The bound is 2W, not W*: the process may be paused between its check of the lease and the feeding. The pause is
//! shorter than W, or the previous feeding has run out. A reset ends everything on the machine, also what a dead-man does
//! not reach: children of children, other users, a process that hangs in the kernel.
//!
//! **Opening a watchdog starts it.** The device is therefore not opened before the first work is protected (I19); until
//! then only its node in the file system is checked. After the last work has stopped, the device is stopped and closed.
//!
//! **nowayout.** A kernel may be configured never to stop a watchdog again. Once anything was protected, this process then
//! has to feed it for as long as it lives, and a mere crash resets the machine although nothing is protected. Such a
//! device is refused without [`Watchdog::accept_nowayout`].
//!
//! It does not reach: a hypervisor that freezes the machine together with an emulated watchdog; a machine that is
//! suspended, where the timer of most devices stands still (forbid suspending); a device that is broken or not wired to the
//! reset line (stop the process once with `kill -STOP`, and watch).

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
/// Several watchdogs of one process share a device. It is fed only while each of them that is armed is within its own
/// lease, so the first lease that ends resets the machine for all. They have to agree on the timeout. No other process, a
/// service manager included, can have the device at the same time.
///
/// **Dropping it while it is armed does not disarm it.** The work may still run, so the machine is reset.
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
    /// `/dev/watchdog` with the given timeout: whole seconds, at least one, less than the lease (E5). A device that rounds
    /// the timeout is refused when it is first armed.
    pub fn new(timeout: Duration) -> Self {
        static USERS: AtomicU64 = AtomicU64::new(0);
        let user = USERS.fetch_add(1, Ordering::Relaxed);
        let path = PathBuf::from("/dev/watchdog");
        Self { path, timeout, reset: Duration::ZERO, accept_nowayout: false, user, owner: None }
    }

    /// Uses the device at `path` instead.
    #[must_use]
    pub fn open_at(self, path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), ..self }
    }

    /// How long the machine may still act after the timeout of the device: 0 to 1 h. Zero, the default, is right for a
    /// device on the reset line; a software watchdog or a management controller takes longer.
    #[must_use]
    pub fn reset_within(self, reset: Duration) -> Self {
        Self { reset, ..self }
    }

    /// Accepts a device that cannot be stopped once it was started. From the first protected work on, this process feeds it
    /// for as long as it lives, and **a crash of the process resets the machine even when nothing is protected**.
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

    /// Checks the device's node and what the kernel shows of it in /sys. Does not open it: that would start it.
    fn check(&mut self) -> io::Result<()> {
        self.terms()?;
        device::look(&self.path, self.accept_nowayout)
    }

    /// An eighth of the timeout: a keeper that naps for up to 100 ms in between still feeds within a quarter (E5).
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

    /// Nothing: the device is not fed any more, and resets the machine.
    fn fire(&mut self) {}
}

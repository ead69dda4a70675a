//! The one owner of a watchdog device in this process, and the users that share it.
//!
//! ```text
//!   node 1 ── sustain: until E₁ ──▶ Owner ── all of E₁, E₂, … ahead? ──▶ feed          no user: stop and close
//!   node 2 ── sustain: until E₂ ──▶                       └─ one passed ─▶ nothing     (nowayout: feed for ever)
//! ```

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};

use super::device::{Device, NOWAYOUT};
use crate::host::clock;

/// What a user needs of the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Terms {
    /// Its timeout, in seconds.
    pub(super) seconds: i32,
    /// Whether it may be one that cannot be stopped.
    pub(super) accept_nowayout: bool,
}

#[derive(Debug)]
pub(super) struct Owner {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    open: Option<Device>,
    /// The users that are armed, and what CLOCK_BOOTTIME shows at the end of each one's lease.
    users: BTreeMap<u64, Duration>,
    /// Whether the thread runs that feeds a device that cannot be stopped and has no user.
    fed_for_ever: bool,
}

/// How often that thread feeds: a quarter of the shortest timeout that there is.
const FOR_EVER: Duration = Duration::from_millis(250);

impl Owner {
    /// The owner of the device at `path`. It stays for as long as the process lives.
    pub(super) fn of(path: &Path) -> Arc<Self> {
        static OWNERS: Mutex<BTreeMap<PathBuf, Arc<Owner>>> = Mutex::new(BTreeMap::new());
        // One device may have several names; which is meant is tried again when it is opened.
        let device = path.canonicalize().unwrap_or_else(|_| path.into());
        let mut owners = OWNERS.lock();
        let new = || Arc::new(Self { path: path.into(), state: Mutex::default() });
        owners.entry(device).or_insert_with(new).clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// `user` runs something until CLOCK_BOOTTIME shows `until`. Starts the device for the first user, and feeds it if
    /// every user is within its lease.
    ///
    /// # Errors
    /// When it was not fed. A user that was not armed before is not armed.
    pub(super) fn sustain(self: &Arc<Self>, user: u64, terms: Terms, until: Duration) -> io::Result<()> {
        let mut state = self.lock();
        let result = self.start(&mut state, terms).and_then(|()| {
            let before = state.users.insert(user, until);
            let fed = state.feed(user);
            if fed.is_err() && before.is_none() {
                state.users.remove(&user);
            }
            fed
        });
        match result {
            Err(error) if state.users.is_empty() => Err(self.retreat(&mut state, error)),
            result => result,
        }
    }

    fn start(&self, state: &mut State, terms: Terms) -> io::Result<()> {
        let device = match &mut state.open {
            Some(device) => device,
            none => none.insert(Device::open(&self.path)?),
        };
        match device.terms() {
            // The thread that feeds it for ever keeps an old timeout only until a user needs another.
            Some(seconds) if !state.users.is_empty() && seconds != terms.seconds => Err(io::Error::other(format!(
                "{} runs with a timeout of {seconds} s for another user of this process and cannot have {} s as well",
                self.path.display(),
                terms.seconds
            ))),
            Some(seconds) if seconds == terms.seconds && device.may_be_used(terms.accept_nowayout) => Ok(()),
            Some(_) | None => device.prepare(terms.seconds, terms.accept_nowayout),
        }
    }

    /// `user` runs nothing any more. After the last user the device is stopped; one that cannot be stopped is fed from then
    /// on.
    ///
    /// # Errors
    /// When it could not be stopped, and will reset the machine.
    pub(super) fn disarm(self: &Arc<Self>, user: u64) -> io::Result<()> {
        let mut state = self.lock();
        state.users.remove(&user);
        if state.users.is_empty() { self.release(&mut state) } else { Ok(()) }
    }

    /// Stops a device that was opened and has no user, so that it does not reset the machine.
    fn retreat(self: &Arc<Self>, state: &mut State, error: io::Error) -> io::Error {
        match self.release(state) {
            Ok(()) => error,
            Err(worse) => io::Error::other(format!("{error}; and it could not be stopped again: {worse}")),
        }
    }

    fn release(self: &Arc<Self>, state: &mut State) -> io::Result<()> {
        let Some(device) = state.open.take() else { return Ok(()) };
        match device.stop() {
            Ok(()) => Ok(()),
            Err((device, error)) => {
                let endless = device.cannot_be_stopped();
                state.open = Some(device);
                if endless { self.feed_for_ever(state) } else { Err(error) }
            }
        }
    }

    /// Starts the thread that feeds a device without users. It ends when the device has one.
    fn feed_for_ever(self: &Arc<Self>, state: &mut State) -> io::Result<()> {
        if state.fed_for_ever {
            return Ok(());
        }
        tracing::warn!(device = %self.path.display(), "{NOWAYOUT}; it is fed until this process ends");
        let owner = self.clone();
        let feed = move || {
            while owner.feed_unused() {
                std::thread::sleep(FOR_EVER);
            }
        };
        std::thread::Builder::new().name("quorate-watchdog".into()).spawn(feed)?;
        state.fed_for_ever = true;
        Ok(())
    }

    /// Feeds the device if it has no user. Whether the thread is still needed.
    fn feed_unused(&self) -> bool {
        let mut state = self.lock();
        let Some(device) = state.open.as_ref().filter(|_| state.users.is_empty()) else {
            state.fed_for_ever = false;
            return false;
        };
        if let Err(error) = device.keep_alive() {
            tracing::error!(%error, device = %self.path.display(), "a watchdog that cannot be stopped could not be fed");
        }
        true
    }
}

impl State {
    /// Checks every lease, and feeds as the very next thing. That `user`'s own lease has ended is no error: nothing is wrong
    /// with the device.
    fn feed(&self, user: u64) -> io::Result<()> {
        let Some(device) = &self.open else { return Err(io::Error::other("the watchdog is not open")) };
        let now = clock::now().since_origin();
        match self.users.iter().find(|(_, until)| **until <= now) {
            None => device.keep_alive(),
            Some((late, _)) if *late == user => Ok(()),
            Some(_) => Err(io::Error::other(
                "the lease of another user of this watchdog has ended: it is not fed, and resets the machine within its \
                 timeout",
            )),
        }
    }
}

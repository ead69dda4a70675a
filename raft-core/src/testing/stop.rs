//! A stop mechanism for tests: promises what the test wants, and counts its calls.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use quorate_membership::Stop;
use quorate_membership::lease::Reading;

use crate::lease::stop::StopMechanism;

/// The calls that a [`TestStop`] has had.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StopCalls {
    /// Whether it is armed now.
    pub armed: bool,
    /// How often it was sustained.
    pub sustained: u64,
    /// How often it was disarmed.
    pub disarmed: u64,
    /// How often the lease ended with something left.
    pub fired: u64,
}

#[derive(Debug, Default)]
struct Device {
    seen: StopCalls,
    broken: bool,
}

/// The mechanism. Clones share their counts. It ends nothing: a test in one process has nothing to kill.
#[derive(Debug, Clone)]
pub struct TestStop {
    promise: Stop,
    device: Arc<Mutex<Device>>,
}

impl TestStop {
    /// One that promises `promise`.
    pub fn new(promise: Stop) -> Self {
        Self { promise, device: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Device> {
        self.device.lock()
    }

    /// The calls so far.
    pub fn seen(&self) -> StopCalls {
        self.lock().seen
    }

    /// From now on it cannot be armed.
    pub fn break_it(&self) {
        self.lock().broken = true;
    }
}

impl StopMechanism for TestStop {
    fn stop(&self) -> Stop {
        self.promise
    }

    fn check(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn pace(&self) -> Duration {
        Duration::from_millis(50)
    }

    fn sustain(&mut self, _: Reading, _: Duration) -> io::Result<()> {
        let mut device = self.lock();
        if device.broken {
            return Err(io::Error::other("the test device is broken"));
        }
        device.seen.armed = true;
        device.seen.sustained += 1;
        Ok(())
    }

    fn disarm(&mut self) -> io::Result<()> {
        let mut device = self.lock();
        device.seen.armed = false;
        device.seen.disarmed += 1;
        Ok(())
    }

    fn fire(&mut self) {
        self.lock().seen.fired += 1;
    }

    /// It stops nothing real.
    fn counts_elsewhere(&self) -> bool {
        true
    }
}

//! A watchdog device that is none: what a process does to it is written down with the instant, by `shim.c`, which is
//! preloaded; when it would have bitten follows from that, as from a device that no scheduler delays.

#![expect(clippy::expect_used, clippy::panic, reason = "what a test starts fails as a test does")]

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::victim::Victim;

/// What the victim opens.
pub(crate) const PATH: &str = "QUORATE_TEST_WATCHDOG";

/// The device, its log and the shim.
pub(crate) struct StandIn(tempfile::TempDir);

/// An act and what CLOCK_BOOTTIME showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Act(pub(crate) String, pub(crate) Duration);

impl StandIn {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        // Some character device: nobody opens this one.
        std::os::unix::fs::symlink("/dev/null", folder.path().join("watchdog-standin")).expect("a link");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/standin/shim.c");
        let mut cc = Command::new("cc");
        cc.args(["-shared", "-fPIC", "-O1", "-o"]).arg(folder.path().join("shim.so")).arg(source);
        assert!(cc.status().expect("a C compiler").success(), "the shim does not compile");
        Self(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A victim that has this device.
    pub(crate) fn victim(&self, part: &str, settings: &[(&str, &str)]) -> Victim {
        let mut command = Command::new(std::env::current_exe().expect("a test has a file"));
        command.env("LD_PRELOAD", self.path("shim.so")).env("STANDIN_LOG", self.path("log"));
        command.env(PATH, self.path("watchdog-standin")).envs(settings.iter().copied());
        Victim::launch(command, part)
    }

    /// What was done to it so far.
    pub(crate) fn acts(&self) -> Vec<Act> {
        let text = std::fs::read_to_string(self.path("log")).unwrap_or_default();
        let act = |line: &str| {
            let (act, at) = line.split_once(' ').expect("an act and an instant");
            Act(act.into(), Duration::from_nanos(at.parse().expect("nanoseconds")))
        };
        text.lines().map(act).collect()
    }

    /// The same without the instants.
    pub(crate) fn words(&self) -> Vec<String> {
        self.acts().into_iter().map(|act| act.0).collect()
    }

    /// How often it was fed between two instants.
    pub(crate) fn fed(&self, from: Duration, to: Duration) -> usize {
        self.acts().iter().filter(|act| act.0 == "keepalive" && act.1 > from && act.1 < to).count()
    }

    /// Whether it was left running.
    pub(crate) fn runs(&self) -> bool {
        self.replay(Duration::MAX).is_some()
    }

    /// When it would have bitten with that timeout, if nothing more is ever done to it.
    pub(crate) fn bites(&self, timeout: Duration) -> Option<Duration> {
        self.replay(timeout)
    }

    fn replay(&self, timeout: Duration) -> Option<Duration> {
        let (mut fed, mut magic): (Option<Duration>, bool) = (None, false);
        for Act(act, at) in self.acts() {
            if let Some(fed) = fed.filter(|fed| at > fed.saturating_add(timeout)) {
                return Some(fed.saturating_add(timeout));
            }
            match act.as_str() {
                "open" | "on" | "settimeout" | "keepalive" => (fed, magic) = (Some(at), false),
                "off" => fed = None,
                "magic" => magic = true,
                "close" if magic => fed = None,
                // Closed without a word it runs on.
                "close" | "gettimeout" | "paused" => {}
                other => panic!("not an act: {other}"),
            }
        }
        fed.map(|fed| fed.saturating_add(timeout))
    }
}

//! The settings of a node, with the bounds and the default of each. Checked once, at start.

use std::time::Duration;

use quorate_membership::detector::Thresholds;
use quorate_membership::{FenceHint, Timing};

use crate::error::StartError;

/// The settings of a node. Heartbeat and election bounds must be the same on every node of a cluster, or the nodes refuse
/// each other's calls. The others should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Heartbeat, elections and leases, whose inequalities hold by type. Default: the standard profile (heartbeat 80 ms,
    /// elections 400 to 800 ms, leases of 3 s). The stop mechanism in it is replaced by the one that the node is given.
    pub timing: Timing,
    /// The silence after which the leader suspects a node. At least 3 heartbeats, at most 10 min. Default: `None`, which
    /// follows the timing: 7.5 heartbeats, 600 ms with the standard profile.
    pub suspect_after: Option<Duration>,
    /// The silence after which the leader orders a node fenced. More than `suspect_after` and `election_max`, up to 1 h.
    /// Default: `None`, which follows the timing: 2.5 times `suspect_after`, and at least 1.875 times `election_max`; 1.5 s
    /// with the standard profile. Shorter fails over sooner, and fences for shorter hiccups.
    pub fence_after: Option<Duration>,
    /// For how long the machine of a node has to refuse connections, as a quorum of the voters sees it, before the leader orders
    /// the node fenced: a killed process fails over without waiting for its silence. 10 ms to `fence_after`; with the value of
    /// `fence_after` the refusal is ignored. Default: `None`, which is half of a heartbeat if the fencer tells lives apart, and
    /// `fence_after` otherwise. A device that powers a machine off would hit a process that its service manager starts again
    /// at once: set it for such a device only if that is wanted.
    pub fence_refused_after: Option<Duration>,
    /// How long one call of the fencer may take. 100 ms to 1 h, default 30 s. After that the attempt has failed.
    pub fence_deadline: Duration,
    /// The wait after a failed fence attempt. Doubles with each attempt, up to 16-fold. 10 ms to 1 h, default 500 ms.
    pub fence_backoff: Duration,
    /// How long a command may look for a leader and wait for its result. 100 ms to 1 h, default 10 s.
    pub propose_timeout: Duration,
    /// The number of entries after which the log is replaced by a snapshot, if their commands have half of the last snapshot's
    /// bytes together. 16 to 1 000 000, default 32 768. Each node has its own entries after which it takes one, so that two seldom
    /// write theirs at the same time.
    pub snapshot_every: u64,
    /// The number of entries before a snapshot that are kept for followers that are a little behind. 0 to `snapshot_every`,
    /// default 4 096.
    pub keep_entries: u64,
    /// The bytes that the log may take, in memory and in its file. An eighth of it since the last snapshot, or as much as that
    /// snapshot has, asks for a new one (up to a quarter less, another part for each node); a sixteenth is kept before a snapshot,
    /// and more while a node that is catching up needs it. Commands wait while those that no majority has acknowledged take half
    /// of it. The history of events takes at most an eighth more. 8 MiB to 4 GiB, default 64 MiB.
    pub log_bytes: u64,
    /// The number of events that are kept for readers that resume. 16 to 1 000 000, default 8 192.
    pub event_history: usize,
    /// Declares in the log that this life's work dies with its process. The next life on the same boot then takes its
    /// place and its locks at once, without fencing, if it sees that the process is gone. It sees that only from the same
    /// PID namespace, so not from another container. Default: false.
    ///
    /// Set it only where all of the work runs inside this process: not where children run it (they may outlive the process
    /// by a moment), not where it leaves writes in flight elsewhere, and never in machines that are cloned, or resumed from
    /// a snapshot while the original runs, because they share a boot id.
    pub work_dies_with_process: bool,
    /// By what a fencer tells this life from others of its node, such as its process group or the invocation id of its
    /// unit. Committed with each join, and given to fencers in [`FenceRequest::hint`](crate::FenceRequest::hint). It proves
    /// nothing. Default: none.
    pub fence_hint: Option<FenceHint>,
    /// Declares that the fencer of this node ends one life and leaves later lives of the same node alone, as one does that
    /// kills a process group, and not one that powers a machine off. While this node leads, the former life of a node that
    /// came back is then fenced at once. Otherwise its end is first expected without a device, because a device might hit
    /// the life that came back. Default: false.
    pub fencer_tells_lives_apart: bool,
    /// While this node leads, leaves a silent node alone that holds no lock, waits for none, and owns no bound record: it is not
    /// fenced, and elapsed time does not end its life. It goes on as the same life when it comes back, for example after a pause
    /// that was too long for its lease. Once it has something that others wait for, it is treated as any other. Set it on every
    /// node, and only where all work runs under locks: nobody is told of the end of an idle node that never comes back. It
    /// counts as standing when the rules ask whether another may be fenced (I18), and
    /// [`ClusterState::active`](quorate_membership::ClusterState::active) goes on naming it. Default: false.
    pub spares_idle: bool,
}

impl Default for Config {
    fn default() -> Self {
        let ms = Duration::from_millis;
        Self {
            timing: Timing::default(),
            suspect_after: None,
            fence_after: None,
            fence_refused_after: None,
            fence_deadline: Duration::from_secs(30),
            fence_backoff: ms(500),
            propose_timeout: Duration::from_secs(10),
            snapshot_every: 32_768,
            keep_entries: 4096,
            log_bytes: 64 << 20,
            event_history: 8192,
            work_dies_with_process: false,
            fence_hint: None,
            fencer_tells_lives_apart: false,
            spares_idle: false,
        }
    }
}

impl Config {
    /// Checks every setting against its bounds and against the others.
    ///
    /// # Errors
    /// [`StartError::Config`] names the first setting that cannot work, its value and its bounds.
    pub fn check(&self) -> Result<(), StartError> {
        let (ms, s) = (Duration::from_millis, Duration::from_secs);
        let within = |what, value: Duration, low: Duration, high: Duration| match value {
            v if v < low || v > high => Err(StartError::Config {
                what,
                value: format!("{v:?}"),
                why: format!("it must lie between {low:?} and {high:?}"),
            }),
            _ => Ok(()),
        };
        within("suspect_after", self.suspect_after(), self.heartbeat() * 3, s(600))?;
        within("fence_after", self.fence_after(), self.suspect_after().max(self.election_max()) + ms(1), s(3600))?;
        within("fence_refused_after", self.fence_refused_after(), ms(10), self.fence_after())?;
        within("fence_deadline", self.fence_deadline, ms(100), s(3600))?;
        within("fence_backoff", self.fence_backoff, ms(10), s(3600))?;
        within("propose_timeout", self.propose_timeout, ms(100), s(3600))?;
        let counted = |what, value: u64, low: u64, high: u64| match value {
            v if v < low || v > high => Err(StartError::Config {
                what,
                value: v.to_string(),
                why: format!("it must lie between {low} and {high}"),
            }),
            _ => Ok(()),
        };
        counted("snapshot_every", self.snapshot_every, 16, 1_000_000)?;
        counted("keep_entries", self.keep_entries, 0, self.snapshot_every)?;
        counted("log_bytes", self.log_bytes, 8 << 20, 4 << 30)?;
        counted("event_history", self.event_history as u64, 16, 1_000_000)
    }

    /// The interval of the leader's heartbeats. Shorter detects failures sooner and costs more; shorter than the slow fsyncs
    /// of a follower makes healthy nodes look silent.
    pub fn heartbeat(&self) -> Duration {
        self.timing.plan().heartbeat
    }

    /// The shortest silence after which a follower stands for election.
    pub fn election_min(&self) -> Duration {
        self.timing.plan().election_min
    }

    /// The longest silence after which a follower stands for election. It is also Raft's leader lease, and therefore the
    /// same on every node.
    pub fn election_max(&self) -> Duration {
        self.timing.plan().election_max
    }

    /// Half of `election_max`: for how long a follower of openraft holds a leader to lead that it does not hear, before its random
    /// wait begins. `open.rs` says why it is half.
    pub(crate) fn raft_lease(&self) -> Duration {
        self.election_max() / 2
    }

    /// How long a restarted voter gives no vote: as long as a leader may still rely on a promise from before the restart, by
    /// the slower of two clocks (P22).
    pub fn embargo(&self) -> Duration {
        if quorate_membership::mutant!("lease_reads_without_embargo") {
            return Duration::ZERO;
        }
        let drift = self.timing.plan().drift;
        drift.on_a_fast_clock(drift.on_a_slow_clock(self.election_max()))
    }

    /// The silence after which the leader suspects a node: as set, or else as it follows from the timing.
    pub fn suspect_after(&self) -> Duration {
        self.suspect_after.unwrap_or(self.heartbeat() * 15 / 2)
    }

    /// The silence after which the leader orders a node fenced: as set, or else as it follows from the timing.
    pub fn fence_after(&self) -> Duration {
        let follows = || (self.suspect_after() * 5 / 2).max(self.election_max() * 15 / 8);
        self.fence_after.unwrap_or_else(follows)
    }

    /// For how long the machine of a node has to refuse connections before the leader orders it fenced: as set, or else as it
    /// follows from the timing and from the fencer.
    pub fn fence_refused_after(&self) -> Duration {
        let apart = self.fencer_tells_lives_apart || quorate_membership::mutant!("any_device_at_a_refusal");
        let follows = || match apart {
            true => (self.heartbeat() / 2).max(Duration::from_millis(10)),
            false => self.fence_after(),
        };
        self.fence_refused_after.unwrap_or_else(follows)
    }

    /// Whether refusals are ignored, so that silence alone counts.
    pub(crate) fn ignores_refusals(&self) -> bool {
        self.fence_refused_after() >= self.fence_after()
    }

    pub(crate) fn thresholds(&self) -> Thresholds {
        let (suspect_after, fence_after) = (self.suspect_after(), self.fence_after());
        Thresholds { suspect_after, fence_after, own_pause: fence_after / 2 }
    }
}

#[cfg(test)]
mod tests {
    use quorate_membership::Profile;

    use super::*;

    #[test]
    fn a_setting_that_cannot_work_is_named_with_its_bounds() {
        assert!(Config::default().check().is_ok());
        let bad = Config { suspect_after: Some(Duration::from_millis(100)), ..Config::default() };
        let error = bad.check().unwrap_err().to_string();
        assert_eq!(error, "suspect_after is 100ms: it must lie between 240ms and 600s");
    }

    #[test]
    fn suspicion_follows_the_timing_unless_it_is_set() {
        let ms = Duration::from_millis;
        let of = |profile: Profile| {
            let config = Config { timing: profile.timing(), ..Config::default() };
            assert!(config.check().is_ok(), "{profile} alone");
            (config.suspect_after(), config.fence_after())
        };
        assert_eq!(of(Profile::Fast), (ms(187) + ms(1) / 2, ms(468) + ms(3) / 4));
        assert_eq!(of(Profile::Standard), (ms(600), ms(1500)));
        assert_eq!(of(Profile::Watchdog), (ms(600), ms(1500)));
        assert_eq!(of(Profile::Patient), (ms(2250), ms(5625)));
        let set = Config { fence_after: Some(ms(5000)), ..Config::default() };
        assert_eq!((set.suspect_after(), set.fence_after()), (ms(600), ms(5000)));
    }

    #[test]
    fn a_refusal_counts_at_once_only_if_the_fencer_tells_lives_apart_or_it_is_asked_for() {
        let ms = Duration::from_millis;
        let config = Config::default();
        assert!(config.ignores_refusals(), "a device might hit the next life");
        let apart = Config { fencer_tells_lives_apart: true, ..config.clone() };
        assert_eq!((apart.fence_refused_after(), apart.ignores_refusals()), (ms(40), false));
        let asked = Config { fence_refused_after: Some(ms(500)), ..config.clone() };
        assert_eq!((asked.fence_refused_after(), asked.check().is_ok()), (ms(500), true));
        let late = Config { fence_refused_after: Some(ms(1501)), ..config };
        let error = late.check().unwrap_err().to_string();
        assert_eq!(error, "fence_refused_after is 1.501s: it must lie between 10ms and 1.5s");
    }

    #[test]
    fn the_embargo_outlasts_the_lease() {
        let config = Config::default();
        assert!(config.embargo() > config.election_max() * 102 / 100);
    }
}

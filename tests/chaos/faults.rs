//! What is done to the hosts, and when: drawn from a seed before anything runs.
//!
//! ```text
//!   0 s        6 s                14 s      20 s             30 s
//!   ├─ calm ───┼── a storm ───────┼─ calm ──┼── a storm ─────┼─ calm ── …
//!              │ pause n2 3.1 s   │         │ cut n1 -> n3, 2.0 s
//!              └ kill n1          │         │   load 2, 6.0 s
//! ```
//!
//! One to three faults to a storm, which overlap. Real processes are not deterministic: the same seed gives the same
//! faults at the same times, and how they are met is up to the machine.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use quorate::testing::sim::Rng;

/// Whom a fault is aimed at. Who leads is found out when it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Aim {
    Host(u64),
    Leader,
}

/// What every kind of fault is called.
pub(crate) const KNOWN: [&str; 15] = [
    "one way cut",
    "both ways cut",
    "host cut off",
    "host deaf or mute",
    "partition",
    "cable pulled",
    "cable flapping",
    "switch off",
    "kill -9",
    "kill -9, several",
    "SIGSTOP",
    "disk full",
    "processors busy",
    "leave and return",
    "leadership handed over",
];

/// One thing that goes wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing that one host sends reaches another.
    OneWay { from: Aim, to: u64 },
    /// Nothing in either direction.
    BothWays { between: Aim, and: u64 },
    /// A host is cut off from all others, and does not see why.
    CutOff { host: Aim },
    /// It only hears, or is only heard.
    Half { host: Aim, hears: bool },
    /// Two groups that do not reach each other.
    Partition { side: BTreeSet<u64> },
    /// A cable is pulled.
    Link { host: Aim },
    /// A cable comes and goes.
    Flap { host: Aim },
    /// The switch is off.
    Switch,
    /// kill -9, and a start after a while.
    Kill { host: Aim },
    /// The same to several at once.
    KillMany { hosts: BTreeSet<u64> },
    /// SIGSTOP, and SIGCONT after a while.
    Pause { host: Aim },
    /// The disk is full.
    Fill { host: u64 },
    /// Others want the processors.
    Load { spinners: u64 },
    /// A clean leave, and a return.
    Leave { host: Aim },
    /// Leadership is handed over.
    HandOver { to: u64 },
}

/// A fault with its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Planned {
    /// From the beginning of the run.
    pub(crate) at: Duration,
    pub(crate) lasts: Duration,
    pub(crate) fault: Fault,
}

/// How long a cable that comes and goes is in one state.
pub(crate) const FLAP: Duration = Duration::from_millis(350);

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Everything that a seed does to so many hosts in a run of that length, or `only` one kind of it. The last storm is over
/// before its end.
pub(crate) fn schedule(seed: u64, hosts: u64, length: Duration, only: Option<&str>) -> Vec<Planned> {
    let mut rng = Rng::new(seed ^ hosts << 32);
    let (mut planned, mut at) = (vec![], ms(rng.between(2000, 4000)));
    // Each kind once before any comes twice, so that a short run meets many of them.
    let mut kinds: Vec<u64> = vec![];
    loop {
        let mut over = at;
        for _ in 0..rng.between(1, 3) {
            let (fault, lasts) = loop {
                if kinds.is_empty() {
                    kinds = (0..KINDS).collect();
                }
                let kind = kinds.swap_remove(rng.below(kinds.len() as u64) as usize);
                let drawn = draw(kind, hosts, &mut rng);
                if only.is_none_or(|only| drawn.0.kind() == only) {
                    break drawn;
                }
            };
            let begins = at + ms(rng.between(0, 2500));
            over = over.max(begins + lasts);
            planned.push(Planned { at: begins, lasts, fault });
        }
        let calm = if rng.below(4) == 0 { rng.between(9000, 12_000) } else { rng.between(2000, 6000) };
        at = over + ms(calm);
        if at + ms(9000) > length {
            planned.sort_by_key(|planned| planned.at);
            return planned;
        }
    }
}

const KINDS: u64 = 17;

fn draw(kind: u64, hosts: u64, rng: &mut Rng) -> (Fault, Duration) {
    let one = rng.between(1, hosts);
    let other = 1 + (one + rng.below(hosts - 1)) % hosts;
    let aim = if rng.below(3) == 0 { Aim::Leader } else { Aim::Host(one) };
    // Short of what is noticed, short of the end of a lease, and beyond it.
    let lasts = ms(match rng.below(3) {
        0 => rng.between(200, 1400),
        1 => rng.between(1400, 3000),
        _ => rng.between(3000, 8000),
    });
    let host = aim;
    let fault = match kind {
        0 | 1 => Fault::OneWay { from: aim, to: other },
        2 => Fault::BothWays { between: aim, and: other },
        3 => Fault::CutOff { host },
        4 => Fault::Half { host, hears: rng.chance(500) },
        5 => {
            let side = if hosts > 3 { BTreeSet::from([one, other]) } else { BTreeSet::from([one]) };
            Fault::Partition { side }
        }
        6 => Fault::Link { host },
        7 => Fault::Flap { host },
        8 => Fault::Switch,
        9 | 10 => Fault::Kill { host },
        11 => {
            let all = rng.below(3) == 0;
            let hosts = if all { (1..=hosts).collect() } else { BTreeSet::from([one, other]) };
            return (Fault::KillMany { hosts }, ms(rng.between(100, 1500)));
        }
        12 | 13 => Fault::Pause { host },
        // The last host has the machine's own disk, which is not filled.
        14 => return (Fault::Fill { host: rng.between(1, hosts - 1) }, ms(rng.between(3000, 7000))),
        15 => return (Fault::Load { spinners: rng.between(2, 7) }, ms(rng.between(3000, 8000))),
        _ if rng.chance(500) => Fault::Leave { host },
        _ => Fault::HandOver { to: one },
    };
    match fault {
        Fault::Kill { .. } | Fault::Leave { .. } => (fault, ms(rng.between(100, 3000))),
        Fault::HandOver { .. } => (fault, ms(1500)),
        // Half of them beyond the end of a lease: a process that goes on then must not.
        Fault::Pause { .. } if rng.chance(500) => (fault, ms(rng.between(3500, 8000))),
        _ => (fault, lasts),
    }
}

impl Fault {
    /// What it is called in the report.
    pub(crate) const fn kind(&self) -> &'static str {
        match self {
            Self::OneWay { .. } => "one way cut",
            Self::BothWays { .. } => "both ways cut",
            Self::CutOff { .. } => "host cut off",
            Self::Half { .. } => "host deaf or mute",
            Self::Partition { .. } => "partition",
            Self::Link { .. } => "cable pulled",
            Self::Flap { .. } => "cable flapping",
            Self::Switch => "switch off",
            Self::Kill { .. } => "kill -9",
            Self::KillMany { .. } => "kill -9, several",
            Self::Pause { .. } => "SIGSTOP",
            Self::Fill { .. } => "disk full",
            Self::Load { .. } => "processors busy",
            Self::Leave { .. } => "leave and return",
            Self::HandOver { .. } => "leadership handed over",
        }
    }
}

fn several(hosts: &BTreeSet<u64>) -> String {
    hosts.iter().map(|host| format!("n{host}")).collect::<Vec<_>>().join(" ")
}

impl fmt::Display for Aim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(host) => write!(f, "n{host}"),
            Self::Leader => f.write_str("the leader"),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OneWay { from, to } => write!(f, "cut {from} -> n{to}"),
            Self::BothWays { between, and } => write!(f, "cut {between} <-> n{and}"),
            Self::CutOff { host } => write!(f, "cut off {host}"),
            Self::Half { host, hears: true } => write!(f, "{host} is not heard"),
            Self::Half { host, hears: false } => write!(f, "{host} hears nothing"),
            Self::Partition { side } => write!(f, "partition {} | others", several(side)),
            Self::Link { host } => write!(f, "pull the cable of {host}"),
            Self::Flap { host } => write!(f, "the cable of {host} comes and goes"),
            Self::Switch => f.write_str("switch off"),
            Self::Kill { host } => write!(f, "kill {host}"),
            Self::KillMany { hosts } => write!(f, "kill {}", several(hosts)),
            Self::Pause { host } => write!(f, "stop {host}"),
            Self::Fill { host } => write!(f, "fill the disk of n{host}"),
            Self::Load { spinners } => write!(f, "{spinners} spinners"),
            Self::Leave { host } => write!(f, "{host} leaves"),
            Self::HandOver { to } => write!(f, "hand over to n{to}"),
        }
    }
}

impl fmt::Display for Planned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>8.2} s  {:>5.2} s  {}", self.at.as_secs_f64(), self.lasts.as_secs_f64(), self.fault)
    }
}

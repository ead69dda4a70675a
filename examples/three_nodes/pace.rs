//! The pace of a run: the timing that its cluster uses.

use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result};
use quorate::{Config, Profile, Timing};

/// A timing, in the form in which the director passes it to the nodes. Every node derives the same timing from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pace {
    /// The standard profile.
    Standard,
    /// The fastest timing for a disk whose slow fsyncs take this long.
    Fastest(Duration),
    /// The most relaxed timing that fails over within this time.
    Within(Duration),
}

impl Pace {
    /// Measures the disk of `folder` and returns the fastest timing for it. The measured fsync time is doubled, because
    /// other load on the machine during the run is not known yet.
    pub(crate) fn fastest(folder: &Path) -> Result<Self> {
        let found = quorate::lease::probe(folder).context("measuring the disk")?;
        Ok(Self::Fastest(found.slow * 2))
    }

    /// The name of the pace in the tables.
    pub(crate) fn name(self) -> String {
        match self {
            Self::Standard => "standard".into(),
            Self::Fastest(_) => "fastest".into(),
            Self::Within(target) => format!("within {target:?}"),
        }
    }

    pub(crate) fn timing(self) -> Result<Timing> {
        match self {
            Self::Standard => Ok(Profile::Standard.timing()),
            Self::Fastest(fsync) => Timing::fastest_for(fsync).context("this disk is too slow for every timing"),
            Self::Within(target) => Ok(Timing::within(target)?),
        }
    }

    /// The configuration of a node. The times of the failure detector follow the heartbeat, so that at every pace the
    /// device is called before time alone proves an end. No snapshot is taken, so a node that returns learns the order
    /// of the queue from the log.
    pub(crate) fn config(self) -> Result<Config> {
        let timing = self.timing()?;
        Ok(Config { timing, snapshot_every: 1_000_000, event_history: 1_000_000, ..Config::default() })
    }
}

impl fmt::Display for Pace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Standard => f.write_str("standard"),
            Self::Fastest(fsync) => write!(f, "fsync={}", fsync.as_nanos()),
            Self::Within(target) => write!(f, "within={}", target.as_nanos()),
        }
    }
}

impl FromStr for Pace {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let nanos = |text: &str| Ok::<_, anyhow::Error>(Duration::from_nanos(text.parse()?));
        match text.split_once('=') {
            Some(("fsync", time)) => Ok(Self::Fastest(nanos(time)?)),
            Some(("within", time)) => Ok(Self::Within(nanos(time)?)),
            Some(_) | None if text == "standard" => Ok(Self::Standard),
            Some(_) | None => anyhow::bail!("`{text}` is not a pace"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pace_is_handed_on_as_it_is_and_works() {
        let ms = Duration::from_millis;
        for pace in [Pace::Standard, Pace::Fastest(ms(12)), Pace::Within(ms(2000))] {
            assert_eq!(pace.to_string().parse::<Pace>().unwrap(), pace);
            pace.config().unwrap().check().unwrap();
        }
        let standard = Pace::Standard.config().unwrap();
        assert_eq!((standard.suspect_after(), standard.fence_after()), (ms(600), ms(1500)));
    }
}

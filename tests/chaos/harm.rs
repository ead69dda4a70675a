//! How each fault is brought about, whom it hurts, and how it is undone.
//!
//! ```text
//!   begin  ─▶ Running { hurts n2, undo: open n2 -> n1, n2 -> n3 } ─▶ its time ─▶ undone ─▶ a little later: was it felt?
//! ```

use std::collections::BTreeSet;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::Signal;

use crate::SPIN;
use crate::director::{Director, SHOWS};
use crate::faults::{Aim, Fault, Planned};

/// What has to be undone at the end of a fault.
pub(crate) enum Undo {
    Nothing,
    Ways(Vec<(u64, u64)>),
    Cable(u64),
    Flapping { host: u64, pulled: bool, next: Instant },
    Switch,
    Continue(u64, u32),
    Free(u64),
    Spinners(Vec<Child>),
}

/// A fault that has begun.
pub(crate) struct Running {
    pub(crate) kind: &'static str,
    pub(crate) ends: Instant,
    pub(crate) undo: Option<Undo>,
    pub(crate) hurts: BTreeSet<u64>,
    pub(crate) frays: BTreeSet<(u64, u64)>,
    pub(crate) bit: bool,
    pub(crate) term: u64,
}

/// Ends spinners.
pub(crate) fn end(children: &mut [Child]) {
    for child in children {
        // One that has ended already cannot be killed; it is waited for all the same.
        let _ended = child.kill();
        let _reaped = child.wait();
    }
}

impl Director {
    fn host(&self, aim: Aim) -> u64 {
        match aim {
            Aim::Host(host) => host,
            Aim::Leader => {
                let standings = self.fleet.numbers().map(|node| self.fleet.standing(node));
                let latest = standings.filter(|standing| standing.leader > 0).max_by_key(|standing| standing.term);
                latest.map_or(1, |standing| standing.leader)
            }
        }
    }

    fn all_hear(&mut self, word: &str) -> Result<()> {
        for node in self.fleet.numbers() {
            self.fleet.tell(node, word)?;
        }
        Ok(())
    }

    /// All ways from and to some hosts, from and to the others.
    fn around(&self, side: &BTreeSet<u64>) -> Vec<(u64, u64)> {
        self.fleet.net.ways().filter(|(from, to)| side.contains(from) != side.contains(to)).collect()
    }

    /// Has a fault begin.
    pub(crate) fn begin(&mut self, planned: &Planned) -> Result<()> {
        let all = self.fleet.numbers().count() as u64;
        let next = |host: u64| host % all + 1;
        let (mut hurts, mut frays, mut bit) = (BTreeSet::new(), BTreeSet::new(), false);
        let undo = match &planned.fault {
            Fault::OneWay { from, to } => {
                let from = self.host(*from);
                let way = (from, if *to == from { next(from) } else { *to });
                frays.insert(way);
                Undo::Ways(vec![way])
            }
            Fault::BothWays { between, and } => {
                let one = self.host(*between);
                let other = if *and == one { next(one) } else { *and };
                frays.insert((one, other));
                Undo::Ways(vec![(one, other), (other, one)])
            }
            Fault::CutOff { host } => {
                hurts.insert(self.host(*host));
                Undo::Ways(self.around(&hurts))
            }
            Fault::Half { host, hears } => {
                let host = self.host(*host);
                hurts.insert(host);
                let mut ways = self.around(&hurts);
                ways.retain(|(from, _)| (*from == host) == *hears);
                Undo::Ways(ways)
            }
            Fault::Partition { side } => {
                hurts.extend(side);
                Undo::Ways(self.around(side))
            }
            Fault::Link { host } => {
                let host = self.host(*host);
                hurts.insert(host);
                self.fleet.net.pull(host, true)?;
                Undo::Cable(host)
            }
            Fault::Flap { host } => {
                let host = self.host(*host);
                hurts.insert(host);
                Undo::Flapping { host, pulled: false, next: Instant::now() }
            }
            Fault::Switch => {
                hurts.extend(self.fleet.numbers());
                self.fleet.net.darken(true)?;
                Undo::Switch
            }
            Fault::Kill { host } => {
                let host = self.host(*host);
                hurts.insert(host);
                bit = self.fleet.kill(host, planned.lasts)?;
                Undo::Nothing
            }
            Fault::KillMany { hosts } => {
                hurts.extend(hosts);
                for host in hosts {
                    bit |= self.fleet.kill(*host, planned.lasts)?;
                }
                Undo::Nothing
            }
            Fault::Pause { host } => {
                let host = self.host(*host);
                hurts.insert(host);
                match self.fleet.process(host)? {
                    Some(process) => {
                        bit = self.fleet.signal(host, process, Signal::STOP)?;
                        Undo::Continue(host, process)
                    }
                    None => Undo::Nothing,
                }
            }
            Fault::Fill { host } => {
                hurts.insert(*host);
                self.fleet.disk(*host)?.fill()?;
                // A log that has been folded once writes where it wrote before: without this it needs no room.
                self.all_hear("large")?;
                Undo::Free(*host)
            }
            Fault::Load { spinners } => Undo::Spinners(spin(*spinners, planned.lasts)?),
            Fault::Leave { host } => {
                let host = self.host(*host);
                hurts.insert(host);
                self.fleet.stays_away(host, planned.lasts)?;
                bit = self.fleet.tell(host, "leave")?;
                Undo::Nothing
            }
            Fault::HandOver { to } => {
                let leads = self.host(Aim::Leader);
                let to = if *to == leads { next(leads) } else { *to };
                // Whoever leads afterwards has been elected: that is no election that nobody wanted.
                frays.insert((leads, to));
                self.fleet.tell(leads, &format!("lead {to}"))?;
                Undo::Nothing
            }
        };
        if let Undo::Ways(ways) = &undo {
            for (from, to) in ways {
                self.fleet.net.cut(*from, *to, true)?;
            }
        }
        let (kind, ends, term) = (planned.fault.kind(), Instant::now() + planned.lasts, self.term());
        self.running.push(Running { kind, ends, undo: Some(undo), hurts, frays, bit, term });
        Ok(())
    }

    /// Ends what is over, and counts what can show nothing any more.
    pub(crate) fn finish(&mut self, upto: Instant) -> Result<()> {
        let mut running = std::mem::take(&mut self.running);
        let later = running.iter().filter(|one| one.ends > upto).filter_map(|one| one.undo.as_ref());
        let stopped: Vec<_> =
            later.filter_map(|undo| if let Undo::Continue(_, it) = undo { Some(*it) } else { None }).collect();
        for one in running.iter_mut().filter(|one| one.ends <= upto) {
            match one.undo.take() {
                Some(Undo::Ways(ways)) => {
                    for (from, to) in ways {
                        self.fleet.net.cut(from, to, false)?;
                    }
                }
                Some(Undo::Cable(host) | Undo::Flapping { host, pulled: true, .. }) => {
                    self.fleet.net.pull(host, false)?;
                }
                Some(Undo::Switch) => self.fleet.net.darken(false)?,
                // Nobody may be there any more, or another fault may have stopped it for longer.
                Some(Undo::Continue(host, process)) if !stopped.contains(&process) => {
                    self.fleet.signal(host, process, Signal::CONT)?;
                }
                Some(Undo::Free(host)) => {
                    self.fleet.disk(host)?.free()?;
                    self.all_hear("small")?;
                }
                Some(Undo::Spinners(mut children)) => end(&mut children),
                Some(Undo::Nothing | Undo::Flapping { .. } | Undo::Continue(..)) | None => {}
            }
        }
        for one in running {
            if one.undo.is_some() || one.ends + SHOWS > upto {
                self.running.push(one);
                continue;
            }
            let met = self.met.entry(one.kind).or_default();
            met.times += 1;
            met.bit += usize::from(one.bit);
        }
        Ok(())
    }
}

/// Processes that want a processor each, and end by themselves at the latest a little after their time.
pub(crate) fn spin(spinners: u64, lasts: Duration) -> Result<Vec<Child>> {
    let mut children = vec![];
    for _ in 0..spinners {
        let mut command = Command::new(std::env::current_exe()?);
        command.env(SPIN, (lasts.as_millis() + 1000).to_string()).stdin(Stdio::null()).process_group(0);
        match command.spawn() {
            Ok(child) => children.push(child),
            Err(error) => {
                end(&mut children);
                return Err(error).context("a spinner");
            }
        }
    }
    Ok(children)
}

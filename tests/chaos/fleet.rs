//! The processes of the hosts, as whoever supervises them sees them: started, heard, ended, started again.
//!
//! ```text
//!   ended by itself, or killed ─▶ noted with its time ─▶ started again with `resume`, at once or after the fault
//!   its stdout ─▶ the last line that says how it stands
//! ```

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use quorate::NodeId;
use quorate::testing::sim::Rng;
use rustix::process::{Pid, Signal, kill_process};

use crate::disk::Disk;
use crate::host::Part;
use crate::keys::Keys;
use crate::log::now;
use crate::net::Net;

/// How long after its end a process is started again: what a supervisor waits.
const AGAIN: Duration = Duration::from_millis(300);

/// How a host stands, by its own word.
#[derive(Debug, Clone, Default)]
pub(crate) struct Standing {
    /// When it said so; 0: never.
    pub(crate) at: u64,
    /// Which life it is.
    pub(crate) who: String,
    pub(crate) leader: u64,
    pub(crate) term: u64,
    words: Vec<String>,
}

impl Standing {
    fn parse(line: &str) -> Option<Self> {
        let words: Vec<_> = line.strip_prefix("= ")?.split_ascii_whitespace().map(String::from).collect();
        let number = |at: usize| words.get(at)?.trim_start_matches('n').parse().ok();
        Some(Self {
            at: now(),
            who: words.first()?.clone(),
            leader: number(2)?,
            term: number(4)?,
            words: words.get(5..)?.to_vec(),
        })
    }

    pub(crate) fn is(&self, word: &str) -> bool {
        self.words.iter().any(|said| said == word)
    }

    /// Whether nothing is wrong, as far as it can tell.
    pub(crate) fn well(&self) -> bool {
        ["quorate", "held", "active", "calm"].iter().all(|word| self.is(word))
    }
}

/// How a process came to its end, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// By this run.
    Killed,
    /// By its own dead-man.
    Deadman,
    /// By itself, as it should: its life was over, or had left, or the node had stopped.
    Own,
    /// With an error: it did not come in, for one.
    Failed,
    /// In any other way: a panic, or a signal.
    Wrong(ExitStatus),
}

struct Host {
    child: Option<Child>,
    stdin: Option<ChildStdin>,
    standing: Arc<Mutex<Standing>>,
    /// Killed by this run.
    killed: bool,
    /// When it may be started again.
    due: Instant,
    founded: bool,
}

/// All of them, and what they run on. Dropping it ends them first, then takes the network and the disks away.
pub(crate) struct Fleet {
    hosts: Vec<Host>,
    pub(crate) endings: Vec<(u64, u64, Ending)>,
    starts: u64,
    seed: u64,
    pub(crate) run: PathBuf,
    pub(crate) net: Net,
    pub(crate) disks: Vec<Disk>,
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for child in self.hosts.iter_mut().filter_map(|host| host.child.as_mut()) {
            // One that has ended already cannot be killed; it is waited for all the same.
            let _ended = child.kill();
            let _reaped = child.wait();
        }
    }
}

impl Fleet {
    pub(crate) fn new(run: PathBuf, hosts: u64, seed: u64) -> Result<Self> {
        let net = Net::new(hosts)?;
        let keys = Keys::new(&run)?;
        (1..=hosts).try_for_each(|host| keys.issue(NodeId::new(host)))?;
        let disks = (1..=hosts).map(|host| Disk::new(&run.join(format!("h{host}")), host < hosts));
        let disks = disks.collect::<Result<_>>()?;
        let due = Instant::now();
        let host = || Host { child: None, stdin: None, standing: Arc::default(), killed: false, due, founded: false };
        let hosts = (0..hosts).map(|_| host()).collect();
        Ok(Self { hosts, endings: vec![], starts: 0, seed, run, net, disks })
    }

    pub(crate) fn numbers(&self) -> impl Iterator<Item = u64> + use<> {
        1..=self.hosts.len() as u64
    }

    fn host(&mut self, node: u64) -> Result<&mut Host> {
        let at = usize::try_from(node).ok().and_then(|node| node.checked_sub(1));
        at.and_then(|at| self.hosts.get_mut(at)).with_context(|| format!("n{node}"))
    }

    pub(crate) fn disk(&self, node: u64) -> Result<&Disk> {
        let at = usize::try_from(node).ok().and_then(|node| node.checked_sub(1));
        at.and_then(|at| self.disks.get(at)).with_context(|| format!("the disk of n{node}"))
    }

    pub(crate) fn start(&mut self, node: u64) -> Result<()> {
        self.starts += 1;
        let seed = Rng::new(self.seed ^ self.starts << 40).draw();
        let (address, first) = (self.net.addresses(node).concat(), self.net.address(1));
        let way = match self.host(node)?.founded {
            true => "resume".into(),
            false if node == 1 => "found".into(),
            false => first,
        };
        let data = self.disk(node)?.data();
        // Cut short in the middle of its first way in, it may or may not belong to the cluster already.
        let (key, packed) = Part { node, way, address, seed, data, run: self.run.clone() }.pack();
        let said = File::options().append(true).create(true).open(self.run.join(format!("n{node}.err")))?;
        let mut command = self.net.command(node, &std::env::current_exe()?);
        command.env(key, packed).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(said);
        // In a group of its own, so that what ends this run from the keyboard lets it tidy up first.
        let mut child = command.process_group(0).spawn()?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take().context("it is piped")?);
        let standing = Arc::new(Mutex::new(Standing::default()));
        let heard = standing.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if let Some(said) = Standing::parse(&line) {
                    *heard.lock().unwrap_or_else(PoisonError::into_inner) = said;
                }
            }
        });
        let host = self.host(node)?;
        (host.child, host.stdin, host.standing, host.killed) = (Some(child), stdin, standing, false);
        Ok(())
    }

    /// Notes who has ended, and starts whoever is due.
    pub(crate) fn supervise(&mut self) -> Result<()> {
        self.reap()?;
        for node in self.numbers() {
            let host = self.host(node)?;
            if host.founded && host.child.is_none() && host.due <= Instant::now() {
                self.start(node)?;
            }
        }
        Ok(())
    }

    pub(crate) fn reap(&mut self) -> Result<()> {
        for node in self.numbers() {
            let host = self.host(node)?;
            let Some(child) = &mut host.child else { continue };
            let Some(status) = child.try_wait()? else { continue };
            let ending = match (status.code(), status.signal()) {
                _ if host.killed => Ending::Killed,
                (Some(0), _) => Ending::Own,
                (Some(1), _) => Ending::Failed,
                (_, Some(9)) => Ending::Deadman,
                _ => Ending::Wrong(status),
            };
            host.child = None;
            host.stdin = None;
            host.due = host.due.max(Instant::now() + AGAIN);
            *host.standing.lock().unwrap_or_else(PoisonError::into_inner) = Standing::default();
            self.endings.push((node, now(), ending));
        }
        Ok(())
    }

    /// It belongs to the cluster from now on: any later start resumes.
    pub(crate) fn belongs(&mut self, node: u64) -> Result<()> {
        self.host(node)?.founded = true;
        Ok(())
    }

    pub(crate) fn standing(&self, node: u64) -> Standing {
        let at = usize::try_from(node.saturating_sub(1)).unwrap_or(usize::MAX);
        let said = self.hosts.get(at).map(|host| host.standing.lock().unwrap_or_else(PoisonError::into_inner).clone());
        said.unwrap_or_default()
    }

    pub(crate) fn runs(&mut self, node: u64) -> Result<bool> {
        Ok(self.host(node)?.child.is_some())
    }

    /// Ends a process without a word, and starts it again no sooner than after `away`. `false` if none ran.
    pub(crate) fn kill(&mut self, node: u64, away: Duration) -> Result<bool> {
        self.reap()?;
        let host = self.host(node)?;
        host.due = host.due.max(Instant::now() + away);
        let Some(child) = &mut host.child else { return Ok(false) };
        host.killed = true;
        child.kill()?;
        child.wait()?;
        self.reap()?;
        Ok(true)
    }

    /// Whoever ends by itself is started again no sooner than after `away`.
    pub(crate) fn stays_away(&mut self, node: u64, away: Duration) -> Result<()> {
        let host = self.host(node)?;
        host.due = host.due.max(Instant::now() + away);
        Ok(())
    }

    /// The number of the process that runs, for signals that must not reach another.
    pub(crate) fn process(&mut self, node: u64) -> Result<Option<u32>> {
        Ok(self.host(node)?.child.as_ref().map(Child::id))
    }

    /// A signal to that process, if it is there still. `false` if not.
    pub(crate) fn signal(&mut self, node: u64, process: u32, signal: Signal) -> Result<bool> {
        self.reap()?;
        if self.process(node)? != Some(process) {
            return Ok(false);
        }
        kill_process(Pid::from_raw(process.try_into()?).context("a process has a number")?, signal)?;
        Ok(true)
    }

    /// Says a word to a process, if one runs.
    pub(crate) fn tell(&mut self, node: u64, word: &str) -> Result<bool> {
        let Some(stdin) = &mut self.host(node)?.stdin else { return Ok(false) };
        // One that has just ended hears nothing.
        Ok(writeln!(stdin, "{word}").is_ok())
    }

    /// Ends everybody by closing their orders, and waits for it.
    pub(crate) fn end(&mut self) -> Result<()> {
        let give_up = Instant::now() + Duration::from_secs(30);
        loop {
            self.reap()?;
            self.hosts.iter_mut().for_each(|host| host.stdin = None);
            let Some(at) = self.hosts.iter().position(|host| host.child.is_some()) else { return Ok(()) };
            ensure!(Instant::now() < give_up, "n{} does not end when its orders do", at + 1);
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

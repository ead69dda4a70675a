//! Three hosts and their processes, as the rows drive them.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use quorate::NodeId;
use rustix::process::{Pid, Signal, kill_process};

use crate::keys::Keys;
use crate::net::Net;

/// No answer takes longer.
const LIMIT: Duration = Duration::from_secs(240);

/// A process on a host. Dropping it kills it.
pub(crate) struct Process {
    child: Child,
    orders: ChildStdin,
    answers: Receiver<String>,
}

impl Process {
    /// Gives an order, without waiting for its answer.
    pub(crate) fn order(&mut self, order: &str) -> Result<()> {
        writeln!(self.orders, "{order}").with_context(|| format!("`{order}` found no process"))
    }

    /// The answer to the oldest order.
    pub(crate) fn answer(&mut self) -> Result<String> {
        self.answers.recv_timeout(LIMIT).context("no answer")
    }

    /// Gives an order, and returns its answer and the seconds that it took.
    pub(crate) fn ask(&mut self, order: &str) -> Result<(String, f64)> {
        let began = Instant::now();
        self.order(order)?;
        let answer = self.answer().with_context(|| order.to_string())?;
        Ok((answer, began.elapsed().as_secs_f64()))
    }

    /// As [`Self::ask`], for an order that has to succeed.
    pub(crate) fn must(&mut self, order: &str) -> Result<f64> {
        let (answer, seconds) = self.ask(order)?;
        ensure!(answer == "ok", "`{order}`: {answer}");
        Ok(seconds)
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(self.child.id().try_into()?).context("its process id")?;
        Ok(kill_process(pid, signal)?)
    }

    /// Waits for its end. Returns its last answers, and whether it ended well.
    pub(crate) fn end(&mut self) -> Result<(String, bool)> {
        let status = self.child.wait()?;
        Ok((self.answers.try_iter().collect::<Vec<_>>().join(" "), status.success()))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ended = self.child.kill().and_then(|()| self.child.wait());
    }
}

/// The hosts, and a folder for each.
pub(crate) struct Site {
    pub(crate) net: Net,
    folder: tempfile::TempDir,
    keys: Keys,
    pub(crate) nodes: BTreeMap<u64, Process>,
    fencer: &'static str,
    spares_idle: bool,
}

impl Site {
    /// Hosts without processes.
    pub(crate) fn empty(hosts: u64) -> Result<Self> {
        Self::empty_on(hosts, 1)
    }

    /// The same with so many networks.
    pub(crate) fn empty_on(hosts: u64, networks: u64) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        Ok(Self {
            net: Net::with_networks(hosts, networks)?,
            keys: Keys::new(folder.path())?,
            folder,
            nodes: BTreeMap::new(),
            fencer: "ends processes",
            spares_idle: false,
        })
    }

    /// Three nodes that are active.
    pub(crate) fn three() -> Result<Self> {
        Self::three_with("ends processes", false)
    }

    /// As [`Self::three`], with fencers that `fails` for example, and with or without sparing idle nodes.
    pub(crate) fn three_with(fencer: &'static str, spares_idle: bool) -> Result<Self> {
        Self { fencer, spares_idle, ..Self::empty(3)? }.with_three()
    }

    /// The same with a fencer that `fails` for example.
    pub(crate) fn fenced_by(self, fencer: &'static str) -> Self {
        Self { fencer, ..self }
    }

    /// Three nodes that are active, on the first three hosts.
    pub(crate) fn with_three(mut self) -> Result<Self> {
        self.start(1, "found")?;
        for node in 2..=3 {
            let seed = self.net.address(1);
            self.start(node, &seed)?;
        }
        for node in 1..=3 {
            self.node(node)?.must("active")?;
        }
        Ok(self)
    }

    pub(crate) fn data(&self, node: u64) -> PathBuf {
        self.folder.path().join(format!("n{node}"))
    }

    /// Starts a process. Returns its life, and how long it took to come in.
    pub(crate) fn start(&mut self, node: u64, way: &str) -> Result<String> {
        self.begin(node, way)?;
        let said = self.node(node)?.answer()?;
        let mut words = said.split(' ');
        ensure!(words.next() == Some("in"), "n{node}: {said}");
        Ok(words.collect::<Vec<_>>().join(" "))
    }

    pub(crate) fn begin(&mut self, node: u64, way: &str) -> Result<()> {
        self.keys.issue(NodeId::new(node))?;
        let part = format!("{node} {} {} {way}", self.data(node).display(), self.net.addresses(node).join(","));
        let mut command = self.net.command(node, &std::env::current_exe()?);
        let piped = command
            .env("QUORATE_FIELD_NODE", part)
            .env("KEYS", self.folder.path())
            .env("FENCER", self.fencer)
            .env("SPARES_IDLE", self.spares_idle.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = piped.spawn()?;
        let (orders, said) = (child.stdin.take().context("its input")?, child.stdout.take().context("its output")?);
        let (told, answers) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(said).lines().map_while(Result::ok) {
                if told.send(line).is_err() {
                    return;
                }
            }
        });
        self.nodes.insert(node, Process { child, orders, answers });
        Ok(())
    }

    pub(crate) fn node(&mut self, node: u64) -> Result<&mut Process> {
        self.nodes.get_mut(&node).with_context(|| format!("n{node} does not run"))
    }

    /// The leader, as the lowest node that runs knows it.
    pub(crate) fn leader(&mut self) -> Result<u64> {
        let asked = *self.nodes.keys().next().context("a node runs")?;
        self.leader_seen_by(asked)
    }

    /// The leader that a node knows. Waits until it knows one.
    pub(crate) fn leader_seen_by(&mut self, asked: u64) -> Result<u64> {
        let began = Instant::now();
        while began.elapsed() < LIMIT {
            let (said, _) = self.node(asked)?.ask("who")?;
            if let Some(number) = said.strip_prefix('n').and_then(|rest| rest.split(' ').next()?.parse().ok())
                && said.ends_with("quorate true")
            {
                return Ok(number);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        bail!("nobody leads")
    }

    /// Makes the way out of a host thin.
    pub(crate) fn thin(&self, host: u64, rate: &str) -> Result<()> {
        self.net.thin_out(host, rate)
    }

    /// What the ledger of a node has of a kind of line, such as ` notice`.
    pub(crate) fn noted(&self, node: u64, what: &str) -> usize {
        let read = |name: &str| std::fs::read_to_string(self.data(node).join(name)).unwrap_or_default();
        read("ledger").lines().filter(|line| line.contains(what)).count()
    }

    /// The memory of a node's process, in megabytes.
    pub(crate) fn memory(&self, node: u64) -> Result<u64> {
        let process = self.nodes.get(&node).with_context(|| format!("n{node} does not run"))?;
        let status = std::fs::read_to_string(format!("/proc/{}/status", process.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("its VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? / 1000)
    }

    /// What the folder of a node takes on the disk, in megabytes.
    pub(crate) fn log_size(&self, node: u64) -> Result<u64> {
        use std::os::unix::fs::MetadataExt;
        let files = std::fs::read_dir(self.data(node))?.map(|file| Ok(file?.metadata()?.blocks() * 512));
        Ok(files.sum::<Result<u64>>()? / 1_000_000)
    }

    /// The bytes that a host has sent so far.
    pub(crate) fn sent(&self, host: u64) -> Result<u64> {
        self.net.sent(host)
    }

    /// The bytes that a host was sent so far.
    pub(crate) fn received(&self, host: u64) -> Result<u64> {
        self.net.received(host)
    }

    /// How many notices, lapses and activations all ledgers have.
    pub(crate) fn counts(&self) -> [usize; 3] {
        let all = |what: &str| self.nodes.keys().map(|node| self.noted(*node, what)).sum();
        [all(" notice"), all(" lapsed"), all(" activated")]
    }

    /// The longest time between two renewals of a lease that were granted, each counted from its sending, in seconds.
    fn longest_lease_gap(&self) -> f64 {
        self.lease_gap_after(&BTreeMap::new())
    }

    /// How many lines the ledger of each node has.
    pub(crate) fn ledgers(&self) -> BTreeMap<u64, usize> {
        self.nodes.keys().map(|node| (*node, self.noted(*node, ""))).collect()
    }

    /// The same after so many lines of each ledger.
    pub(crate) fn lease_gap_after(&self, lines: &BTreeMap<u64, usize>) -> f64 {
        let of = |node: &u64| {
            let ledger = std::fs::read_to_string(self.data(*node).join("ledger")).unwrap_or_default();
            // The last one of before counts: the gap may begin with it.
            let before = lines.get(node).copied().unwrap_or_default().saturating_sub(1);
            let held = ledger.lines().skip(before).filter(|line| line.contains(" held "));
            let from = held.filter_map(|line| line.split_once("from=")?.1.split_once('/')?.0.parse::<u64>().ok());
            let sent: Vec<u64> = from.collect();
            sent.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).max().unwrap_or_default()
        };
        self.nodes.keys().map(of).max().unwrap_or_default() as f64 / 1e9
    }

    /// What all ledgers say.
    pub(crate) fn tell(&self) -> String {
        let [notices, lapses, activations] = self.counts();
        let gap = self.longest_lease_gap();
        format!("notices {notices}, lapses {lapses}, activations {activations}, longest lease gap {gap:.2} s")
    }
}

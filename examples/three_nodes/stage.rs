//! The stage: starts and ends the processes of a run, collects their reports, and leaves no process behind.
//!
//! ```text
//!   start ─▶ a node behind its relay ─▶ reports ─▶ wait, listen        an unexplained end of a process fails the run
//!   order, signal_all_of, kill_daemon_of, doom                         end ─▶ every process is gone ─▶ the folder
//! ```

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use quorate::{Identity, NodeId};
use rustix::process::Signal;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{ChildStdin, Command};
use tokio::sync::mpsc;

use crate::fencer::ProcessGroups;
use crate::keys::Keys;
use crate::ledger::{self, Line, Reader};
use crate::pace::Pace;
use crate::process;
use crate::relay::Relays;
use crate::report::{Report, Unexplained};

/// How long the director waits for an expected report.
const TIMEOUT: Duration = Duration::from_secs(60);

/// How long the end of a process may stay unexplained before the run fails.
const EXPLAINED: Duration = Duration::from_millis(300);

/// The process of a node.
pub(crate) struct Actor {
    /// The number of its process, which is also the number of its process group.
    pub(crate) group: i32,
    orders: ChildStdin,
    /// When it was started, or when its join was reported.
    pub(crate) started: Instant,
    /// Its life; `None` until it has joined.
    pub(crate) who: Option<Identity>,
    /// Whether its end is expected.
    leaving: bool,
    pub(crate) ended: bool,
}

/// The processes of a run, their folder and their network.
pub(crate) struct Stage {
    folder: tempfile::TempDir,
    keys: Keys,
    pace: Pace,
    pub(crate) actors: BTreeMap<u64, Actor>,
    /// The process group of every daemon that was ever started, so that none is left behind.
    daemons: Vec<i32>,
    /// The process groups that the daemons and workers have recorded.
    pub(crate) groups: ProcessGroups,
    pub(crate) relays: Relays,
    /// The address of the relay in front of each node.
    entries: BTreeMap<u64, SocketAddr>,
    sender: mpsc::UnboundedSender<Report>,
    reports: mpsc::UnboundedReceiver<Report>,
    /// Every report so far.
    pub(crate) heard: Vec<Report>,
    unexplained: Vec<Unexplained>,
    written: Reader,
    tried: Reader,
    begun: Instant,
}

impl Drop for Stage {
    fn drop(&mut self) {
        let workers = self.groups.known_workers(None).unwrap_or_default();
        for group in self.daemons.iter().chain(&workers) {
            let _gone = process::kill_group(*group);
        }
    }
}

impl Stage {
    pub(crate) fn new(pace: Pace, begun: Instant) -> Result<Self> {
        let (sender, reports) = mpsc::unbounded_channel();
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("ledger");
        let groups = ProcessGroups { folder: folder.path().join("groups") };
        let keys = Keys::new(folder.path())?;
        let (written, tried) = (Reader::new(file.clone()), Reader::new(ledger::attempts(&file)));
        Ok(Self {
            folder,
            keys,
            pace,
            actors: BTreeMap::new(),
            daemons: vec![],
            groups,
            relays: Relays::new(),
            entries: BTreeMap::new(),
            sender,
            reports,
            heard: vec![],
            unexplained: vec![],
            written,
            tried,
            begun,
        })
    }

    /// Every node that was ever started.
    pub(crate) fn nodes(&self) -> Vec<u64> {
        self.entries.keys().copied().collect()
    }

    pub(crate) fn pace(&self) -> Pace {
        self.pace
    }

    /// The lines of the ledger so far.
    pub(crate) fn written(&mut self) -> Result<&[Line]> {
        self.written.lines()
    }

    /// The attempts to write to the ledger so far.
    pub(crate) fn tried(&mut self) -> Result<&[Line]> {
        self.tried.lines()
    }

    /// The addresses of the running nodes, as the last argument of a node that joins.
    pub(crate) fn addresses(&self) -> String {
        let running = self.actors.iter().filter(|(_, actor)| actor.who.is_some() && !actor.ended);
        let addresses = running.filter_map(|(node, _)| self.entries.get(node).map(SocketAddr::to_string));
        addresses.collect::<Vec<_>>().join(",")
    }

    /// Prints one line of the story.
    pub(crate) fn tell(&self, text: &str) {
        clear_progress();
        println!("{:>7.2} s  {text}", self.begun.elapsed().as_secs_f64());
    }

    /// Starts a node behind its relay, in a process group of its own.
    pub(crate) async fn start(&mut self, node: u64, way: &str) -> Result<()> {
        let entry = match self.entries.get(&node) {
            Some(entry) => *entry,
            None => {
                self.keys.issue(NodeId::new(node))?;
                self.relays.open(node).await?
            }
        };
        self.entries.insert(node, entry);
        let me = i32::try_from(std::process::id())?;
        let since = process::started(me)?.context("this process runs")?;
        let mut child = Command::new(std::env::current_exe()?)
            .args(["node", &node.to_string()])
            .arg(self.folder.path())
            .args([&me.to_string(), &since.to_string(), &entry.to_string(), &self.pace.to_string(), way])
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting a node")?;
        let group = i32::try_from(child.id().context("it was started")?)?;
        self.relays.runs(node, group);
        let orders = child.stdin.take().context("a pipe to it")?;
        let said = child.stdout.take().context("a pipe from it")?;
        self.daemons.push(group);
        self.actors
            .insert(node, Actor { group, orders, started: Instant::now(), who: None, leaving: false, ended: false });
        let sender = self.sender.clone();
        tokio::spawn(async move {
            let mut lines = BufReader::new(said).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                let line = serde_json::from_str(&line).unwrap_or_else(|_| serde_json::json!({ "error": line }));
                let _run_has_ended = sender.send(Report { node, line });
            }
        });
        let sender = self.sender.clone();
        tokio::spawn(async move {
            let status = child.wait().await.map_or_else(|e| e.to_string(), |s| s.to_string());
            let at = process::monotonic_ns();
            let line = serde_json::json!({ "kind": "ended", "status": status, "group": group, "at": at });
            let _run_has_ended = sender.send(Report { node, line });
        });
        Ok(())
    }

    fn actor(&mut self, node: u64) -> Result<&mut Actor> {
        self.actors.get_mut(&node).with_context(|| format!("n{node} does not run"))
    }

    /// Gives a node an order.
    pub(crate) async fn order(&mut self, node: u64, order: &str) -> Result<()> {
        let actor = self.actor(node)?;
        actor.leaving |= order == "leave";
        actor
            .orders
            .write_all(format!("{order}\n").as_bytes())
            .await
            .with_context(|| format!("giving n{node} an order"))
    }

    /// Expects that the process of `node` may end from here on. Returns its process group.
    pub(crate) fn doom(&mut self, node: u64) -> Result<i32> {
        let actor = self.actor(node)?;
        actor.leaving = true;
        Ok(actor.group)
    }

    /// Expects that no process ends from here on.
    pub(crate) fn expect_nothing(&mut self) {
        self.actors.values_mut().for_each(|actor| actor.leaving = false);
    }

    /// Sends a signal to the process groups of a node's daemon and its workers. Returns when, in nanoseconds of
    /// CLOCK_MONOTONIC.
    pub(crate) fn signal_all_of(&mut self, node: u64, signal: Signal) -> Result<u64> {
        let group = self.doom(node)?;
        let workers = match self.actor(node)?.who {
            Some(who) => self.groups.known_workers(Some(who))?,
            None => vec![],
        };
        let at = process::monotonic_ns();
        // The daemon first, so that it cannot report the end of its worker.
        for group in [group].into_iter().chain(workers) {
            process::signal_group(group, signal)?;
        }
        Ok(at)
    }

    /// Kills only a node's daemon. Returns when, in nanoseconds of CLOCK_MONOTONIC.
    pub(crate) fn kill_daemon_of(&mut self, node: u64) -> Result<u64> {
        let group = self.doom(node)?;
        let at = process::monotonic_ns();
        process::kill_one(group).map(|()| at)
    }

    /// Waits for a report that `wanted` accepts, among those from index `from` on and those to come. Fails as soon as a
    /// process reports an error.
    pub(crate) async fn wait(
        &mut self,
        from: usize,
        what: &str,
        mut wanted: impl FnMut(&Report) -> bool,
    ) -> Result<Report> {
        let give_up = Instant::now() + TIMEOUT;
        let mut at = from;
        loop {
            while let Some(report) = self.heard.get(at) {
                at += 1;
                if wanted(report) {
                    clear_progress();
                    return Ok(report.clone());
                }
            }
            self.explain()?;
            self.progress(what);
            match tokio::time::timeout(Duration::from_millis(250), self.reports.recv()).await {
                Ok(Some(report)) => self.hear(report)?,
                Ok(None) => bail!("every process has stopped reporting"),
                Err(_) if Instant::now() > give_up => bail!("not within {TIMEOUT:?}: {what}"),
                Err(_) => {}
            }
        }
    }

    /// Handles the reports that have arrived.
    pub(crate) fn listen(&mut self) -> Result<()> {
        while let Ok(report) = self.reports.try_recv() {
            self.hear(report)?;
        }
        self.explain()
    }

    fn hear(&mut self, report: Report) -> Result<()> {
        let node = report.node;
        if let Some(error) = report.line["error"].as_str() {
            bail!("n{node} reports: {error}");
        }
        if report.is("joined") {
            let actor = self.actor(node)?;
            (actor.who, actor.started) = (Some(report.text("who").parse()?), Instant::now());
        }
        if report.is("lost") {
            self.tell(&format!("{} is notified that its lease runs out, and stops its worker", report.text("who")));
        }
        let about = |who: Identity| report.tells("ordered", who) || report.tells("over", who);
        let ordered = self.actors.values().any(|actor| !actor.leaving && actor.who.is_some_and(about));
        if ordered && report.is("ordered") {
            self.tell(&format!("not part of the story: {}", report.text("text")));
        }
        // A life with a fence order will end, so its end is expected.
        for actor in self.actors.values_mut() {
            actor.leaving |= actor.who.is_some_and(about);
        }
        if report.is("ended") {
            let group = report.line["group"].as_i64();
            let own = self.actors.get_mut(&node).filter(|actor| Some(i64::from(actor.group)) == group);
            if let Some(actor) = own {
                actor.ended = true;
                if !actor.leaving {
                    let (status, who) = (report.text("status").into(), actor.who);
                    self.unexplained.push(Unexplained { node, who, status, at: report.at(), heard: Instant::now() });
                }
            }
        }
        self.heard.push(report);
        Ok(())
    }

    /// Fails if a process has ended unexpectedly.
    fn explain(&mut self) -> Result<()> {
        let heard = &self.heard;
        let fenced = |end: &Unexplained| {
            let ordered = |r: &Report| end.who.is_some_and(|who| r.tells("ordered", who)) && r.at() <= end.at;
            heard.iter().any(ordered)
        };
        self.unexplained.retain(|end| !fenced(end));
        match self.unexplained.iter().find(|end| end.heard.elapsed() > EXPLAINED) {
            Some(Unexplained { node, status, .. }) => {
                bail!("n{node} ended unexpectedly ({status}); the run cannot continue")
            }
            None => Ok(()),
        }
    }

    fn progress(&self, what: &str) {
        if std::io::stdout().is_terminal() {
            print!("\r\x1b[2K{:>7.2} s  … {what}", self.begun.elapsed().as_secs_f64());
            let _not_shown = std::io::stdout().flush();
        }
    }

    /// Ends every process, waits until all are gone, and returns the folder for the audits.
    pub(crate) async fn end(mut self) -> Result<tempfile::TempDir> {
        for group in &self.daemons {
            process::kill_group(*group)?;
        }
        for group in std::mem::take(&mut self.daemons) {
            while !process::members(group)?.is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        self.groups.end_all_workers().await?;
        Ok(std::mem::replace(&mut self.folder, tempfile::tempdir()?))
    }
}

fn clear_progress() {
    if std::io::stdout().is_terminal() {
        print!("\r\x1b[2K");
    }
}

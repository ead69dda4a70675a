//! The director's hands: starts and ends processes, hears what they report, and leaves none behind.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use quorate::Identity;
use rustix::process::Signal;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{ChildStdin, Command};
use tokio::sync::mpsc;

use crate::fencer::ProcessGroups;
use crate::ledger::{self, Line, Reader};
use crate::pace::Pace;
use crate::process;
use crate::relay::Relays;
use crate::report::{Report, Unexplained};

/// How long the director waits for what must come.
const TIMEOUT: Duration = Duration::from_secs(60);

/// For how long the end of a process may stay without an explanation.
const EXPLAINED: Duration = Duration::from_millis(300);

/// A process of a node.
pub(crate) struct Actor {
    /// Its process, and the number of its process group.
    pub(crate) group: i32,
    orders: ChildStdin,
    /// When it was started, and once it has joined, when that was heard.
    pub(crate) started: Instant,
    /// The life that it is, once it has joined.
    pub(crate) who: Option<Identity>,
    /// Its end was asked for, or is accounted for.
    leaving: bool,
    pub(crate) ended: bool,
}

/// The processes, and where they live.
pub(crate) struct Stage {
    folder: tempfile::TempDir,
    pace: Pace,
    pub(crate) actors: BTreeMap<u64, Actor>,
    /// Every process group of a daemon that was ever started: none may be forgotten.
    daemons: Vec<i32>,
    /// What the workers have recorded of theirs.
    pub(crate) groups: ProcessGroups,
    pub(crate) relays: Relays,
    doors: BTreeMap<u64, SocketAddr>,
    sender: mpsc::UnboundedSender<Report>,
    reports: mpsc::UnboundedReceiver<Report>,
    /// Everything heard so far.
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
        let (written, tried) = (Reader::new(file.clone()), Reader::new(ledger::attempts(&file)));
        Ok(Self {
            folder,
            pace,
            actors: BTreeMap::new(),
            daemons: vec![],
            groups,
            relays: Relays::new(),
            doors: BTreeMap::new(),
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
        self.doors.keys().copied().collect()
    }

    pub(crate) fn pace(&self) -> Pace {
        self.pace
    }

    /// The lines of the ledger by now.
    pub(crate) fn written(&mut self) -> Result<&[Line]> {
        self.written.lines()
    }

    /// The attempts to write to it by now.
    pub(crate) fn tried(&mut self) -> Result<&[Line]> {
        self.tried.lines()
    }

    /// Where the nodes that run can be reached.
    pub(crate) fn addresses(&self) -> String {
        let running = self.actors.iter().filter(|(_, actor)| actor.who.is_some() && !actor.ended);
        let doors = running.filter_map(|(node, _)| self.doors.get(node).map(SocketAddr::to_string));
        doors.collect::<Vec<_>>().join(",")
    }

    /// One line of the story.
    pub(crate) fn tell(&self, text: &str) {
        clear_progress();
        println!("{:>7.2} s  {text}", self.begun.elapsed().as_secs_f64());
    }

    /// Starts a node in a process group of its own, behind its relay.
    pub(crate) async fn start(&mut self, node: u64, way: &str) -> Result<()> {
        let door = match self.doors.get(&node) {
            Some(door) => *door,
            None => self.relays.open(node).await?,
        };
        self.doors.insert(node, door);
        let me = i32::try_from(std::process::id())?;
        let since = process::started(me)?.context("this process runs")?;
        let mut child = Command::new(std::env::current_exe()?)
            .args(["node", &node.to_string()])
            .arg(self.folder.path())
            .args([&me.to_string(), &since.to_string(), &door.to_string(), &self.pace.to_string(), way])
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
                let _nobody_listens = sender.send(Report { node, line });
            }
        });
        let sender = self.sender.clone();
        tokio::spawn(async move {
            let status = child.wait().await.map_or_else(|e| e.to_string(), |s| s.to_string());
            let at = process::monotonic_ns();
            let line = serde_json::json!({ "kind": "ended", "status": status, "group": group, "at": at });
            let _nobody_listens = sender.send(Report { node, line });
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
        actor.orders.write_all(format!("{order}\n").as_bytes()).await.with_context(|| format!("telling n{node}"))
    }

    /// Says that the process of `node` may end from here on: what is about to befall it does not leave it alive for sure.
    pub(crate) fn doom(&mut self, node: u64) -> Result<i32> {
        let actor = self.actor(node)?;
        actor.leaving = true;
        Ok(actor.group)
    }

    /// Says that from here on no process is to end by itself.
    pub(crate) fn expect_nothing(&mut self) {
        self.actors.values_mut().for_each(|actor| actor.leaving = false);
    }

    /// Sends a signal to everything that a node has started: the process groups of its daemon and of its workers.
    pub(crate) fn signal_all_of(&mut self, node: u64, signal: Signal) -> Result<u64> {
        let group = self.doom(node)?;
        let workers = match self.actor(node)?.who {
            Some(who) => self.groups.known_workers(Some(who))?,
            None => vec![],
        };
        let at = process::monotonic_ns();
        // The daemon first: it is to say nothing of what befalls its worker.
        for group in [group].into_iter().chain(workers) {
            process::signal_group(group, signal)?;
        }
        Ok(at)
    }

    /// Kills a node's daemon, and nothing else.
    pub(crate) fn kill_daemon_of(&mut self, node: u64) -> Result<u64> {
        let group = self.doom(node)?;
        let at = process::monotonic_ns();
        process::kill_one(group).map(|()| at)
    }

    /// Waits for a report, past or future ones alike from `from` on, and fails as soon as a process reports trouble.
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
                Ok(None) => bail!("nobody reports any more"),
                Err(_) if Instant::now() > give_up => bail!("waited {TIMEOUT:?} in vain: {what}"),
                Err(_) => {}
            }
        }
    }

    /// Hears whatever was said by now.
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
            self.tell(&format!("{} is told that its lease runs out, and stops its worker", report.text("who")));
        }
        let about = |who: Identity| report.tells("ordered", who) || report.tells("over", who);
        let ordered = self.actors.values().any(|actor| !actor.leaving && actor.who.is_some_and(about));
        if ordered && report.is("ordered") {
            self.tell(&format!("not by this story: {}", report.text("text")));
        }
        // Whoever is ordered to be fenced will end, by whichever hand.
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

    /// Fails when a process has ended that nobody was to end.
    fn explain(&mut self) -> Result<()> {
        let heard = &self.heard;
        let fenced = |end: &Unexplained| {
            let ordered = |r: &Report| end.who.is_some_and(|who| r.tells("ordered", who)) && r.at() <= end.at;
            heard.iter().any(ordered)
        };
        self.unexplained.retain(|end| !fenced(end));
        match self.unexplained.iter().find(|end| end.heard.elapsed() > EXPLAINED) {
            Some(Unexplained { node, status, .. }) => {
                bail!("n{node} was ended from outside ({status}); this run shows nothing further")
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

    /// Ends everything that was started, sees that nobody is left, and hands out the folder for the audits.
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

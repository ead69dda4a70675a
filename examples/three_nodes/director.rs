//! The director's hands: starts and ends processes, hears what they report, and leaves none behind.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{ChildStdin, Command};
use tokio::sync::mpsc;

use crate::audit::Audit;
use crate::table::Takeover;
use crate::{Options, ledger, process, story, table};

/// How long the director waits for what must come.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a node says, or that it has ended.
#[derive(Debug, Clone)]
pub(crate) struct Report {
    pub(crate) node: u64,
    pub(crate) line: Value,
}

impl Report {
    /// The text under `key`, or nothing.
    pub(crate) fn text(&self, key: &str) -> &str {
        self.line[key].as_str().unwrap_or("")
    }

    pub(crate) fn is(&self, kind: &str) -> bool {
        self.text("kind") == kind
    }

    /// When it was said, in nanoseconds of CLOCK_MONOTONIC.
    pub(crate) fn at(&self) -> u64 {
        self.line["at"].as_u64().unwrap_or(0)
    }
}

/// A process of a node.
struct Actor {
    group: i32,
    orders: ChildStdin,
    address: Option<String>,
    /// Its end was asked for.
    leaving: bool,
}

/// The processes, and where they live.
pub(crate) struct Stage {
    folder: tempfile::TempDir,
    actors: BTreeMap<u64, Actor>,
    /// Every process group that was ever started: none may be forgotten.
    groups: Vec<i32>,
    sender: mpsc::UnboundedSender<Report>,
    reports: mpsc::UnboundedReceiver<Report>,
    /// Everything heard so far.
    pub(crate) heard: Vec<Report>,
    begun: Instant,
}

impl Drop for Stage {
    fn drop(&mut self) {
        for group in &self.groups {
            let _gone = process::kill_group(*group);
        }
    }
}

impl Stage {
    fn new() -> Result<Self> {
        let (sender, reports) = mpsc::unbounded_channel();
        let (folder, actors, groups) = (tempfile::tempdir()?, BTreeMap::new(), vec![]);
        Ok(Self { folder, actors, groups, sender, reports, heard: vec![], begun: Instant::now() })
    }

    pub(crate) fn ledger(&self) -> PathBuf {
        self.folder.path().join("ledger")
    }

    /// Where the nodes that run can be reached.
    pub(crate) fn addresses(&self) -> String {
        self.actors.values().filter_map(|actor| actor.address.clone()).collect::<Vec<_>>().join(",")
    }

    /// One line of the story.
    pub(crate) fn tell(&self, text: &str) {
        clear_progress();
        println!("{:>7.2} s  {text}", self.begun.elapsed().as_secs_f64());
    }

    /// Starts a node in a process group of its own.
    pub(crate) fn start(&mut self, node: u64, way: &str) -> Result<()> {
        let me = i32::try_from(std::process::id())?;
        let since = process::started(me)?.context("this process runs")?;
        let mut child = Command::new(std::env::current_exe()?)
            .args(["node", &node.to_string()])
            .arg(self.folder.path())
            .args([&me.to_string(), &since.to_string(), way])
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting a node")?;
        let group = i32::try_from(child.id().context("it was started")?)?;
        let orders = child.stdin.take().context("a pipe to it")?;
        let said = child.stdout.take().context("a pipe from it")?;
        self.groups.push(group);
        self.actors.insert(node, Actor { group, orders, address: None, leaving: false });
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
            let line = serde_json::json!({ "kind": "ended", "status": status, "group": group });
            let _nobody_listens = sender.send(Report { node, line });
        });
        Ok(())
    }

    /// Gives a node an order.
    pub(crate) async fn order(&mut self, node: u64, order: &str) -> Result<()> {
        let actor = self.actors.get_mut(&node).with_context(|| format!("n{node} does not run"))?;
        actor.leaving |= order == "leave";
        actor.orders.write_all(format!("{order}\n").as_bytes()).await.with_context(|| format!("telling n{node}"))
    }

    /// Kills a node with everything that it started.
    pub(crate) fn kill_all_of(&mut self, node: u64) -> Result<u64> {
        let group = self.doom(node)?;
        let at = process::monotonic_ns();
        process::kill_group(group).map(|()| at)
    }

    /// Kills a node's daemon; its worker runs on.
    pub(crate) fn kill_daemon_of(&mut self, node: u64) -> Result<u64> {
        let group = self.doom(node)?;
        let at = process::monotonic_ns();
        process::kill_one(group).map(|()| at)
    }

    fn doom(&mut self, node: u64) -> Result<i32> {
        let actor = self.actors.get_mut(&node).with_context(|| format!("n{node} does not run"))?;
        actor.leaving = true;
        Ok(actor.group)
    }

    /// The process group of a node.
    pub(crate) fn group_of(&self, node: u64) -> Result<i32> {
        Ok(self.actors.get(&node).with_context(|| format!("n{node} does not run"))?.group)
    }

    /// Waits for a report, past or future ones alike from `from` on, and fails as soon as a process reports trouble.
    pub(crate) async fn wait(
        &mut self,
        from: usize,
        what: &str,
        mut wanted: impl FnMut(&Report) -> bool,
    ) -> Result<Report> {
        let give_up = Instant::now() + PATIENCE;
        let mut at = from;
        loop {
            while let Some(report) = self.heard.get(at) {
                at += 1;
                if wanted(report) {
                    clear_progress();
                    return Ok(report.clone());
                }
            }
            self.progress(what);
            match tokio::time::timeout(Duration::from_millis(250), self.reports.recv()).await {
                Ok(Some(report)) => self.hear(report)?,
                Ok(None) => bail!("nobody reports any more"),
                Err(_) if Instant::now() > give_up => bail!("waited {PATIENCE:?} in vain: {what}"),
                Err(_) => {}
            }
        }
    }

    fn hear(&mut self, report: Report) -> Result<()> {
        let node = report.node;
        if let Some(error) = report.line["error"].as_str() {
            bail!("n{node} reports: {error}");
        }
        if report.is("joined")
            && let Some(actor) = self.actors.get_mut(&node)
        {
            actor.address = Some(report.text("address").into());
        }
        if report.is("ended") {
            let group = report.line["group"].as_i64();
            let asked = match self.actors.get(&node) {
                Some(actor) if Some(i64::from(actor.group)) == group => actor.leaving,
                Some(_) | None => true,
            };
            if !asked {
                bail!("n{node} was ended from outside ({}); this run shows nothing further", report.text("status"));
            }
            if self.actors.get(&node).is_some_and(|actor| Some(i64::from(actor.group)) == group)
                && let Some(actor) = self.actors.get_mut(&node)
            {
                actor.address = None;
            }
        }
        self.heard.push(report);
        Ok(())
    }

    fn progress(&self, what: &str) {
        if std::io::stdout().is_terminal() {
            print!("\r\x1b[2K{:>7.2} s  … {what}", self.begun.elapsed().as_secs_f64());
            let _not_shown = std::io::stdout().flush();
        }
    }
}

fn clear_progress() {
    if std::io::stdout().is_terminal() {
        print!("\r\x1b[2K");
    }
}

/// Plays the story, audits the ledger whatever came of it, and says by the exit code what was found: 0 all well,
/// 1 two owners or a token that went back, 2 the story could not be played to its end.
pub(crate) fn main(options: Options) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let mut stage = Stage::new()?;
        let mut takeovers = vec![];
        let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        let played = tokio::select! {
            played = story::play(&mut stage, &options, &mut takeovers) => played,
            _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
            _ = terminate.recv() => Err(anyhow::anyhow!("asked to end")),
        };
        let ledger = stage.ledger();
        // The audit comes after the last process has ended: nobody can add to the ledger behind its back.
        let folder = end(stage).await?;
        let code = judge(&options, &takeovers, &ledger, played)?;
        drop(folder);
        Ok(code)
    })
}

async fn end(mut stage: Stage) -> Result<tempfile::TempDir> {
    let groups = std::mem::take(&mut stage.groups);
    for group in &groups {
        process::kill_group(*group)?;
    }
    for group in groups {
        while !process::members(group)?.is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    Ok(std::mem::replace(&mut stage.folder, tempfile::tempdir()?))
}

fn judge(options: &Options, takeovers: &[Takeover], ledger: &Path, played: Result<()>) -> Result<ExitCode> {
    let audit = Audit::of(&ledger::read(ledger)?, &ledger::read(&ledger::attempts(ledger))?);
    if !takeovers.is_empty() {
        table::print(takeovers, options.rounds);
    }
    let Audit { lines, owners, overlaps, backwards } = audit;
    println!("ledger: {lines} lines of {owners} owners, {overlaps} overlaps, {backwards} tokens went backwards");
    if let Some(file) = &options.json {
        table::write(file, takeovers, &audit)?;
        println!("written to {}", file.display());
    }
    let short = takeovers.iter().find(|t| t.gap <= 0.0);
    if let Some(t) = short {
        println!("the gap between {} and {} is {:.3} ms: two owners at once", t.from, t.to, t.gap);
    }
    match played {
        _ if !audit.clean() || short.is_some() => Ok(ExitCode::from(1)),
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) => {
            println!("the story ended early: {error:#}");
            Ok(ExitCode::from(if error.is::<story::TwoOwners>() { 1 } else { 2 }))
        }
    }
}

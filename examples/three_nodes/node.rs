//! One node of the demo: a quorate node, and the few lines of an HA manager that decide who runs the worker.
//!
//! The rule is a function of the events alone, so every node comes to the same answer: lives queue up in the order in
//! which they were activated, the first one owns the work; when it is fenced or has left, the next one owns it, with
//! the revision of that end as its token. (Locks, which will say this in one word, are an issue of their own.)

use std::collections::VecDeque;
use std::io::Write;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;

use anyhow::{Context, Result};
use quorate::{Cluster, Event, Identity, NodeId, Revision};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::fencer::ProcessGroups;
use crate::process;

struct Place {
    number: u64,
    folder: PathBuf,
    guardian: (i32, u64),
    /// `found`, `resume`, or the addresses to join through.
    way: String,
}

/// `node NUMBER FOLDER GUARDIAN SINCE found|resume|ADDRESS,ADDRESS…`
pub(crate) fn main(mut args: impl Iterator<Item = String>) -> Result<()> {
    let mut next = |what: &'static str| args.next().with_context(|| format!("the node needs {what}"));
    let place = Place {
        number: next("a number")?.parse()?,
        folder: next("a folder")?.into(),
        guardian: (next("a guardian")?.parse()?, next("its start")?.parse()?),
        way: next("a way in")?,
    };
    // The engine complains of its own end when a node leaves; RUST_LOG shows everything.
    let filter = tracing_subscriber::EnvFilter::try_from_default_env();
    let filter = filter.unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("error,openraft=off"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    process::end_with(place.guardian.0, place.guardian.1);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let ended = runtime.block_on(run(&place));
    if let Err(error) = &ended {
        say(json!({ "error": format!("{error:#}") }));
    }
    ended
}

/// One line to the director.
fn say(mut line: Value) {
    line["at"] = process::monotonic_ns().into();
    // A director that is gone hears nothing; this process then ends by itself, see `process::end_with`.
    let _unheard = writeln!(std::io::stdout(), "{line}");
}

async fn run(place: &Place) -> Result<()> {
    let groups = ProcessGroups { folder: place.folder.join("groups") };
    groups.starting(NodeId::new(place.number))?;
    let fencer = groups.clone();
    let node = Cluster::builder(NodeId::new(place.number))
        .data(place.folder.join(format!("n{}", place.number)))
        .listen_plaintext("127.0.0.1:0".parse()?)
        .fencing(move |request| fencer.clone().fence(request));
    let cluster = match place.way.as_str() {
        "found" => node.bootstrap().await?,
        "resume" => node.resume().await?,
        seeds => node.join(seeds.split(',')).await?,
    };
    let me = cluster.identity();
    groups.register(me)?;
    let address = cluster.local_addr().context("it listens")?.to_string();
    say(json!({ "kind": "joined", "who": me.to_string(), "address": address }));

    let mut events = cluster.events_since(Revision::default());
    let mut manager = Manager { me, queue: VecDeque::new(), worker: None, place };
    let mut orders = BufReader::new(tokio::io::stdin()).lines();
    let cluster = Arc::new(cluster);
    loop {
        tokio::select! {
            event = events.next() => {
                let event = event.context("this demo keeps no records to go on from")?;
                manager.handle(event, events.revision()).await?;
            }
            order = orders.next_line() => match order?.as_deref().map(|line| line.split(' ').collect::<Vec<_>>()).as_deref() {
                Some(["leave"]) => break,
                Some(["remove", node]) => {
                    let (cluster, node) = (cluster.clone(), node.parse()?);
                    tokio::spawn(async move {
                        match cluster.remove(node).await {
                            Ok(done) => say(json!({ "kind": "removed", "node": node.to_string(), "revision": done.revision.get() })),
                            Err(error) => say(json!({ "error": format!("removing {node}: {error}") })),
                        }
                    });
                }
                Some(other) => say(json!({ "error": format!("`{}` is not an order", other.join(" ")) })),
                None => anyhow::bail!("the director is gone"),
            },
            status = manager.worker_ended() => {
                let status = status?;
                say(json!({ "error": format!("the worker ended by itself: {status}") }));
                manager.worker = None;
            }
        }
    }
    // Stop first, then say so.
    manager.stop_worker().await?;
    let cluster = Arc::into_inner(cluster).context("an order is still being carried out")?;
    cluster.leave().await?;
    say(json!({ "kind": "gone", "who": me.to_string() }));
    Ok(())
}

struct Manager<'a> {
    me: Identity,
    /// Lives in the order of their activation. The first owns the work.
    queue: VecDeque<Identity>,
    worker: Option<Child>,
    place: &'a Place,
}

impl Manager<'_> {
    async fn handle(&mut self, event: Event, revision: Revision) -> Result<()> {
        report(&event);
        let before = self.queue.front().copied();
        let (over, token) = match &event {
            Event::Activated { who } => {
                self.queue.push_back(*who);
                return match before {
                    None if *who == self.me => self.start_worker(revision).await,
                    None | Some(_) => Ok(()),
                };
            }
            Event::Fenced { who, token, .. } | Event::Left { who, token } => (*who, *token),
            Event::FenceOrdered { target, .. } if *target == self.me => return self.stop_worker().await,
            _ => return Ok(()),
        };
        self.queue.retain(|who| *who != over);
        if over == self.me {
            self.stop_worker().await?;
        } else if before == Some(over) && self.queue.front() == Some(&self.me) {
            self.start_worker(token).await?;
        }
        Ok(())
    }

    async fn start_worker(&mut self, token: Revision) -> Result<()> {
        let Place { folder, guardian, .. } = self.place;
        let (program, ledger) = (std::env::current_exe()?, folder.join("ledger"));
        let worker = Command::new(program)
            .arg("worker")
            .args([token.to_string(), self.me.to_string()])
            .arg(ledger)
            .args([guardian.0.to_string(), guardian.1.to_string()])
            .stdin(Stdio::null())
            .spawn()
            .context("starting the worker")?;
        say(json!({ "kind": "worker", "who": self.me.to_string(), "token": token.get(), "pid": worker.id() }));
        self.worker = Some(worker);
        Ok(())
    }

    async fn stop_worker(&mut self) -> Result<()> {
        if let Some(mut worker) = self.worker.take() {
            worker.kill().await.context("stopping the worker")?;
        }
        Ok(())
    }

    async fn worker_ended(&mut self) -> Result<std::process::ExitStatus> {
        match &mut self.worker {
            Some(worker) => Ok(worker.wait().await?),
            None => std::future::pending().await,
        }
    }
}

/// Tells the director what it times.
fn report(event: &Event) {
    let kind = match event {
        Event::Activated { .. } => "activated",
        Event::FenceOrdered { .. } => "ordered",
        Event::Fenced { .. } => "fenced",
        Event::Left { .. } => "left",
        Event::Removed { .. } => "out",
        Event::Configured { .. } => "configured",
        _ => return,
    };
    let mut line = json!({ "kind": kind, "text": event.to_string() });
    if let Some(who) = event.who() {
        line["who"] = who.to_string().into();
    }
    match event {
        Event::Fenced { proof: quorate::FenceProof::Device { .. }, .. } => line["proof"] = "device".into(),
        Event::Fenced { proof: quorate::FenceProof::Operator { .. }, .. } => line["proof"] = "operator".into(),
        Event::Fenced { proof: quorate::FenceProof::CleanLeave, .. } | Event::Left { .. } => {
            line["proof"] = "clean leave".into();
        }
        Event::Removed { node } => line["node"] = node.to_string().into(),
        _ => {}
    }
    say(line);
}

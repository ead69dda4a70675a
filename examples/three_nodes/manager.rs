//! A minimal HA manager: decides which node runs the worker, and runs it only while that node's lease is held.
//!
//! ```text
//!   events ──▶ queue: n1#1, n2#1, n3#1        the first owns the work; its end gives the work and a token to the next
//!   lease  ──▶ held: start, bound to it       lost: stop, with time left        independent of the events
//! ```
//!
//! Ownership is a function of the events alone, so every node computes the same owner. Lives queue up in the order of
//! their activation, and the first one owns the work. When it is fenced or leaves, the next one owns the work, with the
//! revision of that end as its token. (A lock would do the same in one call; this example shows the events.) Ownership
//! alone is not enough: the worker runs only while the owner's lease is held, and is bound to it.

use std::collections::VecDeque;
use std::io;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use quorate::{
    Event, Identity, Lease, Revision,
    lease::{BoundChild, LeaseStage, ProtectError},
};
use serde_json::json;

use crate::node::{Place, say};

/// What the manager reacts to, besides events.
#[derive(Debug)]
pub(crate) enum Turn {
    /// This life owns the work, and its lease is held.
    Held,
    /// The lease is about to end.
    Lost,
    /// The worker process has ended.
    Ended(io::Result<ExitStatus>),
}

pub(crate) struct Manager<'a> {
    me: Identity,
    lease: Lease,
    /// Lives in the order of their activation. The first owns the work.
    queue: VecDeque<Identity>,
    /// The token under which this life owns the work; `None` if it does not, or is being fenced.
    token: Option<Revision>,
    worker: Option<BoundChild>,
    place: &'a Place,
}

impl<'a> Manager<'a> {
    pub(crate) fn new(me: Identity, lease: Lease, place: &'a Place) -> Self {
        Self { me, lease, queue: VecDeque::new(), token: None, worker: None, place }
    }

    /// Handles one event of the log.
    pub(crate) async fn handle(&mut self, event: &Event, revision: Revision) -> Result<()> {
        let before = self.queue.front().copied();
        let (ended, token) = match event {
            Event::Activated { who } => {
                self.queue.push_back(*who);
                if before.is_none() && *who == self.me {
                    self.token = Some(revision);
                }
                return Ok(());
            }
            Event::FenceOrdered { target, .. } if *target == self.me => return self.stop().await,
            Event::Fenced { who, token, .. } | Event::Left { who, token } => (*who, *token),
            _ => return Ok(()),
        };
        self.queue.retain(|who| *who != ended);
        if ended == self.me {
            self.stop().await?;
        } else if before == Some(ended) && self.queue.front() == Some(&self.me) {
            self.token = Some(token);
        }
        Ok(())
    }

    /// Waits for the next turn. Cancel-safe.
    pub(crate) async fn turn(&self) -> Turn {
        match (&self.worker, self.token) {
            (Some(worker), _) => tokio::select! {
                status = worker.wait() => Turn::Ended(status),
                () = self.lease.lost() => Turn::Lost,
            },
            (None, Some(_)) => {
                self.lease.held().await;
                Turn::Held
            }
            (None, None) => std::future::pending().await,
        }
    }

    /// Reacts to a turn.
    pub(crate) async fn follow(&mut self, turn: Turn) -> Result<()> {
        match turn {
            Turn::Held => self.start().await,
            Turn::Lost => {
                say(json!({ "kind": "lost", "who": self.me.to_string() }));
                self.stop_worker().await
            }
            Turn::Ended(status) => {
                self.worker = None;
                let status = status.context("waiting for the worker")?;
                // At the end of the lease the stop mechanism may have killed the worker first, which is no error.
                if self.lease.view().stage == LeaseStage::Held {
                    say(json!({ "error": format!("the worker ended by itself: {status}") }));
                }
                Ok(())
            }
        }
    }

    async fn start(&mut self) -> Result<()> {
        let Some(token) = self.token else { return Ok(()) };
        let Place { folder, guardian, .. } = self.place;
        let mut worker = Command::new(std::env::current_exe()?);
        worker
            .arg("worker")
            .args([token.to_string(), self.me.to_string()])
            .arg(folder)
            .args([guardian.0.to_string(), guardian.1.to_string()])
            .stdin(Stdio::null());
        match self.lease.spawn(worker, "worker", token).await {
            Ok(worker) => {
                let (who, group, pid) = (self.me.to_string(), worker.group(), worker.pid());
                say(json!({ "kind": "worker", "who": who, "token": token.get(), "group": group, "pid": pid }));
                self.worker = Some(worker);
                Ok(())
            }
            // The lease was lost during the start. Nothing runs, and the next held lease starts the worker.
            Err(ProtectError::NotHeld(_)) => {
                tokio::time::sleep(Duration::from_millis(1)).await;
                Ok(())
            }
            Err(_) if self.lease.check().is_err() => Ok(()),
            Err(error) => Err(error).context("starting the worker"),
        }
    }

    /// Stops the worker, and starts no other one.
    pub(crate) async fn stop(&mut self) -> Result<()> {
        self.token = None;
        self.stop_worker().await
    }

    async fn stop_worker(&mut self) -> Result<()> {
        if let Some(worker) = self.worker.take() {
            worker.kill().await.context("stopping the worker")?;
            say(json!({ "kind": "stopped", "who": self.me.to_string() }));
        }
        Ok(())
    }
}

//! The few lines of an HA manager that decide who runs the worker, and under which right.
//!
//! ```text
//!   events ──▶ queue: n1#1, n2#1, n3#1        the first owns the work; its end hands it to the next, with that end as token
//!   lease  ──▶ held: start, bound to it       lost: stop, with time left        neither is said by the other
//! ```
//!
//! The rule is a function of the events alone, so every node comes to the same answer: lives queue up in the order in
//! which they were activated, the first one owns the work; when it is fenced or has left, the next one owns it, with
//! the revision of that end as its token. (Locks, which will say this in one word, are an issue of their own.) Owning it
//! is not enough: the worker runs only while the owner's lease is held, and bound to it.

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

/// What calls for something to be done.
#[derive(Debug)]
pub(crate) enum Turn {
    /// The work is this life's, and so is the right to run it.
    Held,
    /// The right is about to end.
    Lost,
    /// The worker has ended.
    Ended(io::Result<ExitStatus>),
}

pub(crate) struct Manager<'a> {
    me: Identity,
    lease: Lease,
    /// Lives in the order of their activation. The first owns the work.
    queue: VecDeque<Identity>,
    /// Since when this life owns the work, if it does and is not being fenced.
    token: Option<Revision>,
    worker: Option<BoundChild>,
    place: &'a Place,
}

impl<'a> Manager<'a> {
    pub(crate) fn new(me: Identity, lease: Lease, place: &'a Place) -> Self {
        Self { me, lease, queue: VecDeque::new(), token: None, worker: None, place }
    }

    /// Follows the log.
    pub(crate) async fn handle(&mut self, event: &Event, revision: Revision) -> Result<()> {
        let before = self.queue.front().copied();
        let (over, token) = match event {
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
        self.queue.retain(|who| *who != over);
        if over == self.me {
            self.stop().await?;
        } else if before == Some(over) && self.queue.front() == Some(&self.me) {
            self.token = Some(token);
        }
        Ok(())
    }

    /// Waits for what comes next. Cancel-safe.
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

    /// Does what is called for.
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
                // At the end of the lease it is killed, whoever was quicker.
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
            // Lost while it was being started: nothing runs, and it is tried again once there is a lease.
            Err(ProtectError::NotHeld(_)) => {
                tokio::time::sleep(Duration::from_millis(1)).await;
                Ok(())
            }
            Err(_) if self.lease.check().is_err() => Ok(()),
            Err(error) => Err(error).context("starting the worker"),
        }
    }

    /// Stops the worker, and begins none any more.
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

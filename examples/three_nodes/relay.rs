//! The network between the nodes, which can be cut: a relay in front of each node passes every connection on.
//!
//! ```text
//!   n1 ──▶ relay of n2 ──▶ n2          the kernel tells which node calls (sockets.rs)
//!               │
//!               └ n1 ─▶ n2 dark: accepted, open, and silent; no byte passes from n1 to n2 on any connection,
//!                                be it a call of n1's or n1's answer to a call of n2's
//! ```
//!
//! Once the process of a node has ended, its relay closes the port too, as the kernel of its machine would. To ask the kernel
//! takes ten milliseconds and more, so a connection is passed on meanwhile as long as nothing is dark.
//!
//! A dark direction acts like a cable without a signal: no connection is refused or reset. When both directions of a
//! pair are light again, its old connections are closed, as they would be after so long a loss of packets, and new ones
//! pass.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::{process, sockets};

/// How soon a relay closes its port after the process behind it has ended.
const LOOK: Duration = Duration::from_millis(5);

/// The node that opened a connection, once the kernel has said it.
type Caller = Shared<BoxFuture<'static, Option<u64>>>;

const UNKNOWN: &str = "a process that is none of this demo";

/// The direction from one node to another.
type Way = (u64, u64);

/// The processes that the relays know, and the directions that are dark.
#[derive(Debug, Clone, Default)]
struct Net {
    /// The process of each node that runs.
    processes: BTreeMap<u64, i32>,
    /// Where each of these processes listens, once that is known.
    ports: BTreeMap<i32, u16>,
    dark: BTreeSet<Way>,
    /// How often each direction was made dark.
    cuts: BTreeMap<Way, u64>,
}

impl Net {
    fn is_cut(&self, (from, to): Way) -> bool {
        [(from, to), (to, from)].iter().any(|way| self.dark.contains(way))
    }

    fn cuts_between(&self, (from, to): Way) -> u64 {
        [(from, to), (to, from)].iter().filter_map(|way| self.cuts.get(way)).sum()
    }
}

/// The relays of all nodes.
#[derive(Debug)]
pub(crate) struct Relays {
    net: Arc<watch::Sender<Net>>,
}

impl Relays {
    pub(crate) fn new() -> Self {
        Self { net: Arc::new(watch::Sender::new(Net::default())) }
    }

    /// Opens the relay in front of `node`. It runs as long as this process does, even if the node ends.
    pub(crate) async fn open(&self, node: u64) -> Result<SocketAddr> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("a relay")?;
        let here = listener.local_addr()?;
        let known = self.net.clone();
        tokio::spawn(async move {
            let net = known.subscribe();
            let mut open = Some(listener);
            // Looks whether the node listens, at this pace.
            let mut pace = tokio::time::interval(LOOK);
            loop {
                let accepted = async {
                    match &open {
                        Some(listener) => listener.accept().await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    accepted = accepted => if let Ok((caller, from)) = accepted {
                        let known = known.clone();
                        // An error here is an ordinary connection failure, which the nodes must handle.
                        tokio::spawn(async move { carry(&known, caller, from.port(), node, here.port()).await });
                    },
                    _ = pace.tick() => match (listens(&net, node), &open) {
                        (false, Some(_)) => open = None,
                        // Its port may be taken for a moment by a connection that is being closed.
                        (true, None) => open = TcpListener::bind(here).await.ok(),
                        _ => {}
                    },
                }
            }
        });
        Ok(here)
    }

    /// Sets the process that runs as `node` from now on.
    pub(crate) fn runs(&self, node: u64, process: i32) {
        self.net.send_modify(|net| {
            net.processes.insert(node, process);
            // Its number may be that of a process that has ended.
            net.ports.remove(&process);
        });
    }

    /// Makes each direction in `ways` dark.
    pub(crate) fn darken(&self, ways: impl IntoIterator<Item = Way>) {
        self.net.send_modify(|net| {
            for way in ways {
                net.dark.insert(way);
                *net.cuts.entry(way).or_default() += 1;
            }
        });
    }

    /// Makes every direction light again.
    pub(crate) fn lighten(&self) {
        self.net.send_if_modified(|net| !std::mem::take(&mut net.dark).is_empty());
    }
}

/// Both directions between two nodes.
pub(crate) fn between(one: u64, other: u64) -> [Way; 2] {
    [(one, other), (other, one)]
}

/// Whether a caller of `node` is not refused. While a process runs as it, it listens. A cable without a signal refuses nothing.
fn listens(net: &watch::Receiver<Net>, node: u64) -> bool {
    let net = net.borrow();
    let dark = net.dark.iter().any(|(from, to)| *from == node || *to == node);
    let runs = |process: &i32| matches!(process::started(*process), Ok(Some(_)));
    dark || net.processes.get(&node).is_none_or(runs)
}

/// Carries one connection until it ends.
async fn carry(known: &watch::Sender<Net>, caller: TcpStream, port: u16, to: u64, relay: u16) -> Result<()> {
    // A node that only looks whether somebody listens says nothing, and its connection is gone already.
    if caller.peek(&mut [0]).await? == 0 {
        return Ok(());
    }
    let net = known.subscribe();
    let begun = net.borrow().clone();
    let from: Caller = calling_node(net.clone(), port, relay).map(Result::ok).boxed().shared();
    let carried = async {
        if !begun.dark.is_empty() && begun.is_cut((from.clone().await.context(UNKNOWN)?, to)) {
            std::future::pending::<()>().await;
        }
        let there = TcpStream::connect((Ipv4Addr::LOCALHOST, port_of(known, to).await?)).await?;
        there.set_nodelay(true)?;
        caller.set_nodelay(true)?;
        let ((from_caller, to_caller), (from_node, to_node)) = (caller.into_split(), there.into_split());
        tokio::select! {
            done = pump(net.clone(), from.clone(), |from| (from, to), from_caller, to_node) => done,
            done = pump(net.clone(), from.clone(), |from| (to, from), from_node, to_caller) => done,
        }
    };
    tokio::select! {
        stale = healed(net.clone(), from.clone(), to, &begun) => stale,
        done = carried => done,
    }
}

/// Waits until a cut between the two has passed, after which connections of before are closed.
async fn healed(mut net: watch::Receiver<Net>, from: Caller, to: u64, begun: &Net) -> Result<()> {
    let way = (from.await.context(UNKNOWN)?, to);
    let (cuts, cut) = (begun.cuts_between(way), begun.is_cut(way));
    net.wait_for(|net| !net.is_cut(way) && (cut || net.cuts_between(way) != cuts)).await?;
    Ok(())
}

/// The port on which the process of a node listens.
async fn port_of(known: &watch::Sender<Net>, node: u64) -> Result<u16> {
    let process = *known.borrow().processes.get(&node).context("the node does not run")?;
    if let Some(port) = known.borrow().ports.get(&process) {
        return Ok(*port);
    }
    let found = tokio::task::spawn_blocking(move || sockets::listens_on(process)).await??;
    let port = found.context("the node does not listen")?;
    known.send_if_modified(|net| {
        net.ports.insert(process, port);
        false
    });
    Ok(port)
}

/// The node that calls. A process that has just been started may not be known yet, so this tries several times.
async fn calling_node(net: watch::Receiver<Net>, from: u16, to: u16) -> Result<u64> {
    for _ in 0..10 {
        let processes: Vec<_> = net.borrow().processes.iter().map(|(node, pid)| (*node, *pid)).collect();
        let found = tokio::task::spawn_blocking(move || sockets::caller(from, to, &processes)).await??;
        if let Some(node) = found {
            return Ok(node);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    anyhow::bail!("no process of this demo calls from port {from}")
}

/// Carries the bytes of one direction while it is light. Bytes that are under way when it becomes dark are lost, and so
/// is the end of the connection.
async fn pump(
    mut net: watch::Receiver<Net>,
    from: Caller,
    way: impl Fn(u64) -> Way,
    mut source: OwnedReadHalf,
    mut sink: OwnedWriteHalf,
) -> Result<()> {
    let mut piece = vec![0; 64 * 1024];
    let mut whole = true;
    loop {
        let count = source.read(&mut piece).await;
        let dark = net.borrow_and_update().dark.clone();
        whole &= dark.is_empty() || !dark.contains(&way(from.clone().await.context(UNKNOWN)?));
        if !whole {
            std::future::pending::<()>().await;
        }
        match count? {
            0 => return Ok(()),
            count => sink.write_all(&piece[..count]).await?,
        }
    }
}

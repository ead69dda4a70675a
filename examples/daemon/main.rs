//! A plain node as a process of its own: what a program in another language has beside it.
//!
//! ```text
//!   daemon 1 /tmp/n1 127.0.0.1:7401 found                      once, on the first node
//!   daemon 2 /tmp/n2 127.0.0.1:7402 join 127.0.0.1:7401        once, on each other node
//!   daemon 2 /tmp/n2 127.0.0.1:7402 resume                     every later start
//!      │
//!      └─▶ prints `ready n2#1 127.0.0.1:7402` ─▶ serves the services of proto/quorate/v1 at that address
//! ```
//!
//! It runs no work of its own, so that nothing has to be stopped or fenced when it is lost: the locks here are held by
//! the sessions of clients. `client.py` beside it is such a client; `.ci/python` tries it against three of these.
//!
//! SIGTERM and SIGINT have it leave, so that the next start of the node has no former life to wait for.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use quorate::{Cluster, NodeId, TokensOnly};
use tokio::signal::unix::{SignalKind, signal};

const USAGE: &str = "usage: daemon NUMBER FOLDER ADDRESS found|join ADDRESS...|resume";

/// How long to say goodbye. Without a majority nobody hears it, and the next start waits for a proof instead.
const FAREWELL: Duration = Duration::from_secs(3);

#[tokio::main]
async fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let mut next = || args.next().context(USAGE);
    let number: u64 = next()?.parse().context("the number of a node")?;
    let folder = next()?;
    let listen: SocketAddr =
        next()?.parse().context("where to listen, like 127.0.0.1:7401; port 0 takes a free one")?;
    let way = next()?;
    let seeds: Vec<String> = args.collect();

    // Before anything that takes time, so that no signal finds the process without an answer to it.
    let (mut terminated, mut interrupted) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let node = Cluster::builder(NodeId::new(number))
        .data(folder)
        .listen_plaintext(listen)
        // There is nothing here to be powered off …
        .without_fencing()
        // … and nothing to be stopped: what a client touches under a lock checks the client's token. So time alone
        // proves the end of a daemon that was killed, and its next start has nobody to wait for but time.
        .self_fencing(TokensOnly);
    let coming_in = async {
        let cluster = match way.as_str() {
            "join" => {
                ensure!(!seeds.is_empty(), "whom to join? {USAGE}");
                node.join(seeds).await?
            }
            _ if !seeds.is_empty() => bail!("`{}` is one too many; {USAGE}", seeds.join(" ")),
            "found" => node.bootstrap().await?,
            "resume" => node.resume().await?,
            other => bail!("`{other}` is no way in; {USAGE}"),
        };
        cluster.active().await?;
        Ok(cluster)
    };
    let cluster = tokio::select! {
        come_in = coming_in => come_in?,
        _ = terminated.recv() => return Ok(()),
        _ = interrupted.recv() => return Ok(()),
    };
    println!("ready {} {}", cluster.identity(), cluster.local_addr().context("it listens")?);

    tokio::select! {
        _ = terminated.recv() => {}
        _ = interrupted.recv() => {}
        // Others were told that this life is over: only a new one can be of use again.
        () = ended(&cluster) => bail!("this life is over; start again with `resume`"),
    }
    if let Ok(left) = tokio::time::timeout(FAREWELL, cluster.leave()).await {
        left?;
    }
    Ok(())
}

/// Resolves when this node's life may not go on: its end was proved to the others, or the node has stopped.
async fn ended(cluster: &Cluster) {
    let who = cluster.identity();
    let over = |view: &quorate::View| view.cluster.has_ended(who) || view.local.stopped.is_some();
    cluster.watch().until(over).await;
}

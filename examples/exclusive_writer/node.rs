//! One node: acquires the lock, writes while its guard permits it, and passes its token with every write.
//!
//! ```text
//!   lock("writer") ─▶ guard ─▶ check ─▶ write under its token ─▶ check ─▶ …   until refused or not permitted
//! ```

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result};
use quorate::{Cluster, LockError, LockGuard, Name, NodeId, TokensOnly};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// `node NUMBER FOLDER STORAGE found|ADDRESS`
pub(crate) fn main(mut args: impl Iterator<Item = String>) -> Result<()> {
    let mut next = |what: &'static str| args.next().with_context(|| format!("the node needs {what}"));
    let (number, folder) = (next("a number")?.parse()?, next("a folder")?);
    let (storage, way) = (next("a storage")?, next("a way in")?);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(run(NodeId::new(number), &folder, &storage, &way))
}

/// The lines that the director writes to stdin. The process exits when stdin ends.
fn orders() -> UnboundedReceiver<String> {
    let (said, orders) = unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if said.send(line).is_err() {
                return;
            }
        }
    });
    orders
}

async fn run(node: NodeId, folder: &str, storage: &str, way: &str) -> Result<()> {
    let builder = Cluster::builder(node)
        .data(folder)
        .listen_plaintext("127.0.0.1:0".parse()?)
        .without_fencing()
        // The storage refuses old tokens, so no work has to stop at the end of the lease.
        .self_fencing(TokensOnly);
    let cluster = match way {
        "found" => builder.bootstrap().await?,
        seed => builder.join([seed]).await?,
    };
    cluster.active().await?;
    println!("ready {}", cluster.local_addr().context("it listens")?);
    let mut orders = orders();
    loop {
        let guard = tokio::select! {
            guard = cluster.lock(Name::new("writer")?) => guard,
            order = orders.recv() => match order {
                Some(_) => continue,
                None => return Ok(()),
            },
        };
        match guard {
            Ok(guard) => {
                println!("owner under {}", guard.token());
                if !write(guard, storage, &mut orders).await? {
                    return Ok(());
                }
            }
            // The others know that this life has ended, so it can acquire no lock any more.
            Err(LockError::Over(who)) => {
                println!("gives up: {who} has ended");
                while orders.recv().await.is_some() {}
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Writes while the guard permits it. Returns `false` once the director has ended.
async fn write(guard: LockGuard, storage: &str, orders: &mut UnboundedReceiver<String>) -> Result<bool> {
    let mut storage = BufReader::new(TcpStream::connect(storage).context("the storage")?);
    for line in 0_u64.. {
        // First the check, which makes no call …
        let Ok(permit) = guard.check() else { break };
        match orders.try_recv() {
            Ok(order) if order == "hold" => {
                println!("checked: may write");
                // … then a pause. A process that is stopped here does not notice it.
                while orders.recv().await.context("the director is gone")? != "go" {}
            }
            Ok(_) | Err(tokio::sync::mpsc::error::TryRecvError::Empty) => {}
            Err(tokio::sync::mpsc::error::TryRecvError::Disconnected) => return Ok(false),
        }
        // … then the write, under the token of the check.
        writeln!(storage.get_mut(), "{} {} {line}", permit.token, guard.who())?;
        let mut answer = String::new();
        storage.read_line(&mut answer)?;
        if let Some(why) = answer.trim().strip_prefix("refused: ") {
            println!("refused {why}");
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // This owner has no write under way any more, so dropping the guard may release the lock.
    drop(guard);
    Ok(true)
}

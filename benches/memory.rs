//! What a cluster takes in memory and on the disk while much is written over few keys, and how evenly it commits.
//!
//! `cargo bench --bench memory -- GIGABYTES` (default 1). Three processes of this program on loopback; the first one writes.
//! `PLAIN=1` leaves the allocator as it comes.
//!
//! ```text
//!   parent ──spawns──▶ node 1, 2, 3        reads VmRSS of each and the size of its log, ten times a second
//!                        └ the first writes, and prints each second's longest gap between two commits
//! ```

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use gaps::Gaps;
use quorate::{Cluster, NodeId};
use tokio::task::JoinSet;

mod gaps {
    //! The longest time between two commits, whoever made them.

    use std::sync::Mutex;
    use std::time::{Duration, Instant};

    pub(crate) struct Gaps(Mutex<(Instant, Duration)>);

    impl Gaps {
        pub(crate) fn new() -> Self {
            Self(Mutex::new((Instant::now(), Duration::ZERO)))
        }

        pub(crate) fn commit(&self) {
            if let Ok(mut inside) = self.0.lock() {
                let gap = inside.0.elapsed();
                *inside = (Instant::now(), inside.1.max(gap));
            }
        }

        pub(crate) fn longest(&self) -> Duration {
            self.0.lock().map(|inside| inside.1).unwrap_or_default()
        }
    }
}

/// What the large write of the field had: 15 values of 65 000 bytes.
const VALUES: usize = 15;
const VALUE: usize = 65_000;
const KEYS: u64 = 105;
const WRITERS: u64 = 4;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    match args.as_slice() {
        [word, number, folder, seed, bytes] if word == "node" => node(number.parse()?, folder, seed, bytes.parse()?),
        [] => measure(1.0),
        [gigabytes] => measure(gigabytes.parse().context("the number of gigabytes")?),
        _ => anyhow::bail!("usage: cargo bench --bench memory -- GIGABYTES"),
    }
}

#[tokio::main]
async fn node(number: u64, folder: &str, seed: &str, bytes: u64) -> Result<()> {
    let described =
        Cluster::builder(NodeId::new(number)).data(folder).listen_plaintext("127.0.0.1:0".parse()?).without_fencing();
    let began = Instant::now();
    let cluster = match (seed, Path::new(folder).join("node").exists()) {
        (_, true) => described.resume().await?,
        ("-", false) => described.bootstrap().await?,
        (seed, false) => described.join([seed]).await?,
    };
    println!("ready {} {:?}", cluster.local_addr().context("it listens")?, began.elapsed());
    if bytes == 0 {
        std::future::pending::<()>().await;
    }
    let line = tokio::task::spawn_blocking(|| std::io::stdin().lock().lines().next());
    line.await?.context("the parent says when to begin")??;
    let (gaps, left, cluster) = (Arc::new(Gaps::new()), Arc::new(AtomicU64::new(bytes)), Arc::new(cluster));
    let mut writers = JoinSet::new();
    gaps.commit();
    for writer in 0..WRITERS {
        let (gaps, left, cluster) = (gaps.clone(), left.clone(), cluster.clone());
        writers.spawn(async move {
            let (records, size) = (cluster.records(), (VALUES * VALUE) as u64);
            let mut turn = writer;
            while left.fetch_sub(size.min(left.load(Ordering::Relaxed)), Ordering::Relaxed) >= size {
                let mut write = records.write();
                for place in 0..VALUES as u64 {
                    let key = format!("k{}", (turn * VALUES as u64 + place) % KEYS);
                    write = write.put(key, vec![turn as u8; VALUE]);
                }
                write.commit().await?;
                gaps.commit();
                turn += WRITERS;
            }
            anyhow::Ok(())
        });
    }
    let began = Instant::now();
    for written in writers.join_all().await {
        written?;
    }
    println!("written in {:?}, longest gap between commits {:?}", began.elapsed(), gaps.longest());
    std::future::pending::<()>().await;
    Ok(())
}

struct Node {
    process: Child,
    said: Option<BufReader<std::process::ChildStdout>>,
    address: String,
}

impl Node {
    fn start(number: u64, folder: &Path, seed: &str, bytes: u64) -> Result<Self> {
        // glibc keeps what is freed for as long as it likes, unless it is told a threshold; see the manual on memory.
        let tunables = "glibc.malloc.mmap_threshold=131072:glibc.malloc.trim_threshold=1048576";
        let allocator = std::env::var_os("PLAIN").is_none().then_some(("GLIBC_TUNABLES", tunables));
        let mut process = Command::new(std::env::current_exe()?)
            .args(["node", &number.to_string(), &folder.join(format!("n{number}")).to_string_lossy(), seed])
            .arg(bytes.to_string())
            .envs(allocator)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let said = process.stdout.take().map(BufReader::new);
        let mut node = Self { process, said, address: String::new() };
        let line = node.line()?;
        let mut words = line.split(' ');
        ensure!(words.next() == Some("ready"), "node {number}: {line}");
        node.address = words.next().context("its address")?.into();
        println!("n{number} is in after {}", words.next().unwrap_or_default().trim());
        Ok(node)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.said.as_mut().context("its output")?.read_line(&mut line)?;
        Ok(line)
    }

    fn rss(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("VmRSS")?;
        Ok(line.split_whitespace().nth(1).context("a number")?.parse::<u64>()? * 1024)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It ends anyway when this process does.
        let _ended = self.process.kill().and_then(|()| self.process.wait());
    }
}

fn measure(gigabytes: f64) -> Result<()> {
    let folder = tempfile::tempdir_in(std::env::var_os("BENCH_FOLDER").unwrap_or_else(|| std::env::temp_dir().into()))?;
    let bytes = (gigabytes * 1e9) as u64;
    let mut nodes = vec![Node::start(1, folder.path(), "-", bytes)?];
    for number in 2..=3 {
        let seed = nodes[0].address.clone();
        nodes.push(Node::start(number, folder.path(), &seed, 0)?);
    }
    let began = Instant::now();
    drop(nodes[0].process.stdin.take().map(|mut stdin| std::io::Write::write_all(&mut stdin, b"go\n")));
    let (mut rss, mut file) = ([0; 3], [0; 3]);
    let (told, written) = std::sync::mpsc::channel();
    let mut said = nodes[0].said.take().context("its output")?;
    std::thread::spawn(move || {
        let mut line = String::new();
        let read = said.read_line(&mut line);
        drop(told.send(read.map(|_| line)));
    });
    let line = loop {
        look(&nodes, folder.path(), &mut rss, &mut file)?;
        match written.recv_timeout(Duration::from_millis(100)) {
            Ok(line) => break line?,
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {}
            Err(error) => return Err(error.into()),
        }
    };
    print!("{line}");
    println!("{:.0} MB/s", bytes as f64 / 1e6 / began.elapsed().as_secs_f64());
    let megabytes = |all: [u64; 3]| all.map(|bytes| format!("{:.0}", bytes as f64 / 1e6)).join(" ");
    println!("most memory of n1 n2 n3: {} MB; largest file: {} MB", megabytes(rss), megabytes(file));
    std::thread::sleep(Duration::from_secs(2));
    (rss, file) = ([0; 3], [0; 3]);
    look(&nodes, folder.path(), &mut rss, &mut file)?;
    println!("two seconds later: {} MB; file {} MB", megabytes(rss), megabytes(file));
    drop(nodes.pop());
    nodes.push(Node::start(3, folder.path(), "-", 0)?);
    Ok(())
}

fn look(nodes: &[Node], folder: &Path, rss: &mut [u64; 3], file: &mut [u64; 3]) -> Result<()> {
    for (place, node) in nodes.iter().enumerate() {
        rss[place] = rss[place].max(node.rss()?);
        let log = folder.join(format!("n{}/raft.log", place + 1));
        file[place] = file[place].max(std::fs::metadata(log)?.len());
    }
    Ok(())
}

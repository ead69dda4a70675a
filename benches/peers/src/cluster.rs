//! Three processes of one system on loopback, and what the kernel says of them.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::time::sleep;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use quorate::NodeId;
use quorate::tls::{Authority, CallerRole, Issued, Subject};

use crate::etcd;
use crate::ours::{self, Way};

/// What is measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum System {
    /// etcd, with its heartbeat and election timeout in milliseconds.
    Etcd { program: PathBuf, heartbeat: u64, election: u64 },
    /// quorate's example daemon, with its `QUORATE_TIMING`.
    Quorate { name: &'static str, daemon: PathBuf, timing: String, way: Way },
}

impl System {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Etcd { .. } => "etcd",
            Self::Quorate { name, .. } => name,
        }
    }
}

/// One connection to one node of either system.
pub enum Client {
    Etcd(etcd::Client),
    Quorate(Box<ours::Client>),
}

impl Client {
    /// One more client on this connection, with unary calls.
    pub fn beside(&self) -> Self {
        match self {
            Self::Etcd(client) => Self::Etcd(client.clone()),
            Self::Quorate(client) => Self::Quorate(Box::new(client.beside())),
        }
    }

    pub async fn put(&mut self, key: &str, value: &[u8]) -> Result<()> {
        match self {
            Self::Etcd(client) => client.put(key, value).await,
            Self::Quorate(client) => client.put(key, value).await,
        }
    }

    pub async fn get(&mut self, key: &str) -> Result<()> {
        match self {
            Self::Etcd(client) => client.get(key).await,
            Self::Quorate(client) => client.get(key).await,
        }
    }

    pub async fn lock_and_unlock(&mut self, name: &str) -> Result<()> {
        match self {
            Self::Etcd(client) => client.lock_and_unlock(name).await,
            Self::Quorate(client) => client.lock_and_unlock(name).await,
        }
    }

    /// What a client needs before it takes locks.
    pub async fn open_session(&mut self) -> Result<()> {
        match self {
            // A lock here is a key without a lease.
            Self::Etcd(_) => Ok(()),
            Self::Quorate(client) => client.open_session().await,
        }
    }

    pub async fn close_session(&mut self) -> Result<()> {
        match self {
            Self::Etcd(_) => Ok(()),
            Self::Quorate(client) => client.close_session().await,
        }
    }

    async fn leads(&mut self) -> Result<bool> {
        match self {
            Self::Etcd(client) => client.leads().await,
            Self::Quorate(client) => client.leads(NODES).await,
        }
    }
}

pub const NODES: usize = 3;

/// Three processes. They end with this value.
pub struct Cluster {
    pub system: System,
    folder: PathBuf,
    nodes: Vec<Child>,
    keys: Option<Keys>,
}

/// What the clients of a cluster with TLS trust and show.
struct Keys {
    authority: Authority,
    operator: Issued,
}

impl Keys {
    const VALID: Duration = Duration::from_secs(24 * 3600);

    /// A new authority, and certificates for the nodes in `folder`.
    fn new(folder: &Path) -> Result<Self> {
        let authority = Authority::new("peers")?;
        for node in 0..NODES {
            let keys = folder.join(format!("keys{node}"));
            std::fs::create_dir_all(&keys)?;
            std::fs::write(keys.join("authority.pem"), authority.certificate())?;
            let issued = authority.issue(CallerRole::Node(NodeId::new(node as u64 + 1)), &[], Self::VALID)?;
            issued.write(keys.join("node.pem"), keys.join("node.key"))?;
        }
        let operator = authority.issue(CallerRole::Operator("bench".into()), &[], Self::VALID)?;
        Ok(Self { authority, operator })
    }

    fn of_client(&self) -> ClientTlsConfig {
        let Issued { certificate, key } = &self.operator;
        ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(self.authority.certificate()))
            .identity(Identity::from_pem(certificate, key))
            .domain_name(Subject::any_node(self.authority.cluster()))
    }
}

impl Cluster {
    /// Starts three nodes in new folders, and waits until one leads.
    pub async fn start(system: System, folder: &Path) -> Result<Self> {
        let folder = folder.join(system.name().replace(' ', "-"));
        let _there_before = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder)?;
        let with_tls = matches!(system, System::Quorate { way: Way::Tls, .. });
        let keys = with_tls.then(|| Keys::new(&folder)).transpose()?;
        let mut cluster = Self { system, folder, nodes: vec![], keys };
        for node in 0..NODES {
            let child = cluster.spawn(node, true)?;
            cluster.nodes.push(child);
            if matches!(cluster.system, System::Quorate { .. }) {
                cluster.ready(node).await?;
            }
        }
        cluster.leader().await?;
        Ok(cluster)
    }

    fn port(&self, node: usize) -> u16 {
        let base = if matches!(self.system, System::Etcd { .. }) { 23_791 } else { 17_401 };
        base + u16::try_from(node).unwrap_or(0)
    }

    pub fn address(&self, node: usize) -> String {
        format!("127.0.0.1:{}", self.port(node))
    }

    fn log(&self, node: usize) -> PathBuf {
        self.folder.join(format!("{node}.log"))
    }

    fn spawn(&self, node: usize, new: bool) -> Result<Child> {
        let (data, address) = (self.folder.join(node.to_string()), format!("127.0.0.1:{}", self.port(node)));
        let out = |append| File::options().create(true).append(append).write(true).open(self.log(node));
        let mut command = match &self.system {
            System::Etcd { program, heartbeat, election } => {
                let peer = |node: usize| format!("http://127.0.0.1:{}", 23_801 + node);
                let all: Vec<String> = (0..NODES).map(|node| format!("e{node}={}", peer(node))).collect();
                let client = format!("http://{address}");
                let mut command = Command::new(program);
                command.args(["--name", &format!("e{node}"), "--logger", "zap", "--log-level", "error"]);
                command.arg("--data-dir").arg(data);
                command.args(["--heartbeat-interval", &heartbeat.to_string()]);
                command.args(["--election-timeout", &election.to_string()]);
                command.args(["--listen-peer-urls", &peer(node), "--initial-advertise-peer-urls", &peer(node)]);
                command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
                command.args(["--initial-cluster", &all.join(",")]);
                command.args(["--initial-cluster-state", if new { "new" } else { "existing" }]);
                command
            }
            System::Quorate { daemon, timing, .. } => {
                let mut command = Command::new(daemon);
                command.arg((node + 1).to_string()).arg(data).arg(&address);
                match (new, node) {
                    (false, _) => command.arg("resume"),
                    (true, 0) => command.arg("found"),
                    (true, _) => command.args(["join", &format!("127.0.0.1:{}", self.port(0))]),
                };
                command.env("QUORATE_TIMING", timing).env("RUST_LOG", "warn,openraft=off");
                if self.keys.is_some() {
                    command.env("QUORATE_TLS", self.folder.join(format!("keys{node}")));
                }
                command
            }
        };
        command.stdin(Stdio::null()).stdout(out(true)?).stderr(out(true)?).kill_on_drop(true);
        command.spawn().with_context(|| format!("cannot start {command:?}"))
    }

    /// Waits until the daemon says that it is ready.
    async fn ready(&mut self, node: usize) -> Result<()> {
        for _ in 0..600 {
            if std::fs::read_to_string(self.log(node)).is_ok_and(|said| said.contains("ready ")) {
                return Ok(());
            }
            if let Some(status) = self.nodes[node].try_wait()? {
                bail!("node {node} ended with {status}: {}", std::fs::read_to_string(self.log(node))?);
            }
            sleep(Duration::from_millis(50)).await;
        }
        bail!("node {node} is not ready: {}", std::fs::read_to_string(self.log(node))?)
    }

    pub async fn client(&self, node: usize) -> Result<Client> {
        let scheme = if self.keys.is_some() { "https" } else { "http" };
        let mut endpoint = Endpoint::from_shared(format!("{scheme}://127.0.0.1:{}", self.port(node)))?;
        if let Some(keys) = &self.keys {
            endpoint = endpoint.tls_config(keys.of_client())?;
        }
        let channel: Channel = endpoint.tcp_nodelay(true).connect_timeout(Duration::from_millis(500)).connect().await?;
        Ok(match &self.system {
            System::Etcd { .. } => Client::Etcd(etcd::Client::new(channel)),
            System::Quorate { way, .. } => Client::Quorate(Box::new(ours::Client::new(channel, *way).await?)),
        })
    }

    /// The node that leads, once all of them are there.
    pub async fn leader(&self) -> Result<usize> {
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(90) {
            let mut leading = vec![];
            for node in 0..NODES {
                let asked = async { self.client(node).await?.leads().await };
                match tokio::time::timeout(Duration::from_secs(2), asked).await {
                    Ok(Ok(leads)) => leading.push(leads),
                    Ok(Err(_)) | Err(_) => break,
                }
            }
            let leaders: Vec<usize> = (0..leading.len()).filter(|node| leading[*node]).collect();
            if let ([leader], NODES) = (leaders.as_slice(), leading.len()) {
                return Ok(*leader);
            }
            sleep(Duration::from_millis(100)).await;
        }
        bail!("{}: no leader after 90 s", self.system.name())
    }

    pub fn pid(&self, node: usize) -> Result<u32> {
        self.nodes[node].id().with_context(|| format!("node {node} has ended"))
    }

    /// Ends a process with SIGKILL. Returns the instant at which that was asked for.
    pub async fn kill(&mut self, node: usize) -> Result<Instant> {
        let at = Instant::now();
        self.nodes[node].start_kill()?;
        self.nodes[node].wait().await?;
        Ok(at)
    }

    /// Sends a signal to a process. Returns the instant at which that was done.
    pub fn signal(&self, node: usize, signal: Signal) -> Result<Instant> {
        let id = i32::try_from(self.pid(node)?).ok().and_then(Pid::from_raw).context("a process id")?;
        let at = Instant::now();
        kill_process(id, signal)?;
        Ok(at)
    }

    /// Starts a node again that was killed, and waits until it is part of the cluster.
    pub async fn resume(&mut self, node: usize) -> Result<()> {
        self.nodes[node] = self.spawn(node, false)?;
        self.leader().await.map(drop)
    }

    pub fn usage(&self) -> Result<Vec<Usage>> {
        (0..NODES).map(|node| Usage::of(self.pid(node)?)).collect()
    }

    /// Ends all three.
    pub async fn stop(mut self) -> Result<()> {
        for node in &mut self.nodes {
            node.start_kill()?;
        }
        for node in &mut self.nodes {
            node.wait().await?;
        }
        Ok(())
    }
}

/// What a process has used so far.
#[derive(Debug, Clone, Copy)]
pub struct Usage {
    pub cpu: Duration,
    pub switches: u64,
    pub resident: u64,
}

impl Usage {
    pub fn of(pid: u32) -> Result<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let fields: Vec<&str> = stat.rsplit(')').next().context("stat")?.split_whitespace().collect();
        ensure!(fields.len() > 12, "/proc/{pid}/stat has {} fields", fields.len());
        let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
        let mut switches = 0;
        for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
            // A thread may end meanwhile.
            let Ok(status) = std::fs::read_to_string(task?.path().join("status")) else { continue };
            let counts = status.lines().filter(|line| line.contains("ctxt_switches"));
            switches += counts.filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).sum::<u64>();
        }
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let resident = resident.and_then(|line| line.split_whitespace().next()?.parse().ok()).context("VmRSS")?;
        let per_second = rustix::param::clock_ticks_per_second();
        Ok(Self { cpu: Duration::from_secs_f64(ticks as f64 / per_second as f64), switches, resident })
    }
}

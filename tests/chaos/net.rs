//! A network of its own for every run: a switch, and a cable to each host.
//!
//! ```text
//!   q4711-s   ┌────────────── br0 ──────────────┐          a namespace for the switch, so that the machine's own
//!             p1              p2               p3          network sees nothing of it
//!             │               │                │
//!   q4711-h1  eth0  q4711-h2  eth0   q4711-h3  eth0        10.77.0.1 … 10.77.0.5
//! ```
//!
//! Every host has the hardware address of every other written down, so nobody has to ask for it. A direction is cut by
//! writing down one that nobody has: what is sent that way is delivered to nobody, without a word to the sender, and the
//! other direction is as it was. A cable is pulled at the switch's end, so that the host sees its link go down.
//!
//! Several faults may cut the same way at a time; it is open again when the last of them is over.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

/// The port that every host listens on.
pub(crate) const PORT: u16 = 7400;

/// The namespaces, and what is cut just now. Dropping it removes them.
#[derive(Debug)]
pub(crate) struct Net {
    prefix: String,
    hosts: u64,
    /// How many faults cut the way from one host to another.
    cut: BTreeMap<(u64, u64), u32>,
    /// How many have pulled a host's cable.
    pulled: BTreeMap<u64, u32>,
    /// How many have switched the switch off.
    dark: u32,
}

impl Drop for Net {
    fn drop(&mut self) {
        let names = (1..=self.hosts).map(|host| self.host(host)).chain([self.switch()]);
        for name in names.collect::<Vec<_>>() {
            if let Err(error) = run("ip", &["netns", "del", &name]) {
                eprintln!("{name} was not removed: {error:#}");
            }
        }
    }
}

/// Runs a program and says what it said, should it have failed.
pub(crate) fn run(program: &str, args: &[&str]) -> Result<()> {
    let told = || format!("{program} {}", args.join(" "));
    let output = Command::new(program).args(args).stdin(Stdio::null()).output().with_context(told)?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {}, {}", told(), output.status, said.trim());
    Ok(())
}

fn hardware(host: u64) -> String {
    format!("02:00:00:00:00:{host:02x}")
}

fn address(host: u64) -> String {
    format!("10.77.0.{host}")
}

/// A hardware address that nobody has.
const NOBODY: &str = "02:00:00:00:ff:ff";

impl Net {
    /// The switch and its hosts, all of them connected.
    pub(crate) fn new(hosts: u64) -> Result<Self> {
        let prefix = format!("q{}", std::process::id());
        let net = Self { prefix, hosts, cut: BTreeMap::new(), pulled: BTreeMap::new(), dark: 0 };
        let switch = net.switch();
        run("ip", &["netns", "add", &switch])?;
        let bridge = ["link", "add", "br0", "type", "bridge", "stp_state", "0", "forward_delay", "0"];
        net.at(&switch, &bridge)?;
        net.at(&switch, &["link", "set", "br0", "up"])?;
        for host in 1..=hosts {
            let (name, port) = (net.host(host), format!("p{host}"));
            run("ip", &["netns", "add", &name])?;
            let (hardware, address) = (hardware(host), format!("{}/24", address(host)));
            let near = ["link", "add", "name", "eth0", "netns", &name, "address", &hardware];
            let far = ["type", "veth", "peer", "name", &port, "netns", &switch];
            run("ip", &[&near[..], &far[..]].concat())?;
            net.at(&switch, &["link", "set", &port, "master", "br0", "up"])?;
            net.at(&name, &["addr", "add", &address, "dev", "eth0"])?;
            net.at(&name, &["link", "set", "lo", "up"])?;
            net.at(&name, &["link", "set", "eth0", "up"])?;
        }
        for (from, to) in net.ways().collect::<Vec<_>>() {
            net.point(from, to)?;
        }
        Ok(net)
    }

    /// Where a host listens, seen by the others.
    pub(crate) fn address(&self, host: u64) -> String {
        format!("{}:{PORT}", address(host))
    }

    /// What runs a program on a host, in the same process.
    pub(crate) fn command(&self, host: u64, program: &std::path::Path) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.host(host)]).arg(program);
        command
    }

    /// Every way between two hosts.
    pub(crate) fn ways(&self) -> impl Iterator<Item = (u64, u64)> + use<> {
        let hosts = self.hosts;
        (1..=hosts).flat_map(move |from| (1..=hosts).filter(move |to| *to != from).map(move |to| (from, to)))
    }

    /// Cuts a way, or opens it again.
    pub(crate) fn cut(&mut self, from: u64, to: u64, cut: bool) -> Result<()> {
        count(self.cut.entry((from, to)).or_default(), cut);
        self.point(from, to)
    }

    /// Pulls a host's cable, or puts it back.
    pub(crate) fn pull(&mut self, host: u64, pulled: bool) -> Result<()> {
        let by = self.pulled.entry(host).or_default();
        count(by, pulled);
        let state = if *by > 0 { "down" } else { "up" };
        self.at(&self.switch(), &["link", "set", &format!("p{host}"), state])
    }

    /// Switches the switch off, or on again.
    pub(crate) fn darken(&mut self, dark: bool) -> Result<()> {
        count(&mut self.dark, dark);
        let state = if self.dark > 0 { "down" } else { "up" };
        self.at(&self.switch(), &["link", "set", "br0", state])
    }

    /// Writes down where `to` is found by `from`: nowhere, if that way is cut.
    fn point(&self, from: u64, to: u64) -> Result<()> {
        let cut = self.cut.get(&(from, to)).is_some_and(|by| *by > 0);
        let hardware = if cut { NOBODY.to_string() } else { hardware(to) };
        let entry = ["neigh", "replace", &address(to), "lladdr", &hardware, "dev", "eth0", "nud", "permanent"];
        self.at(&self.host(from), &entry)
    }

    fn at(&self, namespace: &str, args: &[&str]) -> Result<()> {
        run("ip", &[&["-n", namespace], args].concat())
    }

    /// The namespace of the switch.
    pub(crate) fn switch(&self) -> String {
        format!("{}-s", self.prefix)
    }

    /// The namespace of a host.
    pub(crate) fn host(&self, host: u64) -> String {
        format!("{}-h{host}", self.prefix)
    }
}

fn count(by: &mut u32, more: bool) {
    *by = if more { *by + 1 } else { by.saturating_sub(1) };
}

//! One network of its own for every run, or two: a switch for each, and a cable to each host.
//!
//! ```text
//!   q4711-s   ┌────────────── br0 ──────────────┐          a namespace for the switches, so that the machine's own
//!             p1.0            p2.0             p3.0        network sees nothing of them
//!             │               │                │
//!   q4711-h1  eth0  q4711-h2  eth0   q4711-h3  eth0        10.77.0.1 … 10.77.0.5
//!             eth1            eth1             eth1        10.78.0.1 … in the second network, over br1
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
    networks: u64,
    /// How many faults cut the way from one host to another, in a network.
    cut: BTreeMap<(u64, u64, u64), u32>,
    /// How many have pulled a host's cable of a network.
    pulled: BTreeMap<(u64, u64), u32>,
    /// How many have switched off the switch of a network.
    dark: BTreeMap<u64, u32>,
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

fn hardware(network: u64, host: u64) -> String {
    format!("02:00:00:00:{network:02x}:{host:02x}")
}

fn address(network: u64, host: u64) -> String {
    format!("10.{}.0.{host}", 77 + network)
}

/// A host's card in a network.
pub(crate) fn card(network: u64) -> String {
    format!("eth{network}")
}

/// The switch's end of a host's cable.
pub(crate) fn plug(network: u64, host: u64) -> String {
    format!("p{host}.{network}")
}

/// A hardware address that nobody has.
const NOBODY: &str = "02:00:00:00:ff:ff";

impl Net {
    /// A switch and its hosts, all of them connected.
    pub(crate) fn new(hosts: u64) -> Result<Self> {
        Self::with_networks(hosts, 1)
    }

    /// The same with so many switches, each connected to all hosts.
    pub(crate) fn with_networks(hosts: u64, networks: u64) -> Result<Self> {
        let prefix = format!("q{}", std::process::id());
        let (cut, pulled, dark) = Default::default();
        let net = Self { prefix, hosts, networks, cut, pulled, dark };
        run("ip", &["netns", "add", &net.switch()])?;
        for host in 1..=hosts {
            run("ip", &["netns", "add", &net.host(host)])?;
            net.at(&net.host(host), &["link", "set", "lo", "up"])?;
        }
        (0..networks).try_for_each(|network| net.build(network))?;
        Ok(net)
    }

    fn build(&self, network: u64) -> Result<()> {
        let (switch, bridge, card) = (self.switch(), format!("br{network}"), card(network));
        self.at(&switch, &["link", "add", &bridge, "type", "bridge", "stp_state", "0", "forward_delay", "0"])?;
        self.at(&switch, &["link", "set", &bridge, "up"])?;
        for host in 1..=self.hosts {
            let (name, plug) = (self.host(host), plug(network, host));
            let (hardware, address) = (hardware(network, host), format!("{}/24", address(network, host)));
            let near = ["link", "add", "name", &card, "netns", &name, "address", &hardware];
            let far = ["type", "veth", "peer", "name", &plug, "netns", &switch];
            run("ip", &[&near[..], &far[..]].concat())?;
            self.at(&switch, &["link", "set", &plug, "master", &bridge, "up"])?;
            self.at(&name, &["addr", "add", &address, "dev", &card])?;
            self.at(&name, &["link", "set", &card, "up"])?;
        }
        self.ways().try_for_each(|(from, to)| self.point(network, from, to))
    }

    /// Where a host listens, seen by the others: an address for each network.
    pub(crate) fn addresses(&self, host: u64) -> Vec<String> {
        (0..self.networks).map(|network| format!("{}:{PORT}", address(network, host))).collect()
    }

    /// Where a host listens in the first network.
    pub(crate) fn address(&self, host: u64) -> String {
        format!("{}:{PORT}", address(0, host))
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
        self.cut_in(0, from, to, cut)
    }

    /// The same in one of several networks.
    pub(crate) fn cut_in(&mut self, network: u64, from: u64, to: u64, cut: bool) -> Result<()> {
        count(self.cut.entry((network, from, to)).or_default(), cut);
        self.point(network, from, to)
    }

    /// Pulls a host's cable, or puts it back.
    pub(crate) fn pull(&mut self, host: u64, pulled: bool) -> Result<()> {
        self.pull_in(0, host, pulled)
    }

    /// The same in one of several networks.
    pub(crate) fn pull_in(&mut self, network: u64, host: u64, pulled: bool) -> Result<()> {
        let by = self.pulled.entry((network, host)).or_default();
        count(by, pulled);
        let state = if *by > 0 { "down" } else { "up" };
        self.at(&self.switch(), &["link", "set", &plug(network, host), state])
    }

    /// Switches the switch off, or on again.
    pub(crate) fn darken(&mut self, dark: bool) -> Result<()> {
        self.darken_in(0, dark)
    }

    /// The same of one of several networks.
    pub(crate) fn darken_in(&mut self, network: u64, dark: bool) -> Result<()> {
        let by = self.dark.entry(network).or_default();
        count(by, dark);
        let state = if *by > 0 { "down" } else { "up" };
        self.at(&self.switch(), &["link", "set", &format!("br{network}"), state])
    }

    /// Writes down where `to` is found by `from`: nowhere, if that way is cut.
    fn point(&self, network: u64, from: u64, to: u64) -> Result<()> {
        let cut = self.cut.get(&(network, from, to)).is_some_and(|by| *by > 0);
        let hardware = if cut { NOBODY.to_string() } else { hardware(network, to) };
        let (address, card) = (address(network, to), card(network));
        let entry = ["neigh", "replace", &address, "lladdr", &hardware, "dev", &card, "nud", "permanent"];
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

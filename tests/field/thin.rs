//! Thin links: a token bucket on the way out of a host, or on both ways, with a queue of 0.4 s.

use std::process::Command;

use anyhow::{Context, Result};

use crate::net::{Net, run};

impl Net {
    /// Makes the way out of a host thin, with a queue of 0.4 s.
    pub(crate) fn thin_out(&self, host: u64, rate: &str) -> Result<()> {
        self.shape(&self.host(host), "eth0", rate)
    }

    /// Makes both ways between a host and the switch thin.
    pub(crate) fn thin_both(&self, host: u64, rate: &str) -> Result<()> {
        self.thin_out(host, rate)?;
        self.shape(&self.switch(), &format!("p{host}"), rate)
    }

    fn shape(&self, namespace: &str, device: &str, rate: &str) -> Result<()> {
        let place = ["-n", namespace, "qdisc", "replace", "dev", device, "root"];
        run("tc", &[&place[..], &["tbf", "rate", rate, "burst", "32kb", "latency", "400ms"]].concat())
    }

    /// The bytes that a host has sent.
    pub(crate) fn sent(&self, host: u64) -> Result<u64> {
        let file = "/sys/class/net/eth0/statistics/tx_bytes";
        let output = Command::new("ip").args(["netns", "exec", &self.host(host), "cat", file]).output()?;
        String::from_utf8_lossy(&output.stdout).trim().parse().with_context(|| format!("{file} of host {host}"))
    }
}

//! Thin links: a token bucket on the way out of a host, or on both ways, with a queue of 0.4 s. And ways that lose large packets
//! without a word: a bucket that is smaller than they are.

use std::process::Command;

use anyhow::{Context, Result};

use crate::net::{Net, card, plug, run};

/// With a queue of 0.4 s.
const SLOW: [&str; 4] = ["burst", "32kb", "latency", "400ms"];

/// Holds no packet of more than 1 000 bytes.
const SMALL: [&str; 4] = ["burst", "1000b", "latency", "400ms"];

impl Net {
    /// Makes the way out of a host thin, with a queue of 0.4 s.
    pub(crate) fn thin_out(&self, host: u64, rate: &str) -> Result<()> {
        self.shape(&self.host(host), &card(0), rate, &SLOW)
    }

    /// Makes both ways between a host and the switch thin.
    pub(crate) fn thin_both(&self, host: u64, rate: &str) -> Result<()> {
        self.thin_out(host, rate)?;
        self.shape(&self.switch(), &plug(0, host), rate, &SLOW)
    }

    /// Loses each large packet that a host sends in a network, or no more.
    pub(crate) fn lose_large(&self, network: u64, host: u64, lost: bool) -> Result<()> {
        match lost {
            true => self.shape(&self.host(host), &card(network), "1gbit", &SMALL),
            false => run("tc", &["-n", &self.host(host), "qdisc", "del", "dev", &card(network), "root"]),
        }
    }

    fn shape(&self, namespace: &str, device: &str, rate: &str, bucket: &[&str]) -> Result<()> {
        let place = ["-n", namespace, "qdisc", "replace", "dev", device, "root"];
        run("tc", &[&place[..], &["tbf", "rate", rate], bucket].concat())
    }

    /// The bytes that a host has sent in the first network.
    pub(crate) fn sent(&self, host: u64) -> Result<u64> {
        self.counted(host, "tx_bytes")
    }

    /// The bytes that a host was sent there.
    pub(crate) fn received(&self, host: u64) -> Result<u64> {
        self.counted(host, "rx_bytes")
    }

    fn counted(&self, host: u64, what: &str) -> Result<u64> {
        let file = format!("/sys/class/net/{}/statistics/{what}", card(0));
        let output = Command::new("ip").args(["netns", "exec", &self.host(host), "cat", &file]).output()?;
        String::from_utf8_lossy(&output.stdout).trim().parse().with_context(|| format!("{file} of host {host}"))
    }
}

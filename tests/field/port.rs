//! A port that is closed one way: what goes to it vanishes on the switch's side of the host's cable. What the host itself
//! opens passes, with its answers.
//!
//! ```text
//!   p2 ── htb ─┬─ 1:1  everything else
//!              └─ 1:9  to the port (all of it, or only what opens a connection) ── blackhole
//! ```

use std::process::Command;

use anyhow::Result;

use crate::net::{Net, PORT, plug, run};

/// What of the traffic to the port is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dropped {
    /// Every packet.
    All,
    /// What opens a connection. Those that stand are ended once, as a firewall does that is started anew.
    New,
}

impl Net {
    /// Closes the port of a host.
    pub(crate) fn close_port(&self, host: u64, dropped: Dropped) -> Result<()> {
        let (switch, device, port) = (self.switch(), plug(0, host), PORT.to_string());
        let tc = |args: &[&str]| run("tc", &[&["-n", &switch], args].concat());
        tc(&["qdisc", "replace", "dev", &device, "root", "handle", "1:", "htb", "default", "1"])?;
        for (class, rate) in [("1:1", "10gbit"), ("1:9", "1mbit")] {
            tc(&[
                "class", "add", "dev", &device, "parent", "1:", "classid", class, "htb", "rate", rate, "quantum",
                "60000",
            ])?;
        }
        tc(&["qdisc", "add", "dev", &device, "parent", "1:9", "handle", "9:", "blackhole"])?;
        let to_port = ["match", "ip", "protocol", "6", "0xff", "match", "ip", "dport", &port, "0xffff"];
        // SYN without ACK, behind an IP header without options.
        let opens: &[&str] = match dropped {
            Dropped::All => &[],
            Dropped::New => &["match", "u8", "0x02", "0x12", "at", "33"],
        };
        let filter = ["filter", "add", "dev", &device, "parent", "1:", "protocol", "ip", "u32"];
        tc(&[&filter[..], &to_port, opens, &["flowid", "1:9"]].concat())?;
        if dropped == Dropped::New {
            let ended =
                ["netns", "exec", &self.host(host), "ss", "-K", "-t", "state", "established", "sport", "=", &port];
            run("ip", &ended)?;
        }
        Ok(())
    }

    /// Opens the port again.
    pub(crate) fn open_port(&self, host: u64) -> Result<()> {
        run("tc", &["-n", &self.switch(), "qdisc", "del", "dev", &plug(0, host), "root"])
    }

    /// How many connections of others a host has.
    pub(crate) fn inbound(&self, host: u64) -> Result<usize> {
        let filter = ["ss", "-Hnt", "state", "established", "sport", "=", &PORT.to_string()];
        let output = Command::new("ip").args(["netns", "exec", &self.host(host)]).args(filter).output()?;
        Ok(String::from_utf8_lossy(&output.stdout).lines().count())
    }
}

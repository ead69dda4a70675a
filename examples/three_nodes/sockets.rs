//! Which process owns a socket, according to the kernel's tables of TCP connections.
//!
//! ```text
//!   /proc/net/tcp:  127.0.0.1:50122 ─▶ 127.0.0.1:40001   inode 88231
//!   /proc/4711/fd:  17 ─▶ socket:[88231]                 so the caller is n1, which is process 4711
//! ```

use std::collections::BTreeSet;
use std::io::ErrorKind;

use anyhow::{Context, Result};

/// The kernel's state code of a listening socket.
const LISTENS: &str = "0A";

/// One end of a connection, or a listening socket.
struct Row<'a> {
    local: u16,
    remote: u16,
    state: &'a str,
    inode: u64,
}

fn row(line: &str) -> Option<Row<'_>> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let port = |at: usize| u16::from_str_radix(fields.get(at)?.rsplit_once(':')?.1, 16).ok();
    Some(Row { local: port(1)?, remote: port(2)?, state: fields.get(3)?, inode: fields.get(9)?.parse().ok()? })
}

fn table() -> Result<String> {
    std::fs::read_to_string("/proc/net/tcp").context("reading /proc/net/tcp, which lists the connections")
}

/// The inodes of a process's open sockets; empty if the process is gone.
fn sockets_of(pid: i32) -> Result<BTreeSet<u64>> {
    let mut found = BTreeSet::new();
    let all = match std::fs::read_dir(format!("/proc/{pid}/fd")) {
        Ok(all) => all,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(found),
        Err(error) => return Err(error).with_context(|| format!("the sockets of {pid}")),
    };
    for entry in all {
        // The file was closed during the walk, or its process ended.
        let Ok(target) = entry.and_then(|entry| std::fs::read_link(entry.path())) else { continue };
        let inode: Option<u64> =
            target.to_str().and_then(|t| t.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
        found.extend(inode);
    }
    Ok(found)
}

/// The node in `processes` (pairs of a node and its process) that has called from port `from` to port `to`.
pub(crate) fn caller(from: u16, to: u16, processes: &[(u64, i32)]) -> Result<Option<u64>> {
    let table = table()?;
    let mut rows = table.lines().filter_map(row);
    let Some(inode) = rows.find(|row| row.local == from && row.remote == to).map(|row| row.inode) else {
        return Ok(None);
    };
    for (node, pid) in processes {
        if sockets_of(*pid)?.contains(&inode) {
            return Ok(Some(*node));
        }
    }
    Ok(None)
}

/// The port on which a process listens; `None` if it does not listen.
pub(crate) fn listens_on(pid: i32) -> Result<Option<u16>> {
    let own = sockets_of(pid)?;
    let table = table()?;
    let mut rows = table.lines().filter_map(row);
    Ok(rows.find(|row| row.state == LISTENS && own.contains(&row.inode)).map(|row| row.local))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn the_kernel_tells_who_calls_and_where_somebody_listens() {
        let me = i32::try_from(std::process::id()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(listens_on(me).unwrap(), Some(port));
        let calling = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let from = calling.local_addr().unwrap().port();
        assert_eq!(caller(from, port, &[(8, i32::MAX), (7, me)]).unwrap(), Some(7));
        assert_eq!(caller(from, port, &[]).unwrap(), None);
    }
}

//! How many connections a server allows, by the descriptors that its process may open.
//!
//! ```text
//!   connections of clients + the reserve, three times (on trial, nodes, operators) + the rest of the process
//!      ──▶ the soft limit, raised as far as the hard one allows
//! ```

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::settings::ServerSettings;

/// How many descriptors the rest of the process may use: the log, its own connections, what the consumer opens.
const OTHER_DESCRIPTORS: u64 = 256;

/// Raises the soft limit of descriptors of this process, as far as the connections need it and the hard limit allows.
/// Allows fewer connections where that is not enough.
///
/// # Errors
/// When the limit leaves no room for even the fewest connections: it names the limit, and what is needed.
pub(crate) fn fit_descriptors(settings: ServerSettings) -> io::Result<ServerSettings> {
    let limit = getrlimit(Resource::Nofile);
    let reserve = settings.peer_reserve as u64 * 3 + OTHER_DESCRIPTORS;
    let wanted = settings.max_connections as u64 + reserve;
    let (soft, hard) = (limit.current.unwrap_or(u64::MAX), limit.maximum.unwrap_or(u64::MAX));
    let mut allowed = soft;
    if soft < wanted {
        let raised = wanted.min(hard);
        match setrlimit(Resource::Nofile, Rlimit { current: Some(raised), maximum: limit.maximum }) {
            Ok(()) => allowed = raised,
            Err(error) => tracing::warn!(%error, soft, raised, "the limit of descriptors cannot be raised"),
        }
    }
    connections_within(settings, allowed, reserve)
}

/// The settings with as many connections as this limit of descriptors allows.
fn connections_within(settings: ServerSettings, allowed: u64, reserve: u64) -> io::Result<ServerSettings> {
    let room = usize::try_from(allowed.saturating_sub(reserve)).unwrap_or(usize::MAX);
    if room >= settings.max_connections {
        return Ok(settings);
    }
    let fewer = ServerSettings { max_connections: room, ..settings };
    if fewer.bounded().max_connections != room {
        return Err(io::Error::other(format!(
            "this process may open {allowed} files, and a server needs {} at least; raise its limit (ulimit -n, LimitNOFILE)",
            reserve + 16
        )));
    }
    tracing::warn!(allowed, max_connections = room, "fewer connections are allowed: raise the limit of open files");
    Ok(fewer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_connections_are_allowed_as_there_are_descriptors_for() {
        let settings = ServerSettings::default();
        let within = |allowed| connections_within(settings, allowed, 448).map(|fit| fit.max_connections);
        assert_eq!(within(1_048_576).unwrap(), 1024);
        assert_eq!(within(1024).unwrap(), 576);
        let refused = within(256).unwrap_err().to_string();
        assert!(refused.contains("256 files") && refused.contains("464") && refused.contains("ulimit"), "{refused}");
    }
}

//! A snapshot in pieces, and how far they have been handed to the connection, so that it may take as long as it makes progress.
//!
//! ```text
//!   pieces ──▶ noted ──▶ HTTP/2 flow control ──▶ the receiver
//!                └─ none for `silence`, or the last one and no answer for four times as long: given up
//! ```
//!
//! A fixed end for the whole would make a snapshot that needs longer than that begin anew for ever. On a link of 3 Mbit/s that
//! is every snapshot of more than 11 MB, were the end 30 s.
//!
//! A connection that breaks still costs what was sent on it.
//!
//! A piece is taken when the receiver has room for it, up to what the sockets buffer, which at 1 Mbit/s is half a minute.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use parking_lot::Mutex;
use prost::Message as _;
use quorate_raft_core::TransportError;
use quorate_raft_core::rpc::InstallSnapshot;
use tokio::time::{Instant, sleep_until};

use crate::grpc_errors::check_size;
use crate::pb;
use crate::settings::{CHUNK_LIMIT, MESSAGE_LIMIT, SNAPSHOT_LIMIT};

/// How far the pieces are: when the last one was taken, and whether that was the end.
#[derive(Debug, Clone)]
pub(crate) struct Progress {
    inside: Arc<Mutex<(Instant, bool)>>,
    silence: Duration,
}

impl Progress {
    /// Nothing was taken yet.
    pub(crate) fn new(silence: Duration) -> Self {
        Self { inside: Arc::new(Mutex::new((Instant::now(), false))), silence }
    }

    /// The same pieces, each noted when it is taken.
    pub(crate) fn noting<T, S>(&self, pieces: S) -> impl Stream<Item = T> + Send + use<T, S>
    where
        T: Send + 'static,
        S: Stream<Item = T> + Send,
    {
        let (each, end) = (self.inside.clone(), self.inside.clone());
        let noted = pieces.inspect(move |_| each.lock().0 = Instant::now());
        let ended = stream::once(async move {
            *end.lock() = (Instant::now(), true);
            None
        });
        noted.map(Some).chain(ended).filter_map(std::future::ready)
    }

    /// Returns when it has stood still for too long.
    pub(crate) async fn stalled(&self) {
        loop {
            let (at, ended) = *self.inside.lock();
            let end = at + if ended { self.silence * 4 } else { self.silence };
            if Instant::now() >= end {
                return;
            }
            sleep_until(end).await;
        }
    }
}

/// The size of a piece: small, so that a thin link shows progress and sends other streams in between.
const PIECE: usize = CHUNK_LIMIT / 4;

/// A snapshot as the messages of its stream: a header, then pieces.
pub(crate) fn snapshot_messages(
    caller: Option<pb::Caller>,
    request: InstallSnapshot,
) -> Result<impl Stream<Item = pb::SnapshotRequest> + Send + 'static, TransportError> {
    use pb::snapshot_request::Message;
    let InstallSnapshot { ballot, meta, data } = request;
    check_size(data.len(), SNAPSHOT_LIMIT, "the snapshot")?;
    let header = pb::SnapshotHeader {
        caller,
        ballot: Some(ballot.into()),
        meta: Some(meta.into()),
        length: data.len() as u64,
        crc32c: crc32c::crc32c(&data),
    };
    check_size(header.encoded_len(), MESSAGE_LIMIT, "the header of the snapshot")?;
    let data = Bytes::from_owner(data);
    let chunks = (0..data.len()).step_by(PIECE).map(move |from| {
        let to = data.len().min(from + PIECE);
        Message::Chunk(data.slice(from..to))
    });
    let messages = std::iter::once(Message::Header(header)).chain(chunks);
    Ok(stream::iter(messages).map(|message| pb::SnapshotRequest { message: Some(message) }))
}

//! Calls of other nodes to this engine: entries, votes, snapshots and transfers of leadership. The gate has admitted
//! the caller before (`member/gate.rs`).

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use openraft::Snapshot;
use quorate_membership::NodeId;

use crate::engine::Engine;
use crate::engine::state_machine::check_received;
use crate::engine::types::{
    OrTransfer, OrVoteRequest, OrVoteResponse, append_to, appended_from, log_id_from, log_id_to, snapshot_meta_to,
    stream_from, transferred_from, vote_from, vote_to,
};
use crate::error::Refusal;
use crate::rpc::{
    Append, Appended, Ballot, InstallSnapshot, StreamAppended, Transfer, Transferred, VoteAnswer, VoteRequest,
};

fn ended(error: impl std::fmt::Display) -> Refusal {
    Refusal::Stopped(error.to_string())
}

fn malformed(error: impl std::fmt::Display) -> Refusal {
    Refusal::Malformed(error.to_string())
}

fn vote_request(request: VoteRequest) -> OrVoteRequest {
    let mut made = OrVoteRequest::new(vote_to(request.ballot), request.last.map(log_id_to));
    made.leadership_transfer = request.transfer;
    made
}

fn vote_answer(answer: &OrVoteResponse) -> VoteAnswer {
    let last = answer.last_log_id.as_ref().map(log_id_from);
    VoteAnswer { ballot: vote_from(&answer.vote), granted: answer.vote_granted, last }
}

impl Engine {
    /// Handles one batch of entries, or a heartbeat.
    pub(crate) async fn append(&self, request: Append) -> Result<Appended, Refusal> {
        if request.renewed.is_none() {
            // A leader of another build: a quorum may confirm its reads without a note.
            self.0.peers.receipts.note_voters();
        }
        self.0.peers.receipts.note_append(&request, self.applied());
        let request = append_to(request).map_err(malformed)?;
        let answer = self.0.raft.append_entries(request).await.map_err(ended)?;
        Ok(appended_from(&answer))
    }

    /// Handles a stream of batches from `from`, and notes each batch as contact.
    pub(crate) fn append_stream(
        &self,
        from: NodeId,
        requests: BoxStream<'static, Append>,
    ) -> BoxStream<'static, Result<StreamAppended, Refusal>> {
        let peers = self.0.peers.clone();
        let (receipts, applied) = (self.0.peers.receipts.clone(), self.progress());
        let noted = requests.inspect(move |request| receipts.note_append(request, *applied.borrow()));
        let requests = noted.map(append_to).take_while(move |request| {
            peers.contacts.note_call(from);
            let sound = request.is_ok();
            if let Err(error) = request {
                tracing::warn!(%from, %error, "malformed entry; the stream is ended");
            }
            std::future::ready(sound)
        });
        let requests = requests.filter_map(|request| std::future::ready(request.ok()));
        let answers = self.0.raft.stream_append(requests);
        answers.map(|answer| answer.map(|a| stream_from(&a)).map_err(ended)).boxed()
    }

    /// Handles a request for a vote.
    pub(crate) async fn vote(&self, request: VoteRequest) -> Result<VoteAnswer, Refusal> {
        self.0.raft.vote(vote_request(request)).await.map(|a| vote_answer(&a)).map_err(ended)
    }

    /// Handles a pre-vote: whether this node would vote for the caller.
    pub(crate) async fn pre_vote(&self, request: VoteRequest) -> Result<VoteAnswer, Refusal> {
        let last = request.last;
        let answer = self.0.raft.pre_vote(vote_request(request)).await.map(|a| vote_answer(&a)).map_err(ended)?;
        if quorate_membership::mutant!("pre_vote_always") {
            return Ok(VoteAnswer { granted: true, last, ..answer });
        }
        Ok(answer)
    }

    /// Installs a snapshot that can be decoded, and refuses any other.
    pub(crate) async fn install_snapshot(&self, request: InstallSnapshot) -> Result<Ballot, Refusal> {
        check_received(request.data.clone()).await.map_err(malformed)?;
        let meta = snapshot_meta_to(&request.meta).map_err(malformed)?;
        self.0.peers.receipts.note_voters();
        let snapshot = Snapshot { meta, snapshot: request.data };
        let answer = self.0.raft.install_full_snapshot(vote_to(request.ballot), snapshot).await.map_err(ended)?;
        Ok(vote_from(&answer.vote))
    }

    /// Takes leadership over at the request of the leader.
    pub(crate) async fn take_over(&self, request: Transfer) -> Result<Transferred, Refusal> {
        let request = OrTransfer::new(vote_to(request.from), request.to.get(), request.last.map(log_id_to));
        self.0.raft.handle_transfer_leader(request).await.map(transferred_from).map_err(ended)
    }
}

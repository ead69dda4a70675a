//! A client of quorate: unary calls, or the same calls on one stream ([`Way`]).

use anyhow::{Context, Result, anyhow, bail};
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::transport::Channel;

use self::pb::client_answer::Answer;
use self::pb::client_call::Call;
use self::pb::cluster_client::ClusterClient;
use self::pb::store_client::StoreClient;

#[allow(clippy::all, dead_code, reason = "generated from proto/quorate/v1")]
mod pb {
    tonic::include_proto!("quorate.v1");
}

/// How a client makes its calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Unary,
    Stream,
    /// As `Stream`, over mutual TLS, between the nodes as well.
    Tls,
}

/// One connection to one node.
pub struct Client {
    cluster: ClusterClient<Channel>,
    store: StoreClient<Channel>,
    stream: Option<Calls>,
    session: u64,
}

/// A stream of calls, one at a time.
struct Calls {
    send: mpsc::UnboundedSender<pb::ClientCall>,
    answers: tonic::Streaming<pb::CallsResponse>,
    number: u64,
}

impl Calls {
    async fn open(mut store: StoreClient<Channel>) -> Result<Self> {
        let (send, calls) = mpsc::unbounded_channel();
        let messages = UnboundedReceiverStream::new(calls).map(|call| pb::CallsRequest { calls: vec![call] });
        let answers = store.calls(messages).await?.into_inner();
        Ok(Self { send, answers, number: 0 })
    }

    async fn call(&mut self, call: Call) -> Result<Answer> {
        self.number += 1;
        let call = pb::ClientCall { number: self.number, timeout_ms: 0, call: Some(call) };
        self.send.send(call).map_err(|_| anyhow!("the stream has ended"))?;
        loop {
            let message = self.answers.message().await?.context("the stream has ended")?;
            let Some(own) = message.answers.into_iter().find(|answer| answer.number == self.number) else { continue };
            return match own.answer.context("an answer of an unknown kind")? {
                Answer::Failed(failed) => bail!("{}", failed.message),
                answer => Ok(answer),
            };
        }
    }
}

fn put(key: &str, value: &[u8]) -> pb::WriteRequest {
    let put = pb::Put { key: key.into(), value: value.into(), bound: None };
    let change = pb::Change { change: Some(pb::change::Change::Put(put)) };
    pb::WriteRequest { name: None, checks: vec![], changes: vec![change] }
}

impl Client {
    pub async fn new(channel: Channel, way: Way) -> Result<Self> {
        let store = StoreClient::new(channel.clone());
        let stream = match way {
            Way::Unary => None,
            Way::Stream | Way::Tls => Some(Calls::open(store.clone()).await?),
        };
        Ok(Self { cluster: ClusterClient::new(channel), store, stream, session: 0 })
    }

    /// One more client on this connection, with unary calls.
    pub fn beside(&self) -> Self {
        Self { cluster: self.cluster.clone(), store: self.store.clone(), stream: None, session: self.session }
    }

    pub async fn open_session(&mut self) -> Result<()> {
        let request =
            pb::OpenSessionRequest { name: None, ttl_ms: 60_000, lock_delay_ms: 0, label: "the benchmark".into() };
        self.session = self.store.open_session(request).await?.into_inner().session;
        Ok(())
    }

    pub async fn close_session(&mut self) -> Result<()> {
        self.store.close_session(pb::CloseSessionRequest { session: self.session }).await?;
        Ok(())
    }

    pub async fn put(&mut self, key: &str, value: &[u8]) -> Result<()> {
        let request = put(key, value);
        match &mut self.stream {
            Some(stream) => stream.call(Call::Write(request)).await.map(drop),
            None => Ok(self.store.write(request).await.map(drop)?),
        }
    }

    /// Linearizable.
    pub async fn get(&mut self, key: &str) -> Result<()> {
        let reading = Some(pb::Reading { linearizable: true, timeout_ms: 0 });
        let request = pb::GetRequest { key: key.into(), reading };
        let found = match &mut self.stream {
            Some(stream) => match stream.call(Call::Get(request)).await? {
                Answer::Get(found) => found,
                _ => bail!("another kind of answer"),
            },
            None => self.store.get(request).await?.into_inner(),
        };
        found.record.map(drop).with_context(|| format!("no {key}"))
    }

    /// Takes a lock that nobody has, and gives it back.
    pub async fn lock_and_unlock(&mut self, name: &str) -> Result<()> {
        let session = self.session;
        let lock = pb::LockRequest { request: None, session, name: name.into(), wait_ms: 0 };
        let unlock = |token| pb::UnlockRequest { session, name: name.into(), token };
        match &mut self.stream {
            Some(stream) => {
                let Answer::Lock(locked) = stream.call(Call::Lock(lock)).await? else { bail!("another kind") };
                stream.call(Call::Unlock(unlock(locked.token))).await?;
            }
            None => {
                let token = self.store.lock(lock).await?.into_inner().token;
                self.store.unlock(unlock(token)).await?;
            }
        }
        Ok(())
    }

    /// Every event from now on, as of what this node has applied.
    pub async fn watch(&mut self) -> Result<tonic::Streaming<pb::WatchResponse>> {
        let status = self.cluster.status(pb::StatusRequest { history_limit: 1 }).await?.into_inner();
        let after_revision = status.committed.map_or(0, |committed| committed.revision);
        let request = pb::WatchRequest { after_revision, topics: vec![], prefix: String::new() };
        Ok(self.store.watch(request).await?.into_inner())
    }

    /// Whether the node at this end leads a cluster of `voters` voters.
    pub async fn leads(&mut self, voters: usize) -> Result<bool> {
        let status = self.cluster.status(pb::StatusRequest { history_limit: 1 }).await?.into_inner();
        let local = status.local.context("no local part")?;
        let configured = status.committed.and_then(|all| all.configuration).and_then(|all| all.voters);
        let all = configured.is_some_and(|now| now.nodes.len() == voters);
        Ok(all && local.quorate && local.leader == Some(local.node))
    }
}

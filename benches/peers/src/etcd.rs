//! A client of etcd's v3 API, as far as the comparison needs it. Names and numbers of fields are those of etcd's
//! `rpc.proto`.

use anyhow::{Result, ensure};
use prost::Message;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic_prost::ProstCodec;

#[derive(Clone, PartialEq, Message)]
pub struct Header {
    #[prost(uint64, tag = "2")]
    pub member_id: u64,
}

#[derive(Clone, PartialEq, Message)]
pub struct Range {
    #[prost(bytes = "vec", tag = "1")]
    pub key: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub struct RangeAnswer {
    #[prost(int64, tag = "4")]
    pub count: i64,
}

#[derive(Clone, PartialEq, Message)]
pub struct Put {
    #[prost(bytes = "vec", tag = "1")]
    pub key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub value: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Nothing {}

#[derive(Clone, PartialEq, Message)]
pub struct DeleteRange {
    #[prost(bytes = "vec", tag = "1")]
    pub key: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Deleted {
    #[prost(int64, tag = "2")]
    pub deleted: i64,
}

/// `create_revision(key) = 0`: there is no such key. The result EQUAL is 0, the target CREATE is 1.
#[derive(Clone, PartialEq, Message)]
pub struct Compare {
    #[prost(int32, tag = "1")]
    pub result: i32,
    #[prost(int32, tag = "2")]
    pub target: i32,
    #[prost(bytes = "vec", tag = "3")]
    pub key: Vec<u8>,
    #[prost(int64, optional, tag = "5")]
    pub create_revision: Option<i64>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Operation {
    #[prost(message, optional, tag = "2")]
    pub put: Option<Put>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Txn {
    #[prost(message, repeated, tag = "1")]
    pub compare: Vec<Compare>,
    #[prost(message, repeated, tag = "2")]
    pub success: Vec<Operation>,
}

#[derive(Clone, PartialEq, Message)]
pub struct TxnAnswer {
    #[prost(bool, tag = "2")]
    pub succeeded: bool,
}

#[derive(Clone, PartialEq, Message)]
pub struct Status {
    #[prost(message, optional, tag = "1")]
    pub header: Option<Header>,
    #[prost(uint64, tag = "4")]
    pub leader: u64,
}

/// One connection to one etcd.
#[derive(Debug, Clone)]
pub struct Client(Channel);

impl Client {
    pub fn new(channel: Channel) -> Self {
        Self(channel)
    }

    async fn call<Q, A>(&mut self, path: &'static str, request: Q) -> Result<A>
    where
        Q: Message + Send + Sync + 'static,
        A: Message + Default + Send + Sync + 'static,
    {
        let mut grpc = Grpc::new(self.0.clone());
        grpc.ready().await?;
        let codec = ProstCodec::<Q, A>::default();
        Ok(grpc.unary(tonic::Request::new(request), PathAndQuery::from_static(path), codec).await?.into_inner())
    }

    pub async fn put(&mut self, key: &str, value: &[u8]) -> Result<()> {
        let put = Put { key: key.into(), value: value.into() };
        self.call("/etcdserverpb.KV/Put", put).await.map(|Nothing {}| ())
    }

    /// Linearizable, as etcd reads unless it is told otherwise.
    pub async fn get(&mut self, key: &str) -> Result<()> {
        let found: RangeAnswer = self.call("/etcdserverpb.KV/Range", Range { key: key.into() }).await?;
        ensure!(found.count == 1, "no {key}");
        Ok(())
    }

    /// Takes a lock that nobody has, and gives it back: creates a key if it is not there, and deletes it.
    pub async fn lock_and_unlock(&mut self, name: &str) -> Result<()> {
        let key: Vec<u8> = name.into();
        let compare = Compare { result: 0, target: 1, key: key.clone(), create_revision: Some(0) };
        let put = Operation { put: Some(Put { key: key.clone(), value: b"held".to_vec() }) };
        let locked: TxnAnswer =
            self.call("/etcdserverpb.KV/Txn", Txn { compare: vec![compare], success: vec![put] }).await?;
        ensure!(locked.succeeded, "{name} is held");
        let deleted: Deleted = self.call("/etcdserverpb.KV/DeleteRange", DeleteRange { key }).await?;
        ensure!(deleted.deleted == 1, "{name} was not held");
        Ok(())
    }

    /// Whether the member at this end leads.
    pub async fn leads(&mut self) -> Result<bool> {
        let status: Status = self.call("/etcdserverpb.Maintenance/Status", Nothing {}).await?;
        Ok(status.leader != 0 && status.header.is_some_and(|header| header.member_id == status.leader))
    }
}

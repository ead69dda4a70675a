//! The service as one connection sees it: notes which node calls there, once a call of it was admitted.

use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use quorate_raft_core::rpc::{Answer, Append, Call, Caller, StreamAppended};
use quorate_raft_core::transport::{JoinAnswer, JoinRequest};
use quorate_raft_core::{PeerService, Refusal};

use crate::places::Place;

pub(crate) struct OfConnection {
    pub(crate) service: Arc<dyn PeerService>,
    pub(crate) place: Arc<Place>,
}

impl PeerService for OfConnection {
    fn call(&self, caller: Caller, call: Call) -> BoxFuture<'static, Result<Answer, Refusal>> {
        let (answer, place) = (self.service.call(caller, call), self.place.clone());
        Box::pin(async move {
            let answer = answer.await;
            if answer.is_ok() {
                place.is_of(caller.from);
            }
            answer
        })
    }

    fn append_stream(
        &self,
        caller: Caller,
        requests: BoxStream<'static, Append>,
    ) -> BoxStream<'static, Result<StreamAppended, Refusal>> {
        let place = self.place.clone();
        let answers = self.service.append_stream(caller, requests);
        let noted = answers.inspect(move |answer| {
            if answer.is_ok() {
                place.is_of(caller.from);
            }
        });
        noted.boxed()
    }

    fn join(&self, request: JoinRequest) -> BoxFuture<'static, Result<JoinAnswer, Refusal>> {
        self.service.join(request)
    }
}

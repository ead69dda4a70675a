//! Streams of appends: pipelined, in order, watched for silence, ended for a reason.

use std::time::Duration;

use futures_util::stream::{self, BoxStream, StreamExt};
use quorate_raft_core::rpc::{Append, Body, LogEntry, Payload, Position, StreamAppended};
use quorate_raft_core::{Peer, Refusal, Transport, TransportError};
use quorate_transport_grpc::{APPEND_LIMIT, GrpcTransport};
use tokio::sync::mpsc;

use crate::fake::*;
use crate::values::*;

type Answers = BoxStream<'static, Result<StreamAppended, TransportError>>;

async fn open(transport: &GrpcTransport, peer: &Peer, appends: BoxStream<'static, Append>, idle: Duration) -> Answers {
    transport.append_stream(peer, caller(), appends, idle).await.unwrap()
}

fn flushed(index: u64) -> Result<StreamAppended, TransportError> {
    Ok(StreamAppended::Flushed(Some(at(3, index))))
}

/// Appends as they are fed in.
fn fed() -> (mpsc::UnboundedSender<Append>, BoxStream<'static, Append>) {
    let (feed, mut fed) = mpsc::unbounded_channel();
    (feed, stream::poll_fn(move |cx| fed.poll_recv(cx)).boxed())
}

async fn next(answers: &mut Answers) -> Option<Result<StreamAppended, TransportError>> {
    tokio::time::timeout(LIVENESS, answers.next()).await.expect("the stream goes on or ends")
}

#[tokio::test]
async fn appends_are_pipelined_and_answered_in_their_order() {
    let fake = Fake::new();
    // No answer before all have arrived: who waited for each would wait for ever.
    fake.set(|script| script.streams = Streams::After(100));
    let server = serve(&fake).await;
    let sent: Vec<Append> = (0..100).map(|index| append(index, 100 * index as usize)).collect();
    let (transport, peer) = (patient(), peer(server.local_addr()));
    let answers = open(&transport, &peer, stream::iter(sent.clone()).boxed(), LIVENESS).await;
    let answers: Vec<_> = answers.collect().await;
    assert_eq!(answers, (0..100).map(flushed).collect::<Vec<_>>());
    let mut expected = vec![Call::StreamBegan(caller())];
    expected.extend(sent.into_iter().map(Call::StreamAppend));
    expected.push(Call::StreamEnded);
    fake.until(|calls| calls == expected).await;
}

#[tokio::test]
async fn silence_while_an_append_waits_ends_the_stream_with_a_timeout() {
    let fake = Fake::new();
    fake.set(|script| script.streams = Streams::Only(2));
    let server = serve(&fake).await;
    let (transport, peer, idle) = (patient(), peer(server.local_addr()), Duration::from_secs(3));
    let (feed, appends) = fed();
    let mut answers = open(&transport, &peer, appends, idle).await;
    for index in 0..4 {
        feed.send(append(index, 10)).unwrap();
    }
    assert_eq!(next(&mut answers).await, Some(flushed(0)));
    assert_eq!(next(&mut answers).await, Some(flushed(1)));
    assert_eq!(next(&mut answers).await, Some(Err(TransportError::Timeout(idle))));
    assert_eq!(next(&mut answers).await, None);
    fake.until(|calls| calls.contains(&Call::StreamEnded)).await;
}

#[tokio::test]
async fn silence_while_nothing_waits_is_no_silence() {
    let fake = Fake::new();
    let server = serve(&fake).await;
    let (transport, peer, idle) = (patient(), peer(server.local_addr()), Duration::from_secs(2));
    let (feed, appends) = fed();
    let mut answers = open(&transport, &peer, appends, idle).await;
    feed.send(append(0, 10)).unwrap();
    assert_eq!(next(&mut answers).await, Some(flushed(0)));
    let quiet = tokio::time::timeout(idle * 2, answers.next()).await;
    assert!(quiet.is_err(), "{quiet:?}");
    feed.send(append(1, 10)).unwrap();
    assert_eq!(next(&mut answers).await, Some(flushed(1)));
    drop(feed);
    assert_eq!(next(&mut answers).await, None);
}

#[tokio::test]
async fn answers_that_keep_coming_are_no_silence_however_long_the_last_has_to_wait() {
    let fake = Fake::new();
    fake.set(|script| script.streams = Streams::Slowly(Duration::from_millis(500)));
    let server = serve(&fake).await;
    let (transport, peer) = (patient(), peer(server.local_addr()));
    let appends = stream::iter((0..8).map(|index| append(index, 10))).boxed();
    let answers: Vec<_> = open(&transport, &peer, appends, Duration::from_secs(3)).await.collect().await;
    assert_eq!(answers, (0..8).map(flushed).collect::<Vec<_>>());
}

/// On a thin link a large append is on its way for long. It is not cut off, or it would be sent again and never arrive.
#[tokio::test]
async fn a_large_append_may_take_as_long_as_it_does_on_a_thin_link() {
    let fake = Fake::new();
    fake.set(|script| script.streams = Streams::Slowly(Duration::from_secs(2)));
    let server = serve(&fake).await;
    let (transport, peer, idle) = (patient(), peer(server.local_addr()), Duration::from_millis(200));
    let answers = open(&transport, &peer, stream::iter([append(0, 1 << 20)]).boxed(), idle).await;
    assert_eq!(answers.collect::<Vec<_>>().await, [flushed(0)]);
}

#[tokio::test]
async fn the_first_answer_that_is_not_flushed_ends_the_stream() {
    let fake = Fake::new();
    let server = serve(&fake).await;
    let (transport, peer) = (patient(), peer(server.local_addr()));
    for last in [StreamAppended::Conflict(at(2, 7)), StreamAppended::HigherBallot(ballot(9, 3))] {
        fake.set(|script| script.streams = Streams::Then(2, last));
        let (feed, appends) = fed();
        let answers = open(&transport, &peer, appends, LIVENESS).await;
        for index in 0..6 {
            feed.send(append(index, 10)).unwrap();
        }
        let answers: Vec<_> = answers.collect().await;
        assert_eq!(answers, [flushed(0), flushed(1), Ok(last)]);
    }
}

#[tokio::test]
async fn a_caller_that_is_not_admitted_is_told_why_at_once() {
    let fake = Fake::new();
    fake.set(|script| script.refuse = Some(Refusal::Retired(n(1))));
    let server = serve(&fake).await;
    let (transport, peer) = (patient(), peer(server.local_addr()));
    let (_feed, appends) = fed();
    let mut answers = open(&transport, &peer, appends, LIVENESS).await;
    assert_eq!(next(&mut answers).await, Some(Err(Refusal::Retired(n(1)).into())));
    assert_eq!(next(&mut answers).await, None);
}

#[tokio::test]
async fn a_damaged_command_ends_the_stream_after_those_before_it_are_answered() {
    let fake = Fake::new();
    let server = serve(&fake).await;
    let (transport, peer) = (patient(), peer(server.local_addr()));
    let mut bytes = envelope(50).as_bytes().to_vec();
    bytes[40] ^= 1;
    let damaged = LogEntry { at: Position { term: 3, index: 2 }, body: Body::Command(Payload::new(bytes)) };
    let appends = [append(0, 10), append(1, 10), Append { entries: vec![damaged], ..append(2, 0) }, append(3, 10)];
    let mut answers = open(&transport, &peer, stream::iter(appends.clone()).boxed(), LIVENESS).await;
    assert_eq!(next(&mut answers).await, Some(flushed(0)));
    assert_eq!(next(&mut answers).await, Some(flushed(1)));
    let Some(Err(TransportError::Refused(Refusal::Malformed(why)))) = next(&mut answers).await else {
        panic!("not refused")
    };
    assert!(why.contains("t3.i2") && why.contains("damaged"), "{why}");
    assert_eq!(next(&mut answers).await, None);
    let arrived = fake.calls().iter().filter(|call| matches!(call, Call::StreamAppend(_))).count();
    assert_eq!(arrived, 2);
}

#[tokio::test]
async fn an_append_that_is_too_large_ends_the_stream_after_those_before_it_are_answered() {
    let fake = Fake::new();
    let server = serve(&fake).await;
    let (transport, peer) = (patient(), peer(server.local_addr()));
    let appends = [append(0, 10), append(1, APPEND_LIMIT), append(2, 10)];
    let mut answers = open(&transport, &peer, stream::iter(appends).boxed(), LIVENESS).await;
    assert_eq!(next(&mut answers).await, Some(flushed(0)));
    let Some(Err(TransportError::Refused(Refusal::Malformed(why)))) = next(&mut answers).await else {
        panic!("not refused")
    };
    assert!(why.contains("the append is") && why.contains("nothing was sent"), "{why}");
    assert_eq!(next(&mut answers).await, None);
    fake.until(|calls| calls.last() == Some(&Call::StreamEnded)).await;
    assert_eq!(fake.calls(), [Call::StreamBegan(caller()), Call::StreamAppend(append(0, 10)), Call::StreamEnded]);
}

#[tokio::test]
async fn the_largest_append_that_may_be_sent_arrives() {
    let fake = Fake::new();
    let server = serve(&fake).await;
    let (transport, peer) = (patient(), peer(server.local_addr()));
    let large = append(0, APPEND_LIMIT - 200);
    let answers = open(&transport, &peer, stream::iter([large.clone()]).boxed(), LIVENESS).await;
    assert_eq!(answers.collect::<Vec<_>>().await, [flushed(0)]);
    fake.until(|calls| calls.contains(&Call::StreamAppend(large.clone()))).await;
}

#[tokio::test]
async fn dropping_the_answers_ends_the_stream_on_the_other_side() {
    let fake = Fake::new();
    let server = serve(&fake).await;
    let (transport, peer) = (patient(), peer(server.local_addr()));
    let (feed, appends) = fed();
    let mut answers = open(&transport, &peer, appends, LIVENESS).await;
    feed.send(append(0, 10)).unwrap();
    assert_eq!(next(&mut answers).await, Some(flushed(0)));
    drop(answers);
    fake.until(|calls| calls.contains(&Call::StreamEnded)).await;
}

#[tokio::test]
async fn a_server_that_shuts_down_leaves_what_is_unanswered_open() {
    let fake = Fake::new();
    fake.set(|script| script.streams = Streams::Only(1));
    let server = serve(&fake).await;
    let (transport, peer) = (patient(), peer(server.local_addr()));
    let (feed, appends) = fed();
    let mut answers = open(&transport, &peer, appends, LIVENESS).await;
    feed.send(append(0, 10)).unwrap();
    feed.send(append(1, 10)).unwrap();
    assert_eq!(next(&mut answers).await, Some(flushed(0)));
    fake.until(|calls| calls.iter().filter(|call| matches!(call, Call::StreamAppend(_))).count() == 2).await;
    server.shutdown().await;
    let end = next(&mut answers).await;
    assert!(matches!(end, Some(Err(TransportError::Broken(_)))), "{end:?}");
}

//! Reads the message of a unary call (gRPC over HTTP/2, Length-Prefixed-Message).

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::{Bytes, Incoming};
use prost::bytes::Buf as _;

use super::share::{CountedCall, Full};

/// Bytes before a message (gRPC over HTTP/2, Length-Prefixed-Message).
const PREFIX: usize = 5;

/// Output of a future, if it is done in time. A future that is done at once needs no timer.
pub(super) async fn within<F: Future>(patience: Duration, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    if let Poll::Ready(done) = poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await {
        return Some(done);
    }
    tokio::time::timeout(patience, future).await.ok()
}

/// Message of a unary call, cut at `most` bytes. A body that is not a single uncompressed message gives bytes that decode as no
/// request. Bytes that are stored until the message is whole count for the call's peer.
pub(super) async fn read_message(
    mut body: Incoming,
    most: usize,
    call: &mut CountedCall,
) -> Result<Bytes, Full> {
    let limit = most.saturating_add(PREFIX);
    // Almost always there is one frame, which is taken as it is.
    let mut first = Bytes::new();
    let mut more: Vec<u8> = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else {
            return Ok(garbage());
        };
        let Ok(data) = frame.into_data() else {
            continue;
        };
        let room = limit.saturating_sub(first.len()).saturating_sub(more.len());
        let taken = room.min(data.len());
        let is_whole = taken == data.len();
        if first.is_empty() {
            first = data;
            first.truncate(taken);
        } else {
            call.receive(taken)?;
            more.extend_from_slice(data.get(..taken).unwrap_or_default());
        }
        if !is_whole {
            break;
        }
    }
    let mut bytes = if more.is_empty() { first } else { Bytes::from([&*first, &*more].concat()) };
    let Some((prefix, message)) = bytes.split_first_chunk::<PREFIX>() else {
        return Ok(garbage());
    };
    let [compressed, length @ ..] = *prefix;
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if compressed != 0
        || (message.len() != length && message.len() < most)
        || length < message.len()
    {
        return Ok(garbage());
    }
    bytes.advance(PREFIX);
    Ok(bytes)
}

/// Bytes that are not a message of any type: a field of number 0.
const fn garbage() -> Bytes {
    Bytes::from_static(&[0])
}

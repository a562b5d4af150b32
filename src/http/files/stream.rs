//! A file that passes through this process: some of it at a time, and never more of it in memory.

use std::{collections::VecDeque, ops::RangeInclusive, sync::Arc};

use actix_web::{
    HttpRequest, HttpResponse, HttpResponseBuilder,
    body::SizedStream,
    http::{Method, header},
};
use bytes::Bytes;
use futures_util::{Stream, stream};
use uuid::Uuid;

use super::{
    headers,
    range::{Wanted, length},
};
use crate::{
    domain::{DomainError, FileFacts, StreamedFile},
    http::{ApiError, State},
    s3::{ObjectPieces, PinnedObject, ReadError, ReadPlace},
};

/// The most that is handed to the connection at once: it copies what it is given and keeps the room for that.
const LARGEST_PIECE: usize = 32 << 10;

/// Answers with the file, or with what is `wanted` of it.
pub(super) async fn answer(
    state: &State,
    request: &HttpRequest,
    file: StreamedFile,
    wanted: Wanted,
) -> Result<HttpResponse, ApiError> {
    let StreamedFile { facts, object, place } = file;
    let is_head = *request.method() == Method::HEAD;
    let mut response = match wanted {
        Wanted::Nothing => return Ok(headers::not_satisfiable(&facts)),
        Wanted::Whole => HttpResponse::Ok(),
        Wanted::Ranges(_) => HttpResponse::PartialContent(),
    };
    headers::describe(&mut response, &facts);
    response.insert_header((header::ACCEPT_RANGES, "bytes"));
    let (segments, total) = match wanted {
        Wanted::Whole | Wanted::Nothing => (VecDeque::from([Segment::Bytes(None)]), object.size),
        Wanted::Ranges(ranges) => match <[RangeInclusive<u64>; 1]>::try_from(ranges) {
            Ok([range]) => {
                response.insert_header((header::CONTENT_RANGE, content_range(&range, object.size)));
                let total = length(&range);
                (VecDeque::from([Segment::Bytes(Some(range))]), total)
            }
            Err(ranges) => multipart(&mut response, &ranges, &facts),
        },
    };
    if is_head {
        return Ok(response.body(SizedStream::new(total, stream::empty::<Result<Bytes, ReadError>>())));
    }
    let free = || state.service.reader.place().map(Arc::new);
    let place = place.or_else(free).ok_or(DomainError::TooManyStreams)?;
    let mut delivery = Delivery { place, object, segments, pieces: None, rest: Bytes::new() };
    // Before the status is sent, so that a store that is away is told as what it is.
    delivery.begin().await.map_err(DomainError::from)?;
    Ok(response.body(SizedStream::new(total, delivery.into_stream())))
}

fn content_range(range: &RangeInclusive<u64>, size: u64) -> String {
    format!("bytes {}-{}/{size}", range.start(), range.end())
}

/// The segments of a body of type `multipart/byteranges` (RFC 9110 section 14.6), and their size altogether.
fn multipart(
    response: &mut HttpResponseBuilder,
    ranges: &[RangeInclusive<u64>],
    facts: &FileFacts,
) -> (VecDeque<Segment>, u64) {
    // Random, so that no file can hold it.
    let boundary = Uuid::now_v7().simple().to_string();
    let declared = facts.content_type.as_str();
    response.insert_header((header::CONTENT_TYPE, format!("multipart/byteranges; boundary={boundary}")));
    let mut segments = VecDeque::new();
    let mut total = 0;
    for range in ranges {
        let content_range = content_range(range, facts.size);
        let head = format!("\r\n--{boundary}\r\nContent-Type: {declared}\r\nContent-Range: {content_range}\r\n\r\n");
        total += bytes_of(&head) + length(range);
        segments.extend([Segment::Text(head.into()), Segment::Bytes(Some(range.clone()))]);
    }
    let end = format!("\r\n--{boundary}--\r\n");
    total += bytes_of(&end);
    segments.push_back(Segment::Text(end.into()));
    (segments, total)
}

fn bytes_of(text: &str) -> u64 {
    u64::try_from(text.len()).unwrap_or_default()
}

/// A part of the body.
#[derive(Debug)]
enum Segment {
    /// What this service writes.
    Text(Bytes),
    /// What the file has there; all of it without a range.
    Bytes(Option<RangeInclusive<u64>>),
}

/// A body on its way.
struct Delivery {
    place: Arc<ReadPlace>,
    object: PinnedObject,
    segments: VecDeque<Segment>,
    /// Of the segment in front, once it has been opened.
    pieces: Option<ObjectPieces>,
    /// Of the piece that came last.
    rest: Bytes,
}

impl Delivery {
    /// Opens what is read first.
    async fn begin(&mut self) -> Result<(), ReadError> {
        let first = self.segments.iter().find_map(|segment| match segment {
            Segment::Text(_) => None,
            Segment::Bytes(range) => Some(range.clone()),
        });
        if let Some(range) = first {
            self.pieces = Some(self.place.open(&self.object, range).await?);
        }
        Ok(())
    }

    async fn next(&mut self) -> Result<Option<Bytes>, ReadError> {
        while self.rest.is_empty() {
            match self.segments.front() {
                None => return Ok(None),
                Some(Segment::Text(text)) => {
                    self.rest = text.clone();
                    self.segments.pop_front();
                }
                Some(Segment::Bytes(range)) => {
                    let pieces = match &mut self.pieces {
                        Some(pieces) => pieces,
                        none => none.insert(self.place.open(&self.object, range.clone()).await?),
                    };
                    if let Some(piece) = pieces.next().await {
                        self.rest = piece?;
                    } else {
                        self.pieces = None;
                        self.segments.pop_front();
                    }
                }
            }
        }
        Ok(Some(self.rest.split_to(self.rest.len().min(LARGEST_PIECE))))
    }

    /// A failure breaks the connection off: the client sees that the file is not complete, and can go on from there.
    fn into_stream(self) -> impl Stream<Item = Result<Bytes, ReadError>> {
        stream::try_unfold(self, async |mut delivery| Ok(delivery.next().await?.map(|piece| (piece, delivery))))
    }
}

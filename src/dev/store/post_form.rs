//! The fields of a browser form, read ahead of the layer that verifies them.
//!
//! That layer neither shows a form's session token nor its region to anybody, and without them a form signed by one
//! session could travel without its token. So the fields up to the file are read here first, and the body is then
//! handed on as if nobody had looked. <https://docs.aws.amazon.com/AmazonS3/latest/API/RESTObjectPOST.html>

use std::{
    collections::HashMap,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt as _};
use hyper::{HeaderMap, header::CONTENT_TYPE};
use s3s::{
    Body, S3Result, StdError, s3_error,
    stream::{ByteStream, DynByteStream},
};

/// The most that AWS takes before the file: 20 KB.
const MAX_FIELDS_BYTES: usize = 20 << 10;

/// The fields before the file, by lower-case name.
#[derive(Clone, Default)]
pub(super) struct PostForm(HashMap<String, String>);

impl PostForm {
    pub(super) fn field(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }
}

/// The most that is handed on at once. The parser after this one keeps a piece that ends with what may be the beginning of
/// the boundary, if only `\r`, together with the next one, and refuses the form when both have more than 64 KiB.
const LARGEST_PIECE: usize = 32 << 10;

/// The boundary of a `multipart/form-data` request.
pub(super) fn boundary(headers: &HeaderMap) -> Option<String> {
    let content_type = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    let (kind, parameters) = content_type.split_once(';')?;
    if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
        return None;
    }
    parameters.split(';').find_map(|parameter| {
        let (name, value) = parameter.trim().split_once('=')?;
        name.eq_ignore_ascii_case("boundary").then(|| value.trim_matches('"').to_owned())
    })
}

/// Reads the fields before the file, and returns them with a body that starts from its beginning again.
pub(super) async fn read_ahead(mut body: Body, boundary: &str) -> S3Result<(PostForm, Body)> {
    let mut read = BytesMut::new();
    let form = loop {
        match parse(&read, boundary) {
            Parsed::Form(form) => break form,
            // The verifying layer says what is wrong with it; without fields nothing gets past the access check.
            Parsed::Malformed => break PostForm::default(),
            Parsed::Incomplete if read.len() > MAX_FIELDS_BYTES => {
                return Err(s3_error!(
                    MaxPostPreDataLengthExceededError,
                    "Your POST request fields preceding the upload file were too large."
                ));
            }
            Parsed::Incomplete => {}
        }
        match body.next().await {
            Some(Ok(bytes)) => read.extend_from_slice(&bytes),
            Some(Err(error)) => return Err(s3s::S3Error::with_source(s3s::S3ErrorCode::IncompleteBody, error)),
            None => break PostForm::default(),
        }
    };
    let replayed: DynByteStream = Box::pin(Replayed { ready: read.freeze(), rest: body });
    Ok((form, Body::from(replayed)))
}

enum Parsed {
    Form(PostForm),
    Incomplete,
    Malformed,
}

fn parse(read: &[u8], boundary: &str) -> Parsed {
    let mut fields = HashMap::new();
    let opening = format!("--{boundary}\r\n");
    let closing = format!("\r\n--{boundary}");
    let Some(mut rest) = read.strip_prefix(opening.as_bytes()) else {
        return if opening.as_bytes().starts_with(read) { Parsed::Incomplete } else { Parsed::Malformed };
    };
    loop {
        let Some((headers, after)) = split_once(rest, b"\r\n\r\n") else { return Parsed::Incomplete };
        let Some(name) = str::from_utf8(headers).ok().and_then(field_name) else { return Parsed::Malformed };
        if name == "file" {
            return Parsed::Form(PostForm(fields));
        }
        let Some((value, after)) = split_once(after, closing.as_bytes()) else { return Parsed::Incomplete };
        let Ok(value) = str::from_utf8(value) else { return Parsed::Malformed };
        // A field that is there twice has no one value that could be compared.
        if fields.insert(name, value.to_owned()).is_some() {
            return Parsed::Malformed;
        }
        match after.strip_prefix(b"\r\n") {
            Some(next) => rest = next,
            None if after.len() < 2 => return Parsed::Incomplete,
            None => return Parsed::Malformed,
        }
    }
}

fn field_name(headers: &str) -> Option<String> {
    headers.split("\r\n").find_map(|line| {
        let (name, value) = line.split_once(':')?;
        if !name.eq_ignore_ascii_case("content-disposition") {
            return None;
        }
        value.split(';').find_map(|parameter| {
            let name = parameter.trim().strip_prefix("name=")?;
            Some(name.trim_matches('"').to_ascii_lowercase())
        })
    })
}

fn split_once<'b>(bytes: &'b [u8], separator: &[u8]) -> Option<(&'b [u8], &'b [u8])> {
    let at = bytes.windows(separator.len()).position(|window| window == separator)?;
    Some((bytes.get(..at)?, bytes.get(at + separator.len()..)?))
}

/// A body with its first bytes put back, in pieces of at most [`LARGEST_PIECE`].
struct Replayed {
    ready: Bytes,
    rest: Body,
}

impl Stream for Replayed {
    type Item = Result<Bytes, StdError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        while self.ready.is_empty() {
            match ready!(self.rest.poll_next_unpin(cx)) {
                Some(Ok(bytes)) => self.ready = bytes,
                ended => return Poll::Ready(ended),
            }
        }
        let length = self.ready.len().min(LARGEST_PIECE);
        Poll::Ready(Some(Ok(self.ready.split_to(length))))
    }
}

impl ByteStream for Replayed {}

#[cfg(test)]
mod tests {
    use super::*;

    const FORM: &str = "--b\r\nContent-Disposition: form-data; name=\"Key\"\r\n\r\na/b\r\n--b\r\n\
        content-disposition: form-data; name=\"X-Amz-Date\"\r\nContent-Type: text/plain\r\n\r\n\r\n--b\r\n\
        Content-Disposition: form-data; name=\"file\"; filename=\"f\"\r\n\r\n";

    #[test]
    fn fields_before_the_file_are_read_however_the_body_is_cut() {
        for cut in 0..FORM.len() {
            assert!(matches!(parse(&FORM.as_bytes()[..cut], "b"), Parsed::Incomplete), "{cut}");
        }
        let Parsed::Form(form) = parse(format!("{FORM}bytes").as_bytes(), "b") else { panic!("not a form") };
        assert_eq!(form.field("key"), Some("a/b"));
        assert_eq!(form.field("x-amz-date"), Some(""));
        assert_eq!(form.field("file"), None);
    }

    #[test]
    fn a_field_that_is_there_twice_is_malformed() {
        let twice = "--b\r\nContent-Disposition: form-data; name=a\r\n\r\n1\r\n--b\r\n\
            Content-Disposition: form-data; name=A\r\n\r\n2\r\n--b\r\n";
        assert!(matches!(parse(twice.as_bytes(), "b"), Parsed::Malformed));
    }

    #[test]
    fn the_boundary_may_be_quoted() {
        let of = |text: &str| boundary(&[(CONTENT_TYPE, text.parse().unwrap())].into_iter().collect());
        assert_eq!(of("multipart/form-data; charset=utf-8; boundary=\"x y\""), Some("x y".to_owned()));
        assert_eq!(of("Multipart/Form-Data; Boundary=xy"), Some("xy".to_owned()));
        assert_eq!(of("text/plain; boundary=xy"), None);
    }
}

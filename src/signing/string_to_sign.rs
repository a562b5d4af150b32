//! Stage 2: what the key signs, a digest of the canonical request in the context of day, region and service.

use aws_lc_rs::digest;

use super::{ALGORITHM, encode, timestamp::AmzDate};

/// The string to sign of a presigned URL, by the SHA-256 of its canonical request. That of a POST form is its policy in
/// base64, without any of this.
pub(super) fn string_to_sign(amz_date: &AmzDate, scope: &str, canonical_request: &digest::Digest) -> String {
    let hex_len = digest::SHA256_OUTPUT_LEN * 2;
    let mut text = String::with_capacity(ALGORITHM.len() + amz_date.as_str().len() + scope.len() + hex_len + 3);
    for line in [ALGORITHM, amz_date.as_str(), scope] {
        text.push_str(line);
        text.push('\n');
    }
    encode::push_hex(&mut text, canonical_request.as_ref());
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signing::published_example;

    #[test]
    fn published_example_has_this_string_to_sign() {
        let amz_date = AmzDate::new(published_example::now()).unwrap();
        let scope = "20130524/us-east-1/s3/aws4_request";
        let canonical_request = digest::digest(&digest::SHA256, published_example::CANONICAL_REQUEST.as_bytes());
        let text = string_to_sign(&amz_date, scope, &canonical_request);
        assert_eq!(text, published_example::STRING_TO_SIGN);
    }
}

//! Where a bucket is reached.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::model::{Invalid, ObjectKey};

pub use crate::config::s3::Addressing;

use super::encode;

/// The scheme, host and port of a store, and one bucket in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// `https://host`, with the port unless that is the scheme's own.
    origin: String,
    bucket: String,
    addressing: Addressing,
}

/// What cannot be signed for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EndpointError {
    /// The URL breaks this rule.
    Url(Invalid),
    /// The bucket's name breaks this rule.
    Bucket(Invalid),
}

impl Endpoint {
    /// The bucket as `url` and `addressing` have it.
    ///
    /// # Errors
    /// When `url` is not plainly `http` or `https` and a host, or `bucket` is not a bucket name, or the host is an
    /// address, in front of which no bucket can stand.
    pub fn new(url: &str, bucket: &str, addressing: Addressing) -> Result<Self, EndpointError> {
        let rule = || {
            EndpointError::Url(Invalid::new(
                "must be http:// or https:// with a host and perhaps a port, without user, path, query or fragment",
            ))
        };
        let (scheme, rest) = url.split_once("://").ok_or_else(rule)?;
        let (scheme, default_port) = match scheme.to_ascii_lowercase().as_str() {
            "http" => ("http", 80),
            "https" => ("https", 443),
            _ => return Err(rule()),
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, Some(parse_port(port).ok_or_else(rule)?)),
            _ => (authority, None),
        };
        let host = Host::parse(host).ok_or_else(rule)?;
        validate_bucket(bucket).map_err(EndpointError::Bucket)?;

        let host = match (host, addressing) {
            (Host::Name(name), Addressing::VirtualHosted) => format!("{bucket}.{name}"),
            (Host::Address(_), Addressing::VirtualHosted) => {
                let rule = "must have a host name, not an address, for virtual-hosted addressing";
                return Err(EndpointError::Url(Invalid::new(rule)));
            }
            (Host::Name(host) | Host::Address(host), Addressing::Path) => host,
        };
        // Clients leave the default port out of the Host header, so a signature must not have it either.
        let origin = match port.filter(|port| *port != default_port) {
            Some(port) => format!("{scheme}://{host}:{port}"),
            None => format!("{scheme}://{host}"),
        };
        Ok(Self { origin, bucket: bucket.to_owned(), addressing })
    }

    /// `https://` and `host`, which is a name and nothing more, as a URL parser would leave it.
    ///
    /// # Errors
    /// When it is anything else.
    pub(super) fn host_origin(host: &str) -> Result<String, Invalid> {
        match Host::parse(host) {
            Some(Host::Name(name)) => Ok(format!("https://{name}")),
            _ => Err(Invalid::new("must be a domain name, without scheme, port or path")),
        }
    }

    /// The value of the `Host` header: the host, with the port unless that is the scheme's own.
    pub fn host(&self) -> &str {
        self.origin.split_once("://").map_or("", |(_, host)| host)
    }

    /// The bucket.
    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// Scheme, host and port, without a slash at the end.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Where a POST form goes: the bucket itself.
    pub fn form_url(&self) -> String {
        match self.addressing {
            Addressing::Path => format!("{}/{}", self.origin, self.bucket),
            Addressing::VirtualHosted => format!("{}/", self.origin),
        }
    }

    /// The path of an object, encoded. It is put together from text: joining URLs would resolve dot segments, and a
    /// key could then leave its bucket.
    pub(super) fn object_path(&self, key: &ObjectKey) -> String {
        let key = key.as_str();
        let mut path = String::with_capacity(self.bucket.len() + key.len() + key.len() / 2 + 2);
        path.push('/');
        if self.addressing == Addressing::Path {
            path.push_str(&self.bucket);
            path.push('/');
        }
        encode::push_key(&mut path, key);
        path
    }
}

enum Host {
    Name(String),
    Address(String),
}

impl Host {
    /// A host in the form that a URL parser would leave as it is: were it rewritten on the client, the `Host` header
    /// would no longer be the signed one.
    fn parse(text: &str) -> Option<Self> {
        if let Some(address) = text.strip_prefix('[') {
            let address: Ipv6Addr = address.strip_suffix(']')?.parse().ok()?;
            // URL parsers and the standard library write IPv4-mapped addresses differently.
            return address.to_ipv4_mapped().is_none().then(|| Self::Address(format!("[{address}]")));
        }
        let is_label = |label: &str| {
            !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        if !text.split('.').all(is_label) {
            return None;
        }
        // URL parsers read every host whose last label is a number as an IPv4 address, also "1" and "0x7f.1".
        let last = text.rsplit('.').next().unwrap_or_default();
        let is_number = last.bytes().all(|b| b.is_ascii_digit()) || last.starts_with("0x") || last.starts_with("0X");
        if is_number {
            return text.parse::<Ipv4Addr>().ok().map(|address| Self::Address(address.to_string()));
        }
        Some(Self::Name(text.to_ascii_lowercase()))
    }
}

fn parse_port(text: &str) -> Option<u16> {
    let is_number = text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|port| is_number && *port != 0)
}

/// "General purpose bucket naming rules" of the S3 User Guide. The prefixes and suffixes reserved there bind those who
/// create buckets; names with them, such as the alias of an access point, may be addressed.
fn validate_bucket(bucket: &str) -> Result<(), Invalid> {
    let is_inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let is_label = |label: &str| {
        label.bytes().all(|b| is_inner(b) || b == b'-')
            && label.bytes().next().is_some_and(is_inner)
            && label.bytes().next_back().is_some_and(is_inner)
    };
    if (3..=63).contains(&bucket.len()) && bucket.split('.').all(is_label) && bucket.parse::<Ipv4Addr>().is_err() {
        return Ok(());
    }
    Err(Invalid::new(
        "must be a bucket name: 3 to 63 of a-z, 0-9, - and ., with a letter or digit at both ends and around each dot, \
         and not an IPv4 address",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(url: &str, addressing: Addressing) -> Endpoint {
        Endpoint::new(url, "examplebucket", addressing).unwrap()
    }

    #[test]
    fn published_example_has_this_host_and_path() {
        let endpoint = endpoint("https://s3.amazonaws.com", Addressing::VirtualHosted);
        assert_eq!(endpoint.host(), "examplebucket.s3.amazonaws.com");
        assert_eq!(endpoint.object_path(&ObjectKey::parse("test.txt").unwrap()), "/test.txt");
    }

    #[test]
    fn host_is_what_a_client_will_send() {
        for (url, host) in [
            ("https://s3.example.com", "s3.example.com"),
            ("HTTPS://S3.Example.COM/", "s3.example.com"),
            ("https://s3.example.com:443", "s3.example.com"),
            ("https://s3.example.com:80", "s3.example.com:80"),
            ("http://s3.example.com:80", "s3.example.com"),
            ("http://localhost:9000", "localhost:9000"),
            ("http://my_store:9000", "my_store:9000"),
            ("http://127.0.0.1:9000", "127.0.0.1:9000"),
            ("http://[::1]:9000", "[::1]:9000"),
            ("http://[0:0:0:0:0:0:0:1]", "[::1]"),
        ] {
            assert_eq!(endpoint(url, Addressing::Path).host(), host, "{url}");
        }
    }

    #[test]
    fn anything_beside_scheme_host_and_port_is_refused() {
        for url in [
            "",
            "s3.example.com",
            "ftp://h",
            "https://",
            "https:///",
            "https://u@h",
            "https://u:p@h",
            "https://h/p",
            "https://h//",
            "https://h?q",
            "https://h/?q",
            "https://h#f",
            "https://h\\p",
            "https://h:",
            "https://h:0",
            "https://h:65536",
            "https://h:+80",
            "https://h:80:80",
            "https://h.",
            "https://a..b",
            "https://é.example",
            "https://a b",
            "https://h%2e",
            "https://1",
            "https://0x7f.1",
            "https://127.1",
            "https://1.2.3.256",
            "https://[::1",
            "https://::1",
            "https://[::ffff:1.2.3.4]",
            "https://[::1%25eth0]",
            "https://[::1]x",
        ] {
            assert!(Endpoint::new(url, "examplebucket", Addressing::Path).is_err(), "{url}");
        }
    }

    #[test]
    fn no_bucket_stands_in_front_of_an_address() {
        for url in ["http://127.0.0.1:9000", "http://[::1]:9000"] {
            assert!(Endpoint::new(url, "examplebucket", Addressing::VirtualHosted).is_err(), "{url}");
        }
    }

    #[test]
    fn bucket_names_follow_the_naming_rules() {
        let long = "b".repeat(64);
        for bad in
            ["", "ab", &long, "Bucket", "a_b", "a/b", "-ab", "ab-", ".ab", "ab.", "a..b", "a.-b", "10.0.0.1", "é-é"]
        {
            assert!(Endpoint::new("https://h", bad, Addressing::Path).is_err(), "{bad}");
        }
        for good in ["abc", "a.b-c.1", "123", "my-alias-s3alias", &"b".repeat(63)] {
            assert!(Endpoint::new("https://h", good, Addressing::Path).is_ok(), "{good}");
        }
    }

    #[test]
    fn forms_go_to_the_bucket() {
        let url = "http://localhost:9000";
        assert_eq!(endpoint(url, Addressing::Path).form_url(), "http://localhost:9000/examplebucket");
        assert_eq!(endpoint(url, Addressing::VirtualHosted).form_url(), "http://examplebucket.localhost:9000/");
    }
}

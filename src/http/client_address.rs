//! The client's address, as far as it can be trusted.

use std::net::{IpAddr, SocketAddr};

use actix_web::http::header::{self, HeaderMap};
use ipnet::IpNet;

use crate::config::server::{ForwardedHeader, ServerConfig};

/// A forwarding header of a trusted proxy that names no usable address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddressUnknown;

/// Tells client addresses from proxies' addresses.
#[derive(Debug, Clone)]
pub struct TrustedProxies {
    networks: Vec<IpNet>,
    header: ForwardedHeader,
}

impl TrustedProxies {
    /// Believes `config.forwarded_header` of peers in `config.trusted_proxies`.
    pub fn new(config: &ServerConfig) -> Self {
        Self { networks: config.trusted_proxies.clone(), header: config.forwarded_header }
    }

    /// The TCP peer, or, if that is a trusted proxy, the right-most hop of its forwarding header that is not one.
    ///
    /// Proxies append on the right, so what stands there was written by a trusted one; anything further left may
    /// have been sent by the client itself.
    ///
    /// # Errors
    /// When the hop that decides is not an address: guessing would scope a URL to somebody else's network.
    pub fn client_address(&self, peer: IpAddr, headers: &HeaderMap) -> Result<IpAddr, AddressUnknown> {
        let peer = peer.to_canonical();
        if !self.trusts(peer) {
            return Ok(peer);
        }
        let mut client = peer;
        for hop in self.hops(headers)?.into_iter().rev() {
            client = hop.ok_or(AddressUnknown)?.to_canonical();
            if !self.trusts(client) {
                break;
            }
        }
        Ok(client)
    }

    /// Whether `address` is a trusted proxy's.
    pub fn trusts(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.networks.iter().any(|network| network.contains(&address))
    }

    /// The hops from left to right over all lines of the header; `None` for one that is not an address.
    fn hops(&self, headers: &HeaderMap) -> Result<Vec<Option<IpAddr>>, AddressUnknown> {
        let name = match self.header {
            ForwardedHeader::Forwarded => header::FORWARDED,
            ForwardedHeader::XForwardedFor => header::X_FORWARDED_FOR,
        };
        let mut hops = Vec::new();
        for line in headers.get_all(name) {
            let line = line.to_str().map_err(|_| AddressUnknown)?;
            hops.extend(match self.header {
                ForwardedHeader::Forwarded => forwarded(line),
                ForwardedHeader::XForwardedFor => x_forwarded_for(line),
            });
        }
        Ok(hops)
    }
}

fn x_forwarded_for(line: &str) -> Vec<Option<IpAddr>> {
    line.split(',').map(|hop| address(hop.trim())).collect()
}

/// RFC 7239 section 4: elements separated by commas, each of `name=value` pairs separated by semicolons, where a
/// value may be a quoted string that holds either.
fn forwarded(line: &str) -> Vec<Option<IpAddr>> {
    // A quote that the client opened would swallow what the proxy appended behind it.
    if line.matches('"').count() % 2 == 1 {
        return vec![None];
    }
    split_outside_quotes(line, ',')
        .map(|element| {
            let mut pairs = split_outside_quotes(element, ';').filter_map(|pair| pair.split_once('='));
            let (_, node) = pairs.find(|(name, _)| name.trim().eq_ignore_ascii_case("for"))?;
            address(node.trim().trim_matches('"'))
        })
        .collect()
}

fn split_outside_quotes(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    text.split(move |c| {
        quoted ^= c == '"';
        c == separator && !quoted
    })
}

/// `203.0.113.7`, `203.0.113.7:4711`, `2001:db8::1`, `[2001:db8::1]` or `[2001:db8::1]:4711`.
fn address(hop: &str) -> Option<IpAddr> {
    if let Ok(address) = hop.parse::<IpAddr>() {
        return Some(address);
    }
    if let Ok(with_port) = hop.parse::<SocketAddr>() {
        return Some(with_port.ip());
    }
    hop.strip_prefix('[')?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(header: ForwardedHeader, peer: &str, lines: &[&str]) -> Result<String, AddressUnknown> {
        let proxies = TrustedProxies {
            networks: vec!["10.0.0.0/8".parse().unwrap(), "2001:db8:f::/48".parse().unwrap()],
            header,
        };
        let name = match header {
            ForwardedHeader::Forwarded => header::FORWARDED,
            ForwardedHeader::XForwardedFor => header::X_FORWARDED_FOR,
        };
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(name.clone(), line.parse().unwrap());
        }
        proxies.client_address(peer.parse().unwrap(), &headers).map(|address| address.to_string())
    }

    #[test]
    fn an_untrusted_peer_is_the_client_whatever_it_claims() {
        let claims = &["198.51.100.9", "10.0.0.1"];
        assert_eq!(resolve(ForwardedHeader::XForwardedFor, "203.0.113.7", claims).unwrap(), "203.0.113.7");
        assert_eq!(resolve(ForwardedHeader::XForwardedFor, "::ffff:203.0.113.7", claims).unwrap(), "203.0.113.7");
    }

    #[test]
    fn the_right_most_untrusted_hop_decides() {
        for (lines, expected) in [
            (&["203.0.113.7"][..], "203.0.113.7"),
            (&["198.51.100.9, 203.0.113.7"][..], "203.0.113.7"),
            (&["198.51.100.9, 203.0.113.7, 10.1.1.1"][..], "203.0.113.7"),
            (&["198.51.100.9", "203.0.113.7", "10.1.1.1"][..], "203.0.113.7"),
            (&["203.0.113.7:4711"][..], "203.0.113.7"),
            (&["::ffff:203.0.113.7"][..], "203.0.113.7"),
            (&["[2001:db8::1]:4711"][..], "2001:db8::1"),
            (&["garbage, 203.0.113.7"][..], "203.0.113.7"),
            (&["10.2.2.2, 10.1.1.1"][..], "10.2.2.2"),
            (&[][..], "10.0.0.1"),
        ] {
            assert_eq!(resolve(ForwardedHeader::XForwardedFor, "10.0.0.1", lines).unwrap(), expected, "{lines:?}");
        }
    }

    #[test]
    fn a_hop_that_is_no_address_is_an_error_where_it_decides() {
        for lines in [&["garbage"][..], &["203.0.113.7, unknown"][..], &["203.0.113.7,"][..], &[""][..]] {
            assert_eq!(resolve(ForwardedHeader::XForwardedFor, "10.0.0.1", lines), Err(AddressUnknown), "{lines:?}");
        }
    }

    #[test]
    fn forwarded_is_read_as_rfc_7239_writes_it() {
        for (lines, expected) in [
            (&["for=203.0.113.7"][..], "203.0.113.7"),
            (&["For=\"203.0.113.7:47011\";proto=https;by=10.0.0.1"][..], "203.0.113.7"),
            (&["for=198.51.100.9, for=\"[2001:db8:cafe::17]:4711\""][..], "2001:db8:cafe::17"),
            (&["host=\"a,b;for=1.2.3.4\";for=203.0.113.7"][..], "203.0.113.7"),
            (&["for=203.0.113.7, for=\"[2001:db8:f::1]\""][..], "203.0.113.7"),
        ] {
            assert_eq!(resolve(ForwardedHeader::Forwarded, "10.0.0.1", lines).unwrap(), expected, "{lines:?}");
        }
        for lines in [
            &["for=unknown"][..],
            &["for=_hidden"][..],
            &["proto=https"][..],
            &["for=198.51.100.9;x=\", for=203.0.113.7"][..],
        ] {
            assert_eq!(resolve(ForwardedHeader::Forwarded, "10.0.0.1", lines), Err(AddressUnknown), "{lines:?}");
        }
    }

    #[test]
    fn only_the_configured_header_is_read() {
        assert_eq!(resolve(ForwardedHeader::Forwarded, "203.0.113.7", &["for=1.2.3.4"]).unwrap(), "203.0.113.7");
    }
}

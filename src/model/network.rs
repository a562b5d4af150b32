//! The network a client speaks from, and how widely a policy scopes a URL to it.

use std::{fmt, net::IpAddr, str::FromStr};

use ipnet::IpNet;
use serde::Serialize;

use super::Invalid;

/// A network in canonical form (host bits zero) that a presigned request may come from.
///
/// IPv4-mapped IPv6 is IPv4 here, so that a dual-stack listener and an IPv4 store see the same client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct ClientNetwork(IpNet);

impl ClientNetwork {
    /// The network of `address` under `scope`; `None` when the policy does not scope.
    pub fn of(address: IpAddr, scope: IpScope) -> Option<Self> {
        let IpScope::Prefix { v4, v6 } = scope else { return None };
        let address = address.to_canonical();
        let prefix = if address.is_ipv4() { v4 } else { v6 };
        IpNet::new(address, prefix).ok().map(|net| Self(net.trunc()))
    }

    /// The network of nothing but `address`.
    pub fn of_one(address: IpAddr) -> Self {
        Self(IpNet::from(address.to_canonical()))
    }

    /// Whether it is a network of IPv4, which is all that some can be told to hold a client to.
    pub fn is_ipv4(self) -> bool {
        matches!(self.0, IpNet::V4(_))
    }

    /// Whether `address` lies in this network.
    pub fn contains(self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }
}

impl FromStr for ClientNetwork {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        match text.parse::<IpNet>() {
            Ok(net) if net == net.trunc() => Ok(Self(net)),
            _ => Err(Invalid::new("must be a network with its mask, such as \"203.0.113.0/24\"")),
        }
    }
}

impl fmt::Display for ClientNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Always with the mask: some stores read a bare IPv6 address as a /32.
        self.0.fmt(f)
    }
}

/// How a policy turns a client address into a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum IpScope {
    /// Not scoped to any network.
    Off,
    /// Scoped to the client's network of this prefix length.
    Prefix {
        /// Prefix length for IPv4 clients, 8 to 32.
        v4: u8,
        /// Prefix length for IPv6 clients, 16 to 128.
        v6: u8,
    },
}

impl IpScope {
    /// A scope of these prefix lengths.
    ///
    /// # Errors
    /// When a length is out of range, or so short that the scope would admit much of the internet.
    pub fn prefix(v4: u8, v6: u8) -> Result<Self, Invalid> {
        if !(8..=32).contains(&v4) {
            return Err(Invalid::new("v4 must be a prefix length of 8 to 32"));
        }
        if !(16..=128).contains(&v6) {
            return Err(Invalid::new("v6 must be a prefix length of 16 to 128"));
        }
        Ok(Self::Prefix { v4, v6 })
    }
}

impl fmt::Display for IpScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::Prefix { v4, v6 } => write!(f, "v4 /{v4}, v6 /{v6}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(address: &str, v4: u8, v6: u8) -> String {
        ClientNetwork::of(address.parse().unwrap(), IpScope::prefix(v4, v6).unwrap()).unwrap().to_string()
    }

    #[test]
    fn networks_are_canonical_and_always_masked() {
        assert_eq!(of("203.0.113.7", 32, 64), "203.0.113.7/32");
        assert_eq!(of("203.0.113.7", 24, 64), "203.0.113.0/24");
        assert_eq!(of("::ffff:203.0.113.7", 32, 64), "203.0.113.7/32");
        assert_eq!(of("2001:db8:1:2:3:4:5:6", 32, 64), "2001:db8:1:2::/64");
        assert_eq!(of("2001:db8::1", 32, 128), "2001:db8::1/128");
        assert_eq!(ClientNetwork::of("203.0.113.7".parse().unwrap(), IpScope::Off), None);
        assert_eq!("203.0.113.0/24".parse::<ClientNetwork>().unwrap().to_string(), "203.0.113.0/24");
        assert!("203.0.113.7".parse::<ClientNetwork>().is_err());
        assert!("203.0.113.7/24".parse::<ClientNetwork>().is_err());
    }

    #[test]
    fn membership_sees_through_mapped_addresses() {
        let network = ClientNetwork::of("203.0.113.7".parse().unwrap(), IpScope::Prefix { v4: 32, v6: 64 }).unwrap();
        assert!(network.contains("::ffff:203.0.113.7".parse().unwrap()));
        assert!(!network.contains("203.0.113.8".parse().unwrap()));
        assert!(!network.contains("2001:db8::1".parse().unwrap()));
    }

    #[test]
    fn prefixes_that_admit_everybody_are_refused() {
        assert!(IpScope::prefix(0, 64).is_err());
        assert!(IpScope::prefix(33, 64).is_err());
        assert!(IpScope::prefix(32, 0).is_err());
        assert!(IpScope::prefix(32, 129).is_err());
    }
}

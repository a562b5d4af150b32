//! Whom webhooks are sent to: not to what only this machine and its network can reach.
//!
//! The URL of an endpoint comes from the configuration, but what its name leads to is up to whoever runs the name's
//! DNS. So the addresses are judged, not the name, after every look-up, and the connection goes to one that was judged.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use ipnet::IpNet;
use reqwest::{
    Url,
    dns::{Addrs, Name, Resolve, Resolving},
};

use crate::model::is_globally_reachable;

/// Lets through what is globally reachable or explicitly allowed. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct AddressGuard {
    allowed: Arc<[IpNet]>,
}

/// An address that nothing is sent to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct AddressRefused(IpAddr);

impl fmt::Display for AddressRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is not an address of the internet, and not in webhooks.allowed_networks", self.0)
    }
}

impl std::error::Error for AddressRefused {}

impl AddressGuard {
    pub(super) fn new(allowed: &[IpNet]) -> Self {
        Self { allowed: allowed.into() }
    }

    /// Judges the host of `url` where it is an address, which is connected to without asking the resolver.
    pub(super) fn check_host(&self, url: &Url) -> Result<(), AddressRefused> {
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
        host.parse().map_or(Ok(()), |address| self.check(address))
    }

    /// Judges an address.
    pub(super) fn check(&self, address: IpAddr) -> Result<(), AddressRefused> {
        // Where an IPv4-mapped address leads is for the networks of IPv4 to say.
        let canonical = address.to_canonical();
        let allowed = self.allowed.iter().any(|network| network.contains(&address) || network.contains(&canonical));
        if allowed || is_globally_reachable(address) { Ok(()) } else { Err(AddressRefused(address)) }
    }
}

impl Resolve for AddressGuard {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = self.clone();
        Box::pin(async move {
            let addresses: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            // One bad address spoils all: a name that leads both out and in is not a receiver's.
            for address in &addresses {
                guard.check(address.ip())?;
            }
            let addresses: Addrs = Box::new(addresses.into_iter());
            Ok(addresses)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_allowed_is_let_through_and_nothing_beside_it() {
        let guard = AddressGuard::new(&["10.1.0.0/16".parse().unwrap(), "fd00::/64".parse().unwrap()]);
        for address in ["8.8.8.8", "10.1.2.3", "::ffff:10.1.2.3", "fd00::5", "2606:4700::1"] {
            assert_eq!(guard.check(address.parse().unwrap()), Ok(()), "{address}");
        }
        for address in ["10.2.0.1", "127.0.0.1", "::ffff:10.2.0.1", "::1", "fd00:0:0:1::5"] {
            let address = address.parse().unwrap();
            assert_eq!(guard.check(address), Err(AddressRefused(address)));
        }
    }
}

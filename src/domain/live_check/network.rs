//! Networks: whether a URL for one works from another.

use std::net::{IpAddr, Ipv4Addr};

use aws_lc_rs::digest;

use super::{
    BODY, LiveCheck, StoreCapability,
    put::{no_sts, refused, settled},
    report::Verdict,
};
use crate::{
    model::{ClientNetwork, IpScope, StagingArea},
    policy::Rules,
    s3::Access,
};

/// An address that nobody has (TEST-NET-1 of RFC 5737), hence from which no request can come.
const NOBODYS_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

/// The narrowest scope.
const ONE_ADDRESS: IpScope = IpScope::Prefix { v4: 32, v6: 128 };

impl LiveCheck {
    pub(super) async fn try_networks(&self) -> Vec<(StoreCapability, Verdict)> {
        if !self.service.sessions.can_scope() {
            return vec![(StoreCapability::ScopeEnforced, no_sts())];
        }
        vec![
            (StoreCapability::ScopeAdmits, settled(self.use_here().await)),
            (StoreCapability::ScopeEnforced, settled(self.use_for_nobody(&[]).await)),
            (
                StoreCapability::ScopeUnforgeable,
                settled(self.use_for_nobody(&[("x-forwarded-for", "192.0.2.1"), ("x-real-ip", "192.0.2.1")]).await),
            ),
            (StoreCapability::ScopeElsewhere, settled(self.use_elsewhere().await)),
            (StoreCapability::Area, settled(self.use_area().await)),
        ]
    }

    /// Uses a URL for this machine's own address.
    async fn use_here(&self) -> Result<Verdict, Verdict> {
        let address = self.own_address().await?;
        let signer = self.signer(ClientNetwork::of(address, ONE_ADDRESS), Access::Upload).await?;
        let put = self.signed_put(&signer, &self.fresh_key("scope-admits")?, None)?;
        let answer = self.visitor.put(&put, BODY, &[]).await?;
        let told = answer.told();
        Ok(if answer.is_success() {
            Verdict::works(format!("a PUT for {address} is taken from there: {told}"))
        } else {
            Verdict::lacks(format!("a PUT for {address}, which this machine seems to be, is answered {told}"))
        })
    }

    /// Uses URLs for an address that this machine cannot have.
    async fn use_for_nobody(&self, claims: &[(&str, &str)]) -> Result<Verdict, Verdict> {
        let network = ClientNetwork::of(NOBODYS_ADDRESS, ONE_ADDRESS);
        let what = if claims.is_empty() { "for another network" } else { "for another network, with X-Forwarded-For" };
        let name = if claims.is_empty() { "scope-enforced" } else { "scope-unforgeable" };
        let key = self.fresh_key(name)?;
        let upload = self.signer(network, Access::Upload).await?;
        let put = self.visitor.put(&self.signed_put(&upload, &key, None)?, BODY, claims).await?;
        if !put.is_refusal() {
            return Ok(refused(&put, &format!("a PUT {what}")));
        }
        // Reading is tried on something that is there: a store may say 404 before it looks at the network.
        let own = self.signer(None, Access::Upload).await?;
        let written = self.visitor.put(&self.signed_put(&own, &key, None)?, BODY, &[]).await?;
        if !written.is_success() {
            return Ok(Verdict::lacks(format!("a PUT for any network was answered {}", written.told())));
        }
        let download = self.signer(network, Access::Download).await?;
        let get = self.visitor.get(&self.signed_get(&download, &key)?, claims).await?;
        Ok(refused(&get, &format!("a PUT or GET {what}")))
    }

    async fn use_elsewhere(&self) -> Result<Verdict, Verdict> {
        let Some(other) = self.options.from_address else {
            return Ok(Verdict::untried("no second address of this machine was given: --from-address"));
        };
        let address = self.own_address().await?;
        let signer = self.signer(ClientNetwork::of(address, ONE_ADDRESS), Access::Upload).await?;
        let put = self.signed_put(&signer, &self.fresh_key("scope-elsewhere")?, None)?;
        let answer = self.visitor.put_from_elsewhere(&put).await;
        let answer = answer.unwrap_or_else(|| Err(Verdict::untried("there is no second address")))?;
        Ok(refused(&answer, &format!("a PUT for {address} from {other}")))
    }

    /// Uses credentials as clients get them, inside of their area and outside.
    async fn use_area(&self) -> Result<Verdict, Verdict> {
        let outside = self.fresh_key("area")?;
        // Nobody's but this run's.
        let digest = digest::digest(&digest::SHA256, self.prefix.as_str().as_bytes());
        let area = StagingArea::from_digest(digest.as_ref().first_chunk().copied().unwrap_or_default());
        let inside = outside
            .staged_in(area)
            .map_err(|invalid| Verdict::failed(&invalid.rule, "shorten the key of the policy \"default\""))?;
        self.traces.key(&inside);
        let access = self.service.sessions.area(area, Rules::LEAST_CREDENTIALS_LIFE);
        let signer = self.signer(None, access).await?;
        let admitted = self.visitor.put(&self.signed_put(&signer, &inside, None)?, BODY, &[]).await?;
        if !admitted.is_success() {
            return Ok(Verdict::lacks(format!(
                "a PUT in the area of its credentials was answered {}",
                admitted.told()
            )));
        }
        let put = self.visitor.put(&self.signed_put(&signer, &outside, None)?, BODY, &[]).await?;
        Ok(refused(&put, "a PUT outside of the area of its credentials"))
    }

    /// This machine as the store sees it: as said, or as a connection to the store comes from.
    async fn own_address(&self) -> Result<IpAddr, Verdict> {
        if let Some(address) = self.options.address {
            return Ok(address);
        }
        let signer = self.signer(None, Access::Download).await?;
        let origin = signer.endpoint().origin();
        let (host, default_port) = match origin.strip_prefix("https://") {
            Some(host) => (host, 443),
            None => (origin.trim_start_matches("http://"), 80),
        };
        let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()));
        let place = if has_port { host.to_owned() } else { format!("{host}:{default_port}") };
        let connected = tokio::net::TcpStream::connect(place).await;
        let address = connected.and_then(|stream| stream.local_addr());
        let failed =
            |error| Verdict::failed(&error, "s3.public_endpoint has to be reached from here as clients reach it");
        address.map(|address| address.ip()).map_err(failed)
    }
}

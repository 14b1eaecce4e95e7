//! Where the server of a URI is to be found: which transport, address and port a client tries first, and which after it.
//!
//! RFC 5928 §3 for `turn:` and `turns:`, without NAPTR, and RFC 8489 §8.1 for `stun:` and `stuns:`. Names of the hosts file
//! go before DNS and need none; the search domains of `resolv.conf` count. What is found is for one use: nothing is kept.

mod service;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::op::Query;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use hickory_resolver::{Hosts, ResolverBuilder, TokioResolver};
use turnfleet_proto::{Scheme, TurnUri, UriTransport};
use turnfleet_turn::Transport;
use turnfleet_turn::random::Random;

use service::{Service, in_order};

/// How long a URI may take to be resolved, however many questions that is.
const LIMIT: Duration = Duration::from_secs(10);

/// One way to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    /// What to speak.
    pub(crate) transport: Transport,
    /// With whom.
    pub(crate) address: SocketAddr,
}

impl fmt::Display for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} over {}", self.address, self.transport)
    }
}

/// The ways to the server of `uri`, in the order in which they are to be tried; at least one. Waits for DNS, ten seconds at
/// most.
///
/// # Errors
/// When there is none, or nobody who knows answers in time.
pub(crate) fn candidates(uri: &TurnUri) -> Result<Vec<Candidate>> {
    resolve(uri, TokioResolver::builder_tokio)
}

/// As [`candidates`], asking the DNS servers of `dns`.
fn resolve(
    uri: &TurnUri,
    dns: impl FnOnce() -> Result<ResolverBuilder<TokioRuntimeProvider>, NetError>,
) -> Result<Vec<Candidate>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let found = runtime.block_on(async {
        let names = Names {
            hosts: Hosts::from_system().unwrap_or_default(),
            dns: dns().and_then(ResolverBuilder::build),
        };
        let all = tokio::time::timeout(LIMIT, names.candidates(uri));
        all.await
            .map_err(|_| anyhow!("DNS has not answered within {LIMIT:?}"))?
    });
    found.with_context(|| format!("cannot resolve {}", uri.host))
}

/// Who knows names.
struct Names {
    hosts: Hosts,
    /// Where the system has no DNS, the reason.
    dns: Result<TokioResolver, NetError>,
}

/// What DNS says of a service of a domain.
enum Offer {
    /// The servers, in the order in which they are to be tried.
    Servers(Vec<Service>),
    /// That there is no such service, "decidedly" (RFC 2782).
    Refused,
    /// Nothing.
    Unknown,
}

impl Names {
    /// RFC 5928 §3, the numbers of whose steps stand at the places where they are taken.
    async fn candidates(&self, uri: &TurnUri) -> Result<Vec<Candidate>> {
        let transports = transports(uri)?;
        let default = uri.port.unwrap_or_else(|| uri.scheme.default_port());
        let everywhere = |addresses: &[IpAddr]| -> Vec<Candidate> {
            let each = transports.iter();
            each.flat_map(|transport| at(*transport, addresses, default))
                .collect()
        };
        // (1)
        if let Ok(address) = uri.host.parse() {
            return Ok(everywhere(&[address]));
        }
        // A name of the hosts file is this machine's own business: there are no services to ask for.
        if let Some(addresses) = self.of_hosts_file(&uri.host) {
            return Ok(everywhere(&addresses));
        }
        // (2)
        if uri.port.is_some() {
            return Ok(everywhere(&self.addresses(&uri.host).await?));
        }
        // (3) and (5)
        let mut found = Vec::new();
        let mut failure = None;
        for transport in transports.iter().copied() {
            match self.offered(uri, transport).await {
                Ok(candidates) => found.extend(candidates),
                Err(error) => failure = Some(error),
            }
        }
        match failure {
            Some(error) if found.is_empty() => Err(error),
            Some(_) | None if found.is_empty() => {
                bail!("its SRV records say that it has no such service")
            }
            Some(_) | None => Ok(found),
        }
    }

    /// The algorithm of RFC 2782 with the fall-back of RFC 5928 §3: A and AAAA records, and the default port.
    async fn offered(&self, uri: &TurnUri, transport: Transport) -> Result<Vec<Candidate>> {
        let services = match self.service(uri, transport).await? {
            Offer::Servers(services) => services,
            Offer::Refused => return Ok(Vec::new()),
            Offer::Unknown => {
                let addresses = self.addresses(&uri.host).await?;
                return Ok(at(transport, &addresses, uri.scheme.default_port()));
            }
        };
        let mut found = Vec::new();
        let mut failure = None;
        for service in services {
            match self.addresses(&service.target).await {
                Ok(addresses) => found.extend(at(transport, &addresses, service.port)),
                Err(error) => failure = Some(error.context(service.target)),
            }
        }
        match failure {
            Some(error) if found.is_empty() => Err(error),
            Some(_) | None => Ok(found),
        }
    }

    /// The SRV records of the URI's service. An error is as good as none of them (RFC 5928 §3).
    async fn service(&self, uri: &TurnUri, transport: Transport) -> Result<Offer> {
        let protocol = match transport {
            Transport::Udp => "udp",
            Transport::Tcp | Transport::Tls => "tcp",
        };
        let name = format!("_{}._{protocol}.{}", uri.scheme.name(), uri.host);
        let Ok(answer) = self.dns()?.lookup(name.as_str(), RecordType::SRV).await else {
            return Ok(Offer::Unknown);
        };
        let records = answer.answers().iter();
        let services = records.filter_map(|record| {
            // Beside them stand the aliases that have led to them.
            let RData::SRV(srv) = &record.data else {
                return None;
            };
            Some(Service {
                priority: srv.priority,
                weight: srv.weight,
                port: srv.port,
                target: srv.target.to_ascii(),
            })
        });
        let services: Vec<Service> = services.collect();
        Ok(match &services[..] {
            [] => Offer::Unknown,
            [only] if only.target == "." => Offer::Refused,
            _ => {
                let mut random = Random::new(crate::random()?);
                Offer::Servers(in_order(services, |bound| random.below(bound)))
            }
        })
    }

    /// The addresses of a name, the likeliest to be reached first.
    async fn addresses(&self, name: &str) -> Result<Vec<IpAddr>> {
        if let Some(addresses) = self.of_hosts_file(name) {
            return Ok(addresses);
        }
        let answer = self.dns()?.lookup_ip(name).await;
        let mut addresses: Vec<IpAddr> = match answer {
            Ok(answer) => answer.iter().collect(),
            Err(error) if error.is_nx_domain() => bail!("there is no such name"),
            Err(error) if error.is_no_records_found() => bail!("the name has no address"),
            Err(NetError::Timeout) => bail!("DNS does not answer"),
            Err(error) => return Err(error.into()),
        };
        // As RFC 6724 §6 has it: what this machine has no route to goes last.
        addresses.sort_by_key(|address| !has_route(*address));
        Ok(addresses)
    }

    fn of_hosts_file(&self, name: &str) -> Option<Vec<IpAddr>> {
        let name = Name::from_ascii(name).ok()?;
        let of = |kind| {
            let found = self
                .hosts
                .lookup_static_host(&Query::query(name.clone(), kind));
            found.into_iter().flat_map(|found| {
                let records = found.answers().iter();
                let addresses: Vec<_> =
                    records.filter_map(|record| record.data.ip_addr()).collect();
                addresses
            })
        };
        let mut addresses: Vec<IpAddr> = of(RecordType::AAAA).chain(of(RecordType::A)).collect();
        addresses.sort_by_key(|address| !has_route(*address));
        (!addresses.is_empty()).then_some(addresses)
    }

    fn dns(&self) -> Result<&TokioResolver> {
        self.dns
            .as_ref()
            .map_err(|why| anyhow!("the system has no DNS server: {why}"))
    }
}

/// What clients here speak with the server of `uri`, the favourite first.
fn transports(uri: &TurnUri) -> Result<&'static [Transport]> {
    use Transport::{Tcp, Tls, Udp};
    Ok(match (uri.scheme, uri.transport) {
        // RFC 7064 §3.2: without a choice, stun: is UDP.
        (Scheme::Stun, _) | (Scheme::Turn, Some(UriTransport::Udp)) => &[Udp],
        (Scheme::Turn, Some(UriTransport::Tcp)) => &[Tcp],
        (Scheme::Turn, None) => &[Udp, Tcp],
        (Scheme::Stuns, _) | (Scheme::Turns, Some(UriTransport::Tcp) | None) => &[Tls],
        (Scheme::Turns, Some(UriTransport::Udp)) => bail!("DTLS is not spoken here"),
    })
}

fn at(transport: Transport, addresses: &[IpAddr], port: u16) -> Vec<Candidate> {
    let candidate = |address: &IpAddr| Candidate {
        transport,
        address: SocketAddr::new(*address, port),
    };
    addresses.iter().map(candidate).collect()
}

/// Whether this machine could send to `address`: it is asked without a packet.
pub(crate) fn has_route(address: IpAddr) -> bool {
    let any: IpAddr = match address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    UdpSocket::bind((any, 0)).is_ok_and(|socket| socket.connect((address, 9)).is_ok())
}

#[cfg(test)]
mod tests;

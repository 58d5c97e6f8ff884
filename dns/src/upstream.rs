//! Questions that are not the cluster's go to the servers of a resolv.conf, with a bound on time and number.
//!
//! A server that sends our questions back to us would make each go round for ever: a question under a random name, asked
//! once at the start, finds out; from then on everything is refused. Addresses of Services are refused by whoever asks.

use anyhow::{Context, Result};
use coracle_daemon::{clock, random};
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{Name, Record, RecordType};
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ResolveHosts, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::system_conf::parse_resolv_conf;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::Semaphore;

/// How long one server may take, and all of them together.
const TRY_MAX: Duration = Duration::from_secs(2);
const LOOKUP_MAX: Duration = Duration::from_secs(5);
/// Questions under way at a time; more are answered SERVFAIL.
const LOOKUPS_MAX: usize = 1000;
/// Answers kept.
const CACHE_ANSWERS: u64 = 4096;
/// No answer is kept longer.
const CACHE_MAX: Duration = Duration::from_secs(30);

/// What came back.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The upstream server's code, or SERVFAIL when there was none.
    pub code: ResponseCode,
    /// Its answers.
    pub answers: Vec<Record>,
    /// Its authority section.
    pub authority: Vec<Record>,
}

impl Reply {
    const fn only(code: ResponseCode) -> Self {
        Self { code, answers: Vec::new(), authority: Vec::new() }
    }
}

/// The servers to ask.
pub struct Upstream {
    resolver: Option<TokioResolver>,
    servers: Vec<IpAddr>,
    slots: Semaphore,
    probe: Name,
    loops: AtomicBool,
}

impl Upstream {
    /// The servers of a resolv.conf, without ourselves.
    ///
    /// # Errors
    /// The file names servers in a way that cannot be used.
    pub fn from_file(path: &Path, own: &[SocketAddr]) -> Result<Self> {
        let text = match std::fs::read(path) {
            Ok(text) => text,
            Err(error) => {
                tracing::warn!(%error, path = %path.display(), "no upstream servers: only cluster names resolve");
                return Self::to(None);
            }
        };
        let servers = match parse_resolv_conf(&text) {
            Ok((config, _)) => config.into_parts().2,
            Err(error) => {
                tracing::warn!(%error, path = %path.display(), "no upstream servers: only cluster names resolve");
                return Self::to(None);
            }
        };
        let others = servers.into_iter().filter(|server| {
            !server.connections.iter().any(|used| own.contains(&SocketAddr::new(server.ip, used.port)))
        });
        let others: Vec<_> = others.collect();
        Self::to((!others.is_empty()).then(|| ResolverConfig::from_name_servers(others)))
    }

    /// The given servers; none refuses everything.
    ///
    /// # Errors
    /// They cannot be used.
    pub fn to(config: Option<ResolverConfig>) -> Result<Self> {
        let servers = config.iter().flat_map(|config| config.name_servers().iter().map(|server| server.ip));
        let servers = servers.collect();
        let build = |config| {
            let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
            let options = builder.options_mut();
            options.timeout = TRY_MAX;
            options.attempts = 2;
            options.ndots = 0;
            options.edns0 = true;
            options.use_hosts_file = ResolveHosts::Never;
            options.preserve_intermediates = true;
            options.cache_size = CACHE_ANSWERS;
            options.positive_max_ttl = Some(CACHE_MAX);
            options.negative_max_ttl = Some(CACHE_MAX);
            builder.build().context("cannot use the upstream servers")
        };
        let label = || random::name_suffix(20);
        let probe = Name::from_labels([label().as_bytes(), label().as_bytes()]).context("no probe")?;
        Ok(Self {
            resolver: config.map(build).transpose()?,
            servers,
            slots: Semaphore::new(LOOKUPS_MAX),
            probe,
            loops: AtomicBool::new(false),
        })
    }

    /// Where questions go.
    pub fn servers(&self) -> &[IpAddr] {
        &self.servers
    }

    /// Asks for the random name once; [`Upstream::ask`] sees it come back.
    pub async fn look_for_loop(&self) {
        if let Some(resolver) = &self.resolver {
            // Whatever comes of it: only its coming back counts.
            let _ = clock::timeout(LOOKUP_MAX, resolver.lookup(self.probe.clone(), RecordType::HINFO)).await;
            if self.loops.load(Ordering::Relaxed) {
                tracing::error!("upstream servers send questions back to us: refusing all but cluster names");
            }
        }
    }

    /// Asks upstream.
    pub async fn ask(&self, name: &Name, kind: RecordType) -> Reply {
        if *name == self.probe {
            self.loops.store(true, Ordering::Relaxed);
        }
        let Some(resolver) = &self.resolver else { return Reply::only(ResponseCode::Refused) };
        if self.loops.load(Ordering::Relaxed) {
            return Reply::only(ResponseCode::Refused);
        }
        let Ok(_slot) = self.slots.try_acquire() else { return Reply::only(ResponseCode::ServFail) };
        match clock::timeout(LOOKUP_MAX, resolver.lookup(name.clone(), kind)).await {
            Ok(Ok(found)) => Reply {
                code: ResponseCode::NoError,
                answers: found.answers().to_vec(),
                authority: Vec::new(),
            },
            Ok(Err(NetError::Dns(DnsError::NoRecordsFound(none)))) => {
                let authority = match (&none.authorities, none.soa) {
                    (Some(records), _) => records.to_vec(),
                    (None, Some(soa)) => vec![(*soa).into_record_of_rdata()],
                    (None, None) => Vec::new(),
                };
                Reply { code: none.response_code, answers: Vec::new(), authority }
            }
            Ok(Err(NetError::Dns(DnsError::ResponseCode(code)))) => Reply::only(code),
            Ok(Err(error)) => {
                tracing::debug!(%error, %name, "no answer from upstream");
                Reply::only(ResponseCode::ServFail)
            }
            Err(_) => Reply::only(ResponseCode::ServFail),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn servers_are_those_of_the_file_without_ourselves() {
        let own: [SocketAddr; 1] = ["192.0.2.7:53".parse().unwrap()];
        let rows = [
            ("nameserver 192.0.2.1\nsearch example.com\nnameserver 192.0.2.7\n", &["192.0.2.1"][..]),
            ("nameserver 192.0.2.7\n", &[]),
            ("search example.com\n", &[]),
        ];
        for (text, expected) in rows {
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), text).unwrap();
            let upstream = Upstream::from_file(file.path(), &own).unwrap();
            let servers: Vec<String> = upstream.servers().iter().map(ToString::to_string).collect();
            assert_eq!(servers, expected, "{text}");
        }
        assert!(Upstream::from_file(Path::new("/no/such/file"), &own).unwrap().servers().is_empty());
    }
}

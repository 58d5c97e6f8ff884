//! The listeners, over UDP and TCP, and what they do with one request.

use crate::answer::{self, Answer, Records};
use crate::upstream::Upstream;
use crate::zone::Zone;
use anyhow::{Context, Result};
use coracle_daemon::random;
use hickory_proto::op::{Edns, Header, HeaderCounts, Metadata, OpCode, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, Record, RecordType};
use hickory_server::Server;
use hickory_server::net::runtime::Time;
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::MessageResponseBuilder;
use parking_lot::RwLock;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::net::{TcpListener, UdpSocket};

/// A TCP connection that asks nothing for so long is closed.
const IDLE_MAX: Duration = Duration::from_secs(10);
/// Answers that wait to be sent on one TCP connection.
const RESPONSES_MAX: usize = 64;
/// UDP answers up to this size pass every network in one piece.
const PAYLOAD_MAX: u16 = 1232;
/// Aliases followed for one question.
const ALIASES_MAX: usize = 8;

/// Counts of what was asked.
#[derive(Clone, Default)]
pub struct Metrics {
    own: Counter,
    forwarded: Counter,
    failed: Counter,
}

impl Metrics {
    /// Names them.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("dns_cluster_answers", "Questions answered from the API", self.own.clone());
        registry.register("dns_forwarded", "Questions asked upstream", self.forwarded.clone());
        registry.register("dns_failures", "Questions answered SERVFAIL or REFUSED", self.failed.clone());
    }
}

/// Answers requests.
pub struct Handler {
    /// The cluster's names.
    pub zone: Arc<RwLock<Zone>>,
    /// Whether the zone is complete.
    pub ready: Arc<AtomicBool>,
    /// Everything else.
    pub upstream: Arc<Upstream>,
    /// Counts.
    pub metrics: Metrics,
}

/// Binds UDP and TCP to one address.
///
/// # Errors
/// It is taken or not ours.
pub async fn bind(address: SocketAddr) -> Result<(UdpSocket, TcpListener)> {
    let udp = UdpSocket::bind(address).await.with_context(|| format!("cannot listen on {address} (UDP)"))?;
    let address = udp.local_addr().context("cannot read the bound address")?;
    let tcp =
        TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address} (TCP)"))?;
    Ok((udp, tcp))
}

/// A server on these sockets; it runs on its own until it is shut down.
pub fn serve(handler: Handler, sockets: Vec<(UdpSocket, TcpListener)>) -> Server<Handler> {
    let mut server = Server::new(handler);
    for (udp, tcp) in sockets {
        server.register_socket(udp);
        server.register_listener(tcp, IDLE_MAX, RESPONSES_MAX);
    }
    server
}

/// An answer about to be sent.
struct Outcome {
    code: ResponseCode,
    authoritative: bool,
    answers: Vec<Record>,
    authority: Vec<Record>,
    additional: Vec<Record>,
}

impl Outcome {
    const fn only(code: ResponseCode) -> Self {
        Self {
            code,
            authoritative: false,
            answers: Vec::new(),
            authority: Vec::new(),
            additional: Vec::new(),
        }
    }
}

impl Handler {
    async fn decide(&self, request: &Request) -> Outcome {
        if request.metadata.op_code != OpCode::Query {
            return Outcome::only(ResponseCode::NotImp);
        }
        if request.edns.as_ref().is_some_and(|edns| edns.version() > 0) {
            return Outcome::only(ResponseCode::BADVERS);
        }
        let Ok(info) = request.request_info() else { return Outcome::only(ResponseCode::FormErr) };
        let kind = info.query.query_type();
        let transfer = matches!(kind, RecordType::AXFR | RecordType::IXFR | RecordType::OPT);
        if info.query.query_class() != DNSClass::IN || transfer {
            return Outcome::only(ResponseCode::Refused);
        }
        self.resolve(info.query.original().name(), kind).await
    }

    async fn resolve(&self, name: &Name, kind: RecordType) -> Outcome {
        if !self.ready.load(Ordering::Acquire) {
            return Outcome::only(ResponseCode::ServFail);
        }
        let mut outcome = Outcome { authoritative: true, ..Outcome::only(ResponseCode::NoError) };
        let mut name = name.clone();
        for _ in 0..=ALIASES_MAX {
            // Bound first: the lock must not be held while upstream is asked.
            let (known, loops) = {
                let zone = self.zone.read();
                let loops = self.upstream.servers().iter().any(|server| zone.is_virtual(*server));
                (answer::answer(&zone, &name, kind), loops)
            };
            let alias = match known {
                Answer::Own(records) => outcome.add(records),
                // An upstream behind a Service could be ourselves, or ask us.
                Answer::Upstream if loops => return Outcome::only(ResponseCode::Refused),
                Answer::Upstream => {
                    self.metrics.forwarded.inc();
                    let reply = self.upstream.ask(&name, kind).await;
                    outcome.authoritative = !outcome.answers.is_empty();
                    outcome.code = reply.code;
                    outcome.answers.extend(reply.answers);
                    outcome.authority.extend(reply.authority);
                    return outcome;
                }
            };
            match alias {
                Some(target) if target != name => name = target,
                _ => {
                    self.metrics.own.inc();
                    shuffle(&mut outcome.answers);
                    return outcome;
                }
            }
        }
        Outcome::only(ResponseCode::ServFail)
    }
}

impl Outcome {
    /// Takes in what the cluster knows; returns where an alias leads.
    fn add(&mut self, records: Records) -> Option<Name> {
        self.code = records.code;
        self.answers.extend(records.answers);
        self.authority.extend(records.authority);
        self.additional.extend(records.additional);
        records.alias
    }
}

/// Clients take the first address: each answer begins with another. Aliases stay in front.
fn shuffle(answers: &mut [Record]) {
    let aliases = answers.iter().take_while(|record| record.record_type() == RecordType::CNAME).count();
    let addresses = &mut answers[aliases..];
    for last in (1..addresses.len()).rev() {
        let other = usize::try_from(random::below(last as u64 + 1)).unwrap_or(0);
        addresses.swap(last, other);
    }
}

#[async_trait::async_trait]
impl RequestHandler for Handler {
    async fn handle_request<R: ResponseHandler, T: Time>(
        &self,
        request: &Request,
        mut response: R,
    ) -> ResponseInfo {
        let outcome = self.decide(request).await;
        if matches!(outcome.code, ResponseCode::ServFail | ResponseCode::Refused) {
            self.metrics.failed.inc();
        }
        let mut metadata = Metadata::response_from_request(&request.metadata);
        metadata.response_code = outcome.code;
        metadata.authoritative = outcome.authoritative;
        metadata.recursion_available = true;
        let edns = request.edns.as_ref().map(|asked| {
            let mut edns = Edns::new();
            edns.set_max_payload(asked.max_payload().clamp(512, PAYLOAD_MAX));
            edns.set_dnssec_ok(asked.flags().dnssec_ok);
            edns.set_rcode_high(outcome.code.high());
            edns
        });
        let message = MessageResponseBuilder::new(&request.queries, edns.as_ref()).build(
            metadata,
            &outcome.answers,
            &outcome.authority,
            [],
            &outcome.additional,
        );
        match response.send_response(message).await {
            Ok(info) => info,
            Err(error) => {
                tracing::debug!(%error, "cannot send an answer");
                ResponseInfo::from(Header { metadata, counts: HeaderCounts::default() })
            }
        }
    }
}

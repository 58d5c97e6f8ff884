//! Who was let in, and what they were allowed.

use super::Histogram;
use crate::meters::Register;
use crate::request::UserInfo;
use coracle_api::status::Status;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use std::time::Duration;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Ended {
    result: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Named {
    username: &'static str,
}

/// From a millisecond, each twice the one before.
const SECONDS: [f64; 15] = [
    0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096, 8.192, 16.384,
];
/// From none to a year.
const LEFT: [f64; 14] = [
    0.0,
    1800.0,
    3600.0,
    7200.0,
    21_600.0,
    43_200.0,
    86_400.0,
    172_800.0,
    345_600.0,
    604_800.0,
    2_592_000.0,
    7_776_000.0,
    15_552_000.0,
    31_104_000.0,
];

/// What an authorizer said in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Yes.
    Allowed,
    /// No, whatever others say.
    Denied,
    /// Nobody said yes.
    NoOpinion,
    /// It could not tell.
    Error,
}

/// A count and times for each result, found once.
struct Results<const N: usize>([(&'static str, Counter, Histogram); N]);

impl<const N: usize> Results<N> {
    fn new(counts: &Family<Ended, Counter>, times: &super::Histograms<Ended>, of: [&'static str; N]) -> Self {
        Self(of.map(|result| {
            let label = Ended { result };
            (result, counts.get_or_create_owned(&label), times.get_or_create_owned(&label))
        }))
    }

    fn took(&self, result: &str, time: Duration) {
        if let Some((_, count, times)) = self.0.iter().find(|(own, ..)| *own == result) {
            count.inc();
            times.took(time);
        }
    }
}

/// The meters.
pub struct Access {
    authenticated: Results<3>,
    authorized: Results<4>,
    users: Family<Named, Counter>,
    left: Histogram,
    /// Connections with which no keys were agreed on.
    pub unagreed: Counter,
}

fn seconds() -> Histogram {
    Histogram::seconds(&SECONDS)
}

impl Access {
    /// Told of at a registry from now on.
    pub fn new(registry: &mut Registry) -> Self {
        let times = || Family::new_with_constructor(seconds as fn() -> Histogram);
        let mut to = Register::of(registry, "");
        let attempts =
            to.add("authentication_attempts", "Requests whose sender was looked for", Family::default());
        let authentication = to.add("authentication_duration_seconds", "Time to know who asks", times());
        let decisions = to.add("authorization_attempts", "Requests that were judged", Family::default());
        let authorization = to.add("authorization_duration_seconds", "Time to judge", times());
        let users =
            to.add("authenticated_user_requests", "Requests of those who are known", Family::default());
        let left = to.add(
            "apiserver_client_certificate_expiration_seconds",
            "How long certificates of requests are good for",
            Histogram::seconds(&LEFT),
        );
        let unagreed = to.add(
            "apiserver_tls_handshake_errors",
            "Connections with which no keys were agreed on",
            Counter::default(),
        );
        Self {
            unagreed,
            authenticated: Results::new(&attempts, &authentication, ["success", "failure", "error"]),
            authorized: Results::new(
                &decisions,
                &authorization,
                ["allowed", "denied", "no-opinion", "error"],
            ),
            users,
            left,
        }
    }

    /// Somebody was looked for. `tried`: with a token, of which somebody should have known; `left`: how long a certificate is
    /// good for that was shown.
    pub fn authenticated(
        &self,
        who: &Result<UserInfo, Status>,
        tried: bool,
        time: Duration,
        left: Option<Duration>,
    ) {
        let result = match who {
            Ok(user) => {
                self.users.get_or_create_owned(&Named { username: known(&user.name) }).inc();
                "success"
            }
            Err(status) if status.code == 401 && !tried => "failure",
            Err(_) => "error",
        };
        self.authenticated.took(result, time);
        if let Some(left) = left {
            self.left.took(left);
        }
    }

    /// Somebody was judged.
    pub fn authorized(&self, outcome: Outcome, time: Duration) {
        let result = match outcome {
            Outcome::Allowed => "allowed",
            Outcome::Denied => "denied",
            Outcome::NoOpinion => "no-opinion",
            Outcome::Error => "error",
        };
        self.authorized.took(result, time);
    }
}

/// A user's name as series have it: there are few of those.
fn known(name: &str) -> &'static str {
    const OWN: [&str; 5] =
        ["admin", "client", "kube_proxy", "kubelet", "system:serviceaccount:kube-system:default"];
    let own = OWN.into_iter().find(|own| *own == name);
    own.unwrap_or(if name.contains('@') { "email_id" } else { "other" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::encoding::text::encode;

    #[test]
    fn each_result_is_counted_and_few_names_are_told() {
        let mut registry = Registry::default();
        let access = Access::new(&mut registry);
        let user = |name: &str| Ok(UserInfo { name: name.to_owned(), ..UserInfo::default() });
        let day = Some(Duration::from_secs(86_000));
        access.authenticated(&user("admin"), false, Duration::ZERO, day);
        access.authenticated(&user("jane"), true, Duration::ZERO, None);
        access.authenticated(&user("jane@x.example"), true, Duration::ZERO, None);
        for tried in [false, true] {
            access.authenticated(&Err(Status::unauthorized()), tried, Duration::ZERO, None);
        }
        access.authorized(Outcome::NoOpinion, Duration::ZERO);
        let mut text = String::new();
        encode(&mut text, &registry).expect("text");
        for line in [
            "authentication_attempts_total{result=\"success\"} 3",
            "authentication_attempts_total{result=\"failure\"} 1",
            "authentication_attempts_total{result=\"error\"} 1",
            "authorization_attempts_total{result=\"no-opinion\"} 1",
            "authenticated_user_requests_total{username=\"admin\"} 1",
            "authenticated_user_requests_total{username=\"other\"} 1",
            "authenticated_user_requests_total{username=\"email_id\"} 1",
            "apiserver_client_certificate_expiration_seconds_bucket{le=\"86400.0\"} 1",
            "authorization_duration_seconds_count{result=\"no-opinion\"} 1",
        ] {
            assert!(text.contains(line), "{line}: {text}");
        }
    }
}

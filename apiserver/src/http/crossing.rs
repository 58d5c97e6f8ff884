//! What browsers are told of this server: whether pages of other origins may ask it (`--cors-allowed-origins`), and that it is
//! to be asked over TLS alone (`--strict-transport-security-directives`).

use anyhow::{Context, ensure};
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ORIGIN, STRICT_TRANSPORT_SECURITY,
};
use http::{HeaderMap, HeaderName, HeaderValue};
use regex::Regex;

/// Flags, named as kube-apiserver's.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct CrossingArgs {
    /// Origins whose pages may ask this server, as regular expressions.
    #[arg(long, value_delimiter = ',')]
    pub cors_allowed_origins: Vec<String>,
    /// Directives of the header Strict-Transport-Security, such as max-age=31536000.
    #[arg(long, value_delimiter = ',')]
    pub strict_transport_security_directives: Vec<String>,
}

/// What an origin that may ask is told besides its name.
const ALLOWED: [(HeaderName, &str); 4] = [
    (ACCESS_CONTROL_ALLOW_METHODS, "POST, GET, OPTIONS, PUT, DELETE, PATCH"),
    (
        ACCESS_CONTROL_ALLOW_HEADERS,
        "Content-Type, Content-Length, Accept-Encoding, X-CSRF-Token, Authorization, X-Requested-With, If-Modified-Since",
    ),
    (ACCESS_CONTROL_EXPOSE_HEADERS, "Date"),
    (ACCESS_CONTROL_ALLOW_CREDENTIALS, "true"),
];

/// The flags, read.
#[derive(Default)]
pub struct Crossing {
    origins: Vec<Regex>,
    transport: Option<HeaderValue>,
}

impl Crossing {
    /// By the flags.
    ///
    /// # Errors
    /// An origin is no regular expression that is pinned to an end, or a directive is unknown.
    pub fn new(args: &CrossingArgs) -> anyhow::Result<Self> {
        let origin = |text: &String| {
            // Half of a name could be anybody's.
            let pinned = text.starts_with('^') || text.ends_with('$') || text.starts_with("//");
            ensure!(pinned, "--cors-allowed-origins: {text:?} must pin the begin or the end of a host");
            Regex::new(text).with_context(|| format!("--cors-allowed-origins: {text:?}"))
        };
        let directives = &args.strict_transport_security_directives;
        for directive in directives {
            let known = ["includeSubDomains", "preload"].contains(&directive.trim());
            ensure!(
                known || directive.trim().starts_with("max-age="),
                "--strict-transport-security-directives invalid, allowed values: max-age=expireTime, includeSubDomains, preload"
            );
        }
        let transport = (!directives.is_empty()).then(|| HeaderValue::from_str(&directives.join("; ")));
        Ok(Self {
            origins: args.cors_allowed_origins.iter().map(origin).collect::<anyhow::Result<_>>()?,
            transport: transport.transpose().context("--strict-transport-security-directives")?,
        })
    }

    /// What the answer to a request with such headers says of it.
    #[must_use]
    pub fn headers(&self, request: &HeaderMap) -> HeaderMap {
        let mut told = HeaderMap::new();
        if let Some(transport) = &self.transport {
            told.insert(STRICT_TRANSPORT_SECURITY, transport.clone());
        }
        let origin = request.get(ORIGIN).filter(|_| !self.origins.is_empty());
        let Some((origin, text)) = origin.and_then(|origin| Some((origin, origin.to_str().ok()?))) else {
            return told;
        };
        if self.origins.iter().any(|allowed| allowed.is_match(&text.to_lowercase())) {
            told.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            told.extend(ALLOWED.map(|(name, value)| (name, HeaderValue::from_static(value))));
        }
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crossing(origins: &[&str], directives: &[&str]) -> anyhow::Result<Crossing> {
        let own = |all: &[&str]| all.iter().map(ToString::to_string).collect();
        Crossing::new(&CrossingArgs {
            cors_allowed_origins: own(origins),
            strict_transport_security_directives: own(directives),
        })
    }

    #[test]
    fn only_origins_that_match_are_told_that_they_may() {
        let crossing = crossing(&["//a.example$", "^https://b"], &["max-age=1", "preload"]).expect("flags");
        for (origin, may) in [
            ("https://a.example", true),
            ("https://A.example", true),
            ("https://a.example.org", false),
            ("https://bb", true),
            ("http://b", false),
            ("", false),
        ] {
            let mut request = HeaderMap::new();
            request.insert(ORIGIN, HeaderValue::from_static(origin));
            let told = crossing.headers(&request);
            assert_eq!(
                told.get(ACCESS_CONTROL_ALLOW_ORIGIN).is_some_and(|own| own == origin),
                may,
                "{origin}"
            );
            assert_eq!(told.contains_key(ACCESS_CONTROL_ALLOW_CREDENTIALS), may, "{origin}");
            assert_eq!(told[STRICT_TRANSPORT_SECURITY], "max-age=1; preload");
        }
        assert!(crossing.headers(&HeaderMap::new()).get(ACCESS_CONTROL_ALLOW_ORIGIN).is_none());
    }

    #[test]
    fn flags_that_say_too_much_or_nothing_are_refused() {
        assert!(crossing(&["a.example"], &[]).is_err());
        assert!(crossing(&["^("], &[]).is_err());
        assert!(crossing(&[], &["for-ever"]).is_err());
        assert!(crossing(&[], &[]).expect("none").headers(&HeaderMap::new()).is_empty());
    }
}

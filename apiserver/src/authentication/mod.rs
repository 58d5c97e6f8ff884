//! Authentication: client certificate or bearer token in, a user out.

use crate::reader::{Objects, Reader};
use crate::request::UserInfo;
use coracle_api::status::Status;
use std::path::PathBuf;
use std::sync::Arc;

/// Settings of authentication and of ServiceAccount tokens, named as kube-apiserver's flags.
#[derive(Clone, Debug, clap::Args)]
pub struct AuthenticationArgs {
    /// CA that signs client certificates.
    #[arg(long)]
    pub client_ca_file: Option<PathBuf>,
    /// PEM public or private keys that verify ServiceAccount tokens.
    #[arg(long)]
    pub service_account_key_file: Vec<PathBuf>,
    /// PEM private key that signs ServiceAccount tokens.
    #[arg(long)]
    pub service_account_signing_key_file: Option<PathBuf>,
    /// `iss` of ServiceAccount tokens.
    #[arg(long, default_value = "https://kubernetes.default.svc.cluster.local")]
    pub service_account_issuer: String,
    /// Audiences that tokens may be for; the issuer when empty.
    #[arg(long)]
    pub api_audiences: Vec<String>,
    /// Let requests without credentials in as system:anonymous.
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    pub anonymous_auth: bool,
}

/// Authenticates requests and issues tokens.
pub struct Authentication {
    _private: (),
}

impl Authentication {
    /// Reads keys and files.
    ///
    /// # Errors
    /// A file is missing or unusable.
    pub fn new(args: &AuthenticationArgs, reader: Arc<dyn Reader>, objects: Arc<dyn Objects>) -> anyhow::Result<Self> {
        let _ = (args, reader, objects);
        Ok(Self { _private: () })
    }

    /// The user behind a request: its verified peer certificate (DER leaf) or its headers (bearer token, impersonation
    /// is handled after by [`crate::authorization`]).
    ///
    /// # Errors
    /// 401 for bad credentials, or for none where anonymous is off.
    pub async fn authenticate(&self, headers: &http::HeaderMap, peer: Option<&[u8]>) -> Result<UserInfo, Status> {
        let _ = (headers, peer);
        Err(Status::unauthorized())
    }
}

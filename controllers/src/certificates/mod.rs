//! CertificateSigningRequests: approves those of kubelets, signs approved ones with the cluster's CA, and clears old ones away.
//!
//! In: requests. Out: conditions, certificates, deletions.
//!
//!     approve.rs  who may have a request approved without anybody looking
//!     sign.rs     what each signer signs
//!     clean.rs    how long requests stay

mod approve;
mod clean;
mod sign;
#[cfg(test)]
mod tests;

use crate::context::Context;
use anyhow::Context as _;
use coracle_client::controller::{Next, ReconcileError};
use coracle_client::{Key, Queue};
use coracle_daemon::clock;
use coracle_keys::certificate::Authority;
use k8s_openapi::api::authorization::v1::SubjectAccessReview;
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestCondition, CertificateSigningRequestStatus,
};
use kube::api::{Api, PostParams};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Flags, named as kube-controller-manager's.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct SigningArgs {
    /// PEM certificate of the CA that signs certificates for the cluster
    #[arg(long, requires = "cluster_signing_key_file")]
    pub cluster_signing_cert_file: Option<PathBuf>,
    /// Its PEM private key
    #[arg(long, requires = "cluster_signing_cert_file")]
    pub cluster_signing_key_file: Option<PathBuf>,
    /// Longest life of a signed certificate, in hours
    #[arg(long, default_value = "8760h0m0s", value_parser = hours)]
    pub cluster_signing_duration: Duration,
}

/// Go's durations as far as whole hours, minutes and seconds go.
fn hours(text: &str) -> anyhow::Result<Duration> {
    let span: jiff::SignedDuration = text.parse().with_context(|| format!("{text:?} is no duration"))?;
    let duration = Duration::try_from(span).context("a duration is not negative")?;
    anyhow::ensure!(!duration.is_zero(), "a certificate lives longer than no time");
    Ok(duration)
}

/// Whoever signs.
pub struct Signer {
    authority: Authority,
    longest: Duration,
}

impl SigningArgs {
    /// The signer; `None` when there is no CA to sign with.
    ///
    /// # Errors
    /// The files cannot be used.
    pub fn signer(&self) -> anyhow::Result<Option<Arc<Signer>>> {
        let (Some(certificate), Some(key)) =
            (&self.cluster_signing_cert_file, &self.cluster_signing_key_file)
        else {
            return Ok(None);
        };
        let authority = Authority::from_files(certificate, key).context("cannot sign certificates")?;
        Ok(Some(Arc::new(Signer { authority, longest: self.cluster_signing_duration })))
    }
}

/// Without a signer nothing is signed, but approved and cleared away.
pub fn start(ctx: &Context, signer: Option<Arc<Signer>>) {
    let queue = Queue::new();
    let wake = queue.clone();
    ctx.stores.signing_requests.on_change(move |change| wake.add(change.key.clone()));
    ctx.control("certificates", queue, 2, move |ctx, key| {
        let signer = signer.clone();
        async move { reconcile(&ctx, &key, signer.as_deref()).await }
    });
}

async fn reconcile(ctx: &Context, key: &Key, signer: Option<&Signer>) -> Result<Next, ReconcileError> {
    let Some(request) = ctx.stores.signing_requests.get(key) else { return Ok(Next::Change) };
    let api: Api<CertificateSigningRequest> = Api::all(ctx.client.clone());
    let now = clock::now();
    let left = match clean::look(&request, now) {
        clean::Look::Gone => return ctx.execute(clean::deletion(&request), None).await,
        clean::Look::Later(left) => left,
    };
    if let Some(recognized) = approve::recognized(&request) {
        for (subresource, message) in recognized {
            let review = approve::question(&request, subresource);
            let reviews: Api<SubjectAccessReview> = Api::all(ctx.client.clone());
            let answer = reviews.create(&PostParams::default(), &review).await?;
            if answer.status.is_some_and(|status| status.allowed) {
                let mut approved = request.as_ref().clone();
                add(&mut approved, "Approved", "AutoApproved", message);
                write(&api, "approval", &approved).await?;
                return Ok(Next::Change);
            }
        }
        tracing::debug!(request = %key.name, "a kubelet's request is not approved: its sender may not ask for it");
    }
    if let Some(signer) = signer
        && let Some(outcome) = sign::signed(signer, &request, now)
    {
        let mut signed = request.as_ref().clone();
        match outcome {
            Ok(certificate) => {
                let status = signed.status.get_or_insert_default();
                status.certificate = Some(k8s_openapi::ByteString(certificate.into_bytes()));
            }
            Err(why) => add(&mut signed, "Failed", "SignerValidationFailure", &why),
        }
        write(&api, "status", &signed).await?;
        return Ok(Next::Change);
    }
    Ok(Next::After(left))
}

fn add(request: &mut CertificateSigningRequest, kind: &str, reason: &str, message: &str) {
    let status: &mut CertificateSigningRequestStatus = request.status.get_or_insert_default();
    status.conditions.get_or_insert_default().push(CertificateSigningRequestCondition {
        type_: kind.to_owned(),
        status: "True".to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        ..CertificateSigningRequestCondition::default()
    });
}

/// The role of this controller updates and does not patch. Both subresources take nothing but the status, whose every field
/// the type knows.
async fn write(
    api: &Api<CertificateSigningRequest>,
    subresource: &str,
    request: &CertificateSigningRequest,
) -> Result<(), ReconcileError> {
    let name = request.metadata.name.clone().unwrap_or_default();
    let written: kube::Result<CertificateSigningRequest> =
        api.replace_subresource(subresource, &name, &PostParams::default(), request).await;
    match written {
        Err(error) if coracle_client::errors::is_not_found(&error) => Ok(()),
        written => Ok(written.map(drop)?),
    }
}

/// Whether a request has a condition.
fn has(request: &CertificateSigningRequest, kind: &str) -> bool {
    condition(request, kind).is_some()
}

fn condition<'a>(
    request: &'a CertificateSigningRequest,
    kind: &str,
) -> Option<&'a CertificateSigningRequestCondition> {
    let conditions = request.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == kind)
}

/// The certificate that was issued, PEM.
fn issued(request: &CertificateSigningRequest) -> Option<&[u8]> {
    let certificate = &request.status.as_ref()?.certificate.as_ref()?.0;
    (!certificate.is_empty()).then_some(certificate.as_slice())
}

//! Requests that are answered and not stored: access and token reviews, tokens of ServiceAccounts.

use super::create::place;
use super::options::WriteOptions;
use super::{At, Call, Registry, Reply, body};
use coracle_api::apply::{self, Writer};
use coracle_api::defaults;
use coracle_api::kinds::Kind;
use coracle_api::status::Status;
use coracle_daemon::clock;
use serde_json::{Value, json};

/// Whether `kind` is a review.
pub(super) fn is_review(kind: &Kind) -> bool {
    matches!(kind.group.as_str(), "authorization.k8s.io" | "authentication.k8s.io")
}

/// Notes who owns what was asked.
fn own(object: &mut Value, kind: &Kind, options: &WriteOptions, subresource: &str) {
    let now = clock::rfc3339_seconds(clock::now());
    apply::update(object, None, kind, &Writer { manager: &options.manager, subresource, now: &now });
}

impl Registry {
    pub(super) async fn review(&self, call: &Call) -> Result<Reply, Status> {
        let kind = call.kind()?;
        let options = WriteOptions::read(call, "CreateOptions", false)?;
        let read = body::read(&call.content_type, &call.body, kind, options.validation)?;
        let mut object = read.object;
        place(&mut object, kind, &call.info.namespace)?;
        own(&mut object, kind, &options, "");
        let answer = match kind.kind.as_str() {
            "TokenReview" => self.authentication.review_token(object).await?,
            "SelfSubjectReview" => self.authentication.review_self(&call.user),
            name => self.authorization.review(name, &call.user, object).await?,
        };
        Ok(Reply::value(201, call.format, &answer)?.warned(read.warnings))
    }

    pub(super) async fn issue_token(&self, call: &Call) -> Result<Reply, Status> {
        let options = WriteOptions::read(call, "CreateOptions", false)?;
        let of = body::loose_kind("authentication.k8s.io", "v1", "TokenRequest");
        let read = body::read(&call.content_type, &call.body, &of, options.validation)?;
        let mut request = read.object;
        defaults::apply(&mut request, &of);
        own(&mut request, &of, &options, "token");
        let at = At::new(call, self.resource(call.kind()?)?, options)?;
        self.mutate(&at, "CREATE", None, &mut request).await?;
        self.admit(&at, "CREATE", None, &request).await?;
        let mut answer = self.authentication.issue(&call.info.namespace, &call.info.name, &request).await?;
        if at.options.dry_run {
            answer["status"]["token"] = json!("");
        }
        Ok(Reply::value(201, call.format, &answer)?.warned(read.warnings))
    }
}

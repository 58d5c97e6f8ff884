//! Requests that are answered and not stored: access and token reviews, tokens of ServiceAccounts.

use super::call::warned;
use super::create::place;
use super::options::WriteOptions;
use super::{At, Call, Registry, Reply, body};
use crate::{authentication, authorization};
use coracle_api::apply::{self, Writer};
use coracle_api::defaults;
use coracle_api::kinds::Kind;
use coracle_api::status::Status;
use coracle_daemon::clock;
use serde_json::Value;

/// Notes who owns what was asked, as admission sees it: nothing of it is kept.
pub(super) fn own(object: &mut Value, kind: &Kind, options: &WriteOptions, subresource: &str) {
    let now = clock::rfc3339_seconds(clock::now());
    apply::update(object, None, kind, &Writer { manager: &options.manager, subresource, now: &now });
}

impl Registry {
    pub(super) async fn review(&self, call: &Call) -> Result<Reply, Status> {
        let kind = call.kind()?;
        let options = WriteOptions::read(call, "CreateOptions", false)?;
        let read = body::read(&call.content_type, &call.body, kind, options.validation)?;
        warned(self.reviewed(call, read.object, options).await, read.warnings)
    }

    async fn reviewed(&self, call: &Call, mut object: Value, options: WriteOptions) -> Result<Reply, Status> {
        let kind = call.kind()?;
        place(&mut object, kind, &call.info.namespace)?;
        own(&mut object, kind, &options, "");
        let at = self.unstored(call, options)?;
        let mut warnings = self.mutate(&at, "CREATE", None, &mut object).await?;
        match kind.kind.as_str() {
            "TokenReview" => authentication::check_review(&object)?,
            "SelfSubjectReview" => {}
            name => authorization::check_review(name, &object)?,
        }
        warnings.extend(self.admit(&at, "CREATE", None, &object).await?);
        let answer = match kind.kind.as_str() {
            "TokenReview" => self.authentication.review_token(object).await,
            "SelfSubjectReview" => self.authentication.review_self(&call.user),
            name => self.authorization.review(name, &call.user, object).await,
        };
        Ok(Reply::value(201, call.format, &answer)?.warned(warnings))
    }

    pub(super) async fn issue_token(&self, call: &Call) -> Result<Reply, Status> {
        let options = WriteOptions::read(call, "CreateOptions", false)?;
        let of = body::loose_kind("authentication.k8s.io", "v1", "TokenRequest");
        let read = body::read(&call.content_type, &call.body, &of, options.validation)?;
        warned(self.issued_token(call, &of, read.object, options).await, read.warnings)
    }

    async fn issued_token(
        &self,
        call: &Call,
        of: &Kind,
        mut request: Value,
        options: WriteOptions,
    ) -> Result<Reply, Status> {
        place(&mut request, of, &call.info.namespace)?;
        defaults::apply(&mut request, of);
        own(&mut request, of, &options, "token");
        let at = At::new(call, self.resource(call.kind()?)?, options)?;
        self.mutate(&at, "CREATE", None, &mut request).await?;
        self.authentication.complete(&call.info.namespace, &call.info.name, &mut request).await?;
        self.admit(&at, "CREATE", None, &request).await?;
        // Nothing is stored of a token, so that a dry run has nothing to leave out.
        let issued = self.authentication.issue(&call.info.namespace, &call.info.name, &request).await?;
        let (answer, warning) = issued;
        warned(Reply::value(201, call.format, &answer), warning.into_iter().collect())
    }
}

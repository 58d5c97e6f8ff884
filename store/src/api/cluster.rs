//! `etcdserverpb.Cluster`.

use super::Api;
use crate::consensus;
use crate::error::StoreError;
use coracle_etcd::proto::cluster_server::Cluster;
use coracle_etcd::proto::{
    Member, MemberAddRequest, MemberAddResponse, MemberListRequest, MemberListResponse, MemberPromoteRequest,
    MemberPromoteResponse, MemberRemoveRequest, MemberRemoveResponse, MemberUpdateRequest,
    MemberUpdateResponse, ResponseHeader,
};
use tonic::{Request, Response, Status};

fn message(member: consensus::Member) -> Member {
    Member {
        id: member.id,
        name: member.name,
        peer_ur_ls: member.peer_urls,
        client_ur_ls: member.client_urls,
        is_learner: member.is_learner,
    }
}

/// Peer URLs without trailing slashes, if they are all `http(s)://HOST:PORT`, as etcd wants them.
pub(super) fn peer_urls(urls: Vec<String>) -> Result<Vec<String>, StoreError> {
    if urls.is_empty() {
        return Err(StoreError::BadMemberUrls);
    }
    let mut checked = Vec::with_capacity(urls.len());
    for url in urls {
        let uri: tonic::transport::Uri =
            url.trim_end_matches('/').parse().map_err(|_| StoreError::BadMemberUrls)?;
        let is_http = matches!(uri.scheme_str(), Some("http" | "https"));
        if !is_http || uri.port_u16().is_none() || uri.host().is_none() || uri.path() != "/" {
            return Err(StoreError::BadMemberUrls);
        }
        checked.push(url.trim_end_matches('/').to_owned());
    }
    checked.sort();
    Ok(checked)
}

impl Api {
    /// As etcd's: who the members are has no revision.
    fn member_header(&self) -> Option<ResponseHeader> {
        self.header_at(0)
    }

    fn member_messages(&self) -> Vec<Member> {
        self.consensus.members().into_iter().map(message).collect()
    }
}

#[tonic::async_trait]
impl Cluster for Api {
    async fn member_add(
        &self,
        request: Request<MemberAddRequest>,
    ) -> Result<Response<MemberAddResponse>, Status> {
        self.admit_voter(&request)?;
        let request = request.into_inner();
        let urls = peer_urls(request.peer_ur_ls)?;
        let member = self.consensus.add_member(urls, request.is_learner).await?;
        let members = self.member_messages();
        Ok(Response::new(MemberAddResponse {
            header: self.member_header(),
            member: Some(message(member)),
            members,
        }))
    }

    async fn member_remove(
        &self,
        request: Request<MemberRemoveRequest>,
    ) -> Result<Response<MemberRemoveResponse>, Status> {
        self.admit_voter(&request)?;
        self.consensus.remove_member(request.into_inner().id).await?;
        let members = self.member_messages();
        Ok(Response::new(MemberRemoveResponse { header: self.member_header(), members }))
    }

    async fn member_update(
        &self,
        request: Request<MemberUpdateRequest>,
    ) -> Result<Response<MemberUpdateResponse>, Status> {
        self.admit_voter(&request)?;
        let request = request.into_inner();
        let urls = peer_urls(request.peer_ur_ls)?;
        self.consensus.update_member(request.id, urls).await?;
        let members = self.member_messages();
        Ok(Response::new(MemberUpdateResponse { header: self.member_header(), members }))
    }

    async fn member_list(
        &self,
        request: Request<MemberListRequest>,
    ) -> Result<Response<MemberListResponse>, Status> {
        if request.get_ref().linearizable {
            self.admit_voter(&request)?;
            self.barrier().await?;
        } else {
            self.admit(&request)?;
        }
        let members = self.member_messages();
        Ok(Response::new(MemberListResponse { header: self.member_header(), members }))
    }

    async fn member_promote(
        &self,
        request: Request<MemberPromoteRequest>,
    ) -> Result<Response<MemberPromoteResponse>, Status> {
        self.admit_voter(&request)?;
        self.consensus.promote_member(request.into_inner().id).await?;
        let members = self.member_messages();
        Ok(Response::new(MemberPromoteResponse { header: self.member_header(), members }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peer_urls_are_a_scheme_a_host_and_a_port() {
        let urls = |urls: &[&str]| peer_urls(urls.iter().map(|url| (*url).to_owned()).collect());
        assert_eq!(
            urls(&["https://b:1/", "http://a:2"]),
            Ok(vec!["http://a:2".to_owned(), "https://b:1".into()])
        );
        for wrong in ["", "a:1", "http://a", "ftp://a:1", "http://a:1/path", "http://:x"] {
            assert_eq!(urls(&[wrong]), Err(StoreError::BadMemberUrls), "{wrong}");
        }
        assert_eq!(urls(&[]), Err(StoreError::BadMemberUrls));
    }
}

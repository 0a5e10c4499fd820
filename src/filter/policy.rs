//! What may be asked for: methods, and repositories by pattern.

use async_trait::async_trait;
use http::request::Parts;

use super::{Context, Flow, Mount, Refusal, RequestFilter};
use crate::{
    config::{Upstream, Writes},
    protocol::Repository,
};

/// The filter.
#[derive(Debug)]
pub struct Policy;

#[async_trait]
impl RequestFilter for Policy {
    fn name(&self) -> &'static str {
        "policy"
    }

    async fn filter(&self, request: &Parts, context: &mut Context) -> Result<Flow, Refusal> {
        let Some(target) = &mut context.target else {
            return Ok(Flow::Continue);
        };
        let (config, method) = (target.upstream.config(), &request.method);
        if target.is_write(method) {
            let allowed = target.route.methods();
            if config.writes == Writes::Deny {
                return Err(Refusal::ReadOnly { method: method.clone() });
            }
            if !allowed.split(", ").any(|one| one == method.as_str()) {
                return Err(Refusal::MethodNotAllowed { method: method.clone(), allowed });
            }
        }
        if let Some(repository) = target.route.repository()
            && !may_be_used(config, repository)
        {
            return Err(Refusal::RepositoryDenied { repository: repository.clone() });
        }
        if let Mount::Named(from) = &target.mount
            && !may_be_used(config, from)
        {
            target.mount = Mount::Elsewhere;
        }
        Ok(Flow::Continue)
    }
}

fn may_be_used(config: &Upstream, repository: &Repository) -> bool {
    let name = repository.as_str();
    config.allow.matches(name) && !config.deny.matches(name)
}

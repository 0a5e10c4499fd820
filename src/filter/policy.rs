//! What may be asked for: methods, and repositories by pattern.

use async_trait::async_trait;
use http::request::Parts;

use super::{Context, Flow, Mount, Refusal, RequestFilter};
use crate::config::Writes;

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
            && !config.admits(repository.as_str())
        {
            return Err(Refusal::RepositoryDenied { repository: repository.clone() });
        }
        if let Mount::Named(from) = &target.mount
            && !config.admits(from.as_str())
        {
            target.mount = Mount::Elsewhere;
        }
        Ok(Flow::Continue)
    }
}

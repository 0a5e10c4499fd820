//! What may be asked for: methods, and repositories by pattern.

use async_trait::async_trait;
use http::{Method, request::Parts};

use super::{Context, Flow, Refusal, RequestFilter};
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
        let Some(target) = &context.target else {
            return Ok(Flow::Continue);
        };
        let config = target.upstream.config();
        let reads = matches!(request.method, Method::GET | Method::HEAD);
        if !reads && config.writes == Writes::Deny {
            return Err(Refusal::MethodNotAllowed { method: request.method.clone() });
        }
        if let Some(repository) = target.route.repository() {
            let name = repository.as_str();
            if !config.allow.matches(name) || config.deny.matches(name) {
                return Err(Refusal::RepositoryDenied { repository: repository.clone() });
            }
        }
        Ok(Flow::Continue)
    }
}

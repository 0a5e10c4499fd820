//! The dashboard: pages at `/` and below, and what they are made of.

use axum::Router;

use super::Server;

/// The pages and their files.
pub(super) fn router() -> Router<Server> {
    Router::new()
}
